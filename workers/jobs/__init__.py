"""What a worker does with jobs: validation, attempt, run, recorder, delivery, and the sweep after them."""
