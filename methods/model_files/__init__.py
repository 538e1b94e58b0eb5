"""A model folder, read without trusting it: no code of it is run, and no library that would is needed."""
