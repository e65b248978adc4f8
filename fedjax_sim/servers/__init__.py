"""Owners of the model."""
