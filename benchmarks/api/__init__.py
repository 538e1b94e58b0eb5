"""The API under load (`python -m benchmarks.api`), and large uploads (`python -m benchmarks.api.upload`)."""
