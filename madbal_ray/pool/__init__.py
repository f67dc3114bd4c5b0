"""A pool, prepared once: index, inspection, superpixels, their looks and clusters."""
