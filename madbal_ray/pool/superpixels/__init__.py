"""Superpixels of the working grid, and what each looks like."""
