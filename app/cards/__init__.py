"""The run card: what a job was made of and what became of it, signed."""
