"""What a worker does with exports: forms of a checkpoint that take torch to be made."""
