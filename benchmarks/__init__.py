"""`make bench`: one table; ours, the plain way, their ratio, peak memory."""
