"""What a run saved: listing and download."""
