"""A stream's name is its seed, its purpose and its keys, each with its type."""

import itertools

from madbal_ray.rng import derive_seed, stream

NAMES = [
    (0, "augment", 1, "a.png"),
    (1, "augment", 1, "a.png"),
    (0, "initial_pool", 1, "a.png"),
    (0, "augment", 2, "a.png"),
    (0, "augment", 1, "b.png"),
    (0, "augment", "1", "a.png"),
    (0, "augment", "a.png", 1),
    (0, "augment", 1),
    (0, "augment"),
    (0, "augment", 1, "a.png", 0),
    (0, "augment", 11, "a.png"),
    (0, "augment", 1, 1, "a.png"),
    (0, "augmen", "t", 1, "a.png"),
    (-1, "augment", 1, "a.png"),
]


def test_every_part_of_a_name_counts():
    for one, other in itertools.combinations(NAMES, 2):
        assert derive_seed(*one) != derive_seed(*other), (one, other)
        first, second = (stream(*name).integers(0, 2**62, 4).tolist() for name in (one, other))
        assert first != second, (one, other)


def test_seeds_and_draws_are_the_same_for_ever():
    assert derive_seed(0, "augment", 1, "a.png") == 8248600615220855332
    assert derive_seed(7, "initial_pool") == 9373786144948999562
    assert stream(0, "augment", 1, "a.png").integers(0, 1000, 4).tolist() == [720, 505, 22, 400]
