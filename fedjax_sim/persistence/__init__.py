"""State on disk: checkpoints with manifests, weights and exported models."""
