"""The active-learning loop: engines, jobs over shards, training, rounds."""
