"""Decoding, grids, boundaries, exact geometry of points."""
