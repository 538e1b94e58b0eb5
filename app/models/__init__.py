"""The models resource: base models and what was tuned from them."""
