"""Preflights: what a job would meet, found out before it is started."""
