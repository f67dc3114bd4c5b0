"""Stages: kernels composed for one batch of images. No I/O, no Ray."""
