"""Features of a frozen backbone: computed once, kept where they fit."""
