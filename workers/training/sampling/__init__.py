"""The sampler: completions of prompts, by the decoder that suits model and device."""
