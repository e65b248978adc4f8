"""Servers: the owners of the global model."""
