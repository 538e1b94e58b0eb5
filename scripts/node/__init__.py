"""Runs OpenAI's client for Node against this service: `make node-client`."""
