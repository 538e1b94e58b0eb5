"""Chat completions: asked of a model, streamed or whole, and kept where that is asked for."""
