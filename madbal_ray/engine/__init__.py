"""What runs jobs: the contract, shards and stages, and the engine without Ray."""
