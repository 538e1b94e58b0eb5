"""The page of one job: where it is, its curves, what it has come to."""
