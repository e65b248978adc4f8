"""Shards on devices: backends, sharding, memory exchange and memory limits."""
