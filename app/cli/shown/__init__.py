"""What the command shows of a service and its jobs."""
