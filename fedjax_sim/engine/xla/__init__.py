"""Rewriting of traced steps for what XLA compiles slowly."""
