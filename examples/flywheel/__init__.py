"""The data flywheel, once around: run.py."""
