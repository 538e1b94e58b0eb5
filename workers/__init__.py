"""What happens away from the request: the training engine and the Celery workers that run it."""
