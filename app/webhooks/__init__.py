"""Webhooks: the endpoints of a project, and the outbox from which events are sent to them."""
