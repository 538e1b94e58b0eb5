"""The recipe of the built-in model cherry-nano: data, tokenizer, training and evaluation."""
