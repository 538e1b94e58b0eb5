"""The words that a job is made of: hyperparameters, algorithms, defaults, row and response formats.

No torch, no database and no HTTP: the API, the workers and the command line all read them here.
"""
