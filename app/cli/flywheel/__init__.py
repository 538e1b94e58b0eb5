"""Commands of the data flywheel: stored completions, feedback on them, and data sets of both."""
