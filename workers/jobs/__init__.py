"""What a worker does with a job: its files checked, its attempt, its run, its results, and what is swept after."""
