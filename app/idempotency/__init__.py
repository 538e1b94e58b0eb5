"""`Idempotency-Key`: a POST that is repeated with the same key is carried out once and responded to alike."""
