"""Training of one round: phase I, targets, phase II; losses on points."""
