"""The only place that knows Ray: sessions, shard maps, training, selection."""
