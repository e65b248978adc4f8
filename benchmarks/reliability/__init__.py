"""``python -m benchmarks.reliability``: tests every promise of docs/reliability.md by attacks."""
