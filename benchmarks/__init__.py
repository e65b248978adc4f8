"""Benchmarks: ratios of a federated round to the same steps without federation; see NOTES.md."""
