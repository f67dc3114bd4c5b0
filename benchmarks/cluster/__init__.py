"""What ten million images on an object store cost: ``python -m benchmarks.cluster``."""
