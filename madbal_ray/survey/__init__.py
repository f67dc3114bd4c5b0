"""A look at somebody's data before anything is run: `madbal data check`."""
