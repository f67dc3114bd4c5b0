"""The labelling page: `madbal annotate`."""
