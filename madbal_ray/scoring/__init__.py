"""The uncertainty of a pixel, u(x) (paper Eq. 4), and its reduction to superpixels."""
