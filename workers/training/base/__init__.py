"""Below everything in the engine: its types, errors, randomness, processes, and the recorder it speaks to."""
