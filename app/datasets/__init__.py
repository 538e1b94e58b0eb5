"""Data sets made from stored chat completions and what was said of them, with where each row came from."""
