"""Data sets of TensorFlow Datasets (TFDS), read without TensorFlow."""
