"""The loop around the round: evaluation, history, callbacks, progress and replay."""
