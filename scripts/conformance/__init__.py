"""Runs the official client's own test suite against this service: `make conformance`."""
