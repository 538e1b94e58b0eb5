"""What makes a run's result trustworthy: how far it may go from its start, and what is done when it goes
wrong.
"""
