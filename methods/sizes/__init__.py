"""How large models are, and what a training pass of one takes on a GPU."""
