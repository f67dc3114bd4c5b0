"""Data sets: an index of images and masks plus a class map, nothing else."""
