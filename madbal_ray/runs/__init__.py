"""One run on disk, read: tables, status, verification, what its network saw."""
