"""What Cherry does, to be run and read."""
