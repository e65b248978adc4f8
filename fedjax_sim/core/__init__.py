"""Types, pytree arithmetic, errors, files and permutations that every other package uses."""
