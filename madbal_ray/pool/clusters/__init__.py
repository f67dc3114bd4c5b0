"""K-means over what superpixels look like (paper section 4)."""
