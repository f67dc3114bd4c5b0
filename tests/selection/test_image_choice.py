"""Whole images: highest scores, greedy k-center."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from madbal_ray.selection.image_choice import core_set, top_images


def test_top_images_skip_asked_ones_and_break_ties_by_position():
    score = np.array([1.0, 5.0, 5.0, 9.0, 2.0])
    asked = np.array([False, False, False, True, False])
    assert top_images(score, asked, 3).tolist() == [1, 2, 4]
    assert top_images(score, asked, 99).tolist() == [1, 2, 4, 0]


@given(st.integers(0, 2**32 - 1), st.integers(0, 8), st.integers(1, 7))
def test_core_set_equals_the_literal_greedy_whatever_the_chunks(seed, count, chunk):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(15, 3)).astype(np.float32)
    asked = rng.random(15) < 0.3
    cuts = range(0, 15, chunk)
    found = core_set(lambda: (features[c : c + chunk] for c in cuts), asked, count)
    exact = features.astype(np.float64)
    centers = list(np.flatnonzero(asked))
    chosen = []
    while len(chosen) < min(count, int((~asked).sum())):
        if centers:
            distance = ((exact[:, None] - exact[centers][None]) ** 2).sum(-1).min(1)
            distance[asked] = -1
            distance[chosen] = -1
            pick = int(distance.argmax())
        else:
            pick = int(((exact - exact.mean(0)) ** 2).sum(1).argmin())
        chosen.append(pick)
        centers.append(pick)
    assert found.tolist() == chosen
