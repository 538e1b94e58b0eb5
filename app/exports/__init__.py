"""A checkpoint to take home: its adapter, its merged model or a GGUF, as one tar with cards and usage."""
