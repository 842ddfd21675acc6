"""Augmentation on the device: pure functions of (key, x) that run inside jit."""
