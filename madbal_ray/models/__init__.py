"""Networks: a backbone with four taps, a main head, and the active-learning supports."""
