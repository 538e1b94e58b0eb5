"""`cherry models`: what models there are, what they are and what they take."""
