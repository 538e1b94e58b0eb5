"""What a worker does with preflights: files, duplicates, samples of the base, and what they promise."""
