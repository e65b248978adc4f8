"""``python -m benchmarks.reliability``: what the package promises, attacked; the table of docs/reliability.md."""
