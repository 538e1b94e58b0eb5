"""The words that a job is made of: hyperparameters, algorithms, defaults, row formats. No torch, no database, no HTTP."""
