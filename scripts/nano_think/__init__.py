"""The recipe of the built-in model cherry-nano-think: data, tokenizer, training and evaluation."""
