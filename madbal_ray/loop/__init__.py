"""The page of the algorithm: rounds joined to a loop, and how a run is launched."""
