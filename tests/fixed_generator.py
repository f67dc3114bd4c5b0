"""A random generator whose draws are known, to test what is made of them."""

import numpy as np


class FixedGenerator(np.random.Generator):
    """Every draw lies at `share` of its range; a choice takes the first, a permutation is none.

    Attributes:
        populations: what `choice` was asked to draw from, in order.
    """

    def __init__(self, share=0.0):
        super().__init__(np.random.PCG64(0))
        self.share, self.populations = share, []

    def random(self, size=None):
        return self.share if size is None else np.full(size, self.share)

    def uniform(self, low=0.0, high=1.0, size=None):
        value = low + self.share * (high - low)
        return value if size is None else np.full(size, value)

    def choice(self, population, size=None, replace=True):
        assert not replace
        self.populations.append(population)
        return np.arange(population)[:size] if isinstance(population, int) else population[:size]

    def permutation(self, length):
        return np.arange(length)
