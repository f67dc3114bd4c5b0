"""From scores to queries: shares, budgets, the one pass over rows (paper Eq. 5-8)."""
