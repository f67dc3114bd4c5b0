"""What training and scoring share: decoding, boundary maps, point geometry, bilinear points."""
