"""Permissions on checkpoints: other projects of the organisation may use a checkpoint as a model."""
