"""The policy: base model, adapter, value head, reference, sampling copy, and their changes to modules."""
