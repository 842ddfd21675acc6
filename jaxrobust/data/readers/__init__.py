"""Readers of data on disk: image folders, arrays, CSV tables, TFDS, unlabeled examples."""
