"""Several runs in one job: seeds of which the better half goes on, and controls that show what is no gain."""
