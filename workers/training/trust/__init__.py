"""What makes a result one to trust: which checkpoint is better, and what is said of it."""
