"""The grader `instructions`: checks whether an answer follows verifiable instructions (IFEval)."""
