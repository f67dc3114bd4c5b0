"""`budget.scope: pool`: the best superpixels of each cluster over all images."""
