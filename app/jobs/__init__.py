"""Fine-tuning jobs: rows, status moves, lease, cancel."""
