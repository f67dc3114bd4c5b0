"""Slow, obvious writings of every kernel: loops, float64, the paper's formulas."""

import math

import numpy as np


def softmax(logits):
    shifted = np.asarray(logits, np.float64) - np.max(logits)
    exps = np.exp(shifted)
    return exps / exps.sum()


def entropy(p):
    return -sum(v * math.log(v) for v in p if v > 0)


def jensen_shannon(p, q):
    mixture = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return entropy(mixture) - (entropy(p) + entropy(q)) / 2


def sigmoid(v):
    return 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v))


def bilinear(channel, height, width):
    """Resize one [h, w] map, align_corners=False, edges clamped."""
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            out[y, x] = bilinear_at(channel, y, x, height, width)
    return out


def bilinear_at(channel, y, x, height, width):
    h, w = channel.shape
    sy = min(max((y + 0.5) * h / height - 0.5, 0), h - 1)
    sx = min(max((x + 0.5) * w / width - 0.5, 0), w - 1)
    y0, x0 = int(sy), int(sx)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    fy, fx = sy - y0, sx - x0
    top = channel[y0, x0] * (1 - fx) + channel[y0, x1] * fx
    bottom = channel[y1, x0] * (1 - fx) + channel[y1, x1] * fx
    return top * (1 - fy) + bottom * fy


def resize_all(maps, height, width):
    return np.stack([bilinear(m.astype(np.float64), height, width) for m in maps])


def pixel_scores(logits, heads, weights, errors, is_boundary):
    """Eq. 4 for one image: arrays [C, h, w]; returns score and prediction [H, W]."""
    height, width = is_boundary.shape
    final = resize_all(logits, height, width)
    heads = [resize_all(head, height, width) for head in heads]
    weights = None if weights is None else resize_all(weights, height, width)
    errors = None if errors is None else resize_all(errors, height, width)
    score = np.zeros((height, width))
    prediction = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            p = softmax(final[:, y, x])
            value = entropy(p)
            if weights is not None:
                for k, head in enumerate(heads):
                    value += weights[k, y, x] * jensen_shannon(p, softmax(head[:, y, x]))
            if errors is not None:
                value *= math.exp(sigmoid(errors[0 if is_boundary[y, x] else 1, y, x]))
            score[y, x] = value
            prediction[y, x] = int(np.argmax(final[:, y, x]))
    return score, prediction


def reduce_scores(score, prediction, is_asked, ids, num_superpixels, num_classes, top):
    rows = []
    for s in range(num_superpixels):
        pixels = [
            (y, x)
            for y in range(score.shape[0])
            for x in range(score.shape[1])
            if ids[y, x] == s and not is_asked[y, x]
        ]
        votes = [sum(prediction[p] == c for p in pixels) for c in range(num_classes)]
        best = sorted(pixels, key=lambda p: (-score[p], p))[:top]
        best_scores = [float(score[p]) for p in best]
        best += [(-1, -1)] * (top - len(best))
        best_scores += [-math.inf] * (top - len(best_scores))
        rows.append(
            {
                "num_pixels": len(pixels),
                "mean_score": sum(float(score[p]) for p in pixels) / len(pixels) if pixels else 0,
                "dominant_class": votes.index(max(votes)) if pixels else -1,
                "top_y": [p[0] for p in best],
                "top_x": [p[1] for p in best],
                "top_score": best_scores,
            }
        )
    return rows


def cluster_scores(mean, dominant, cluster, num_clusters, num_classes):
    """Eq. 5-7 straight from the superpixels."""
    share = np.zeros((num_clusters, num_classes))
    score = np.zeros(num_clusters)
    for k in range(num_clusters):
        members = [i for i in range(len(mean)) if cluster[i] == k and dominant[i] >= 0]
        if not members:
            continue
        for c in range(num_classes):
            share[k, c] = sum(dominant[i] == c for i in members) / len(members)
        score[k] = sum(mean[i] * math.exp(-share[k, dominant[i]]) for i in members) / len(members)
    return share, score


def largest_remainder(weights, units):
    """Hamilton's method with exact fractions."""
    from fractions import Fraction

    weights = [Fraction(w) for w in weights]
    total = sum(weights)
    quotas = [w * units / total for w in weights]
    result = [int(q) for q in quotas]
    order = sorted(range(len(quotas)), key=lambda k: (-(quotas[k] - result[k]), k))
    for k in order[: units - sum(result)]:
        result[k] += 1
    return result


def ceil_budget(weights, units):
    from fractions import Fraction

    weights = [Fraction(w) for w in weights]
    total = sum(weights)
    result = [-(-(w * units) // total) for w in weights]
    turn = sorted((k for k, w in enumerate(weights) if w > 0), key=lambda k: (weights[k], -k))
    position = 0
    while sum(result) > units:
        k = turn[position % len(turn)]
        if result[k] > 0:
            result[k] -= 1
        position += 1
    return result


def query_image(superpixels, cluster_budget, cluster_score):
    """Section 6, one unit at a time.

    superpixels: list of dicts id, cluster, score, pixels [(y, x, u), best first].
    """
    left = sum(cluster_budget)
    chosen = []
    lap = 0
    while left > 0:
        waiting = {
            k: sorted(
                (s for s in superpixels if s["cluster"] == k and len(s["pixels"]) > lap),
                key=lambda s: (-s["score"], s["id"]),
            )
            for k in range(len(cluster_budget))
        }
        if not any(waiting.values()):
            break
        taken = []
        if lap == 0:
            for k, budget in enumerate(cluster_budget):
                taken += waiting[k][:budget]
                waiting[k] = waiting[k][budget:]
            left -= len(taken)
        while left > 0 and any(waiting.values()):
            weights = [cluster_score[k] if waiting[k] else 0 for k in range(len(cluster_score))]
            if not any(weights):
                weights = [1 if waiting[k] else 0 for k in range(len(cluster_score))]
            extra = largest_remainder(weights, left)
            for k, count in enumerate(extra):
                got = waiting[k][:count]
                waiting[k] = waiting[k][count:]
                taken += got
                left -= len(got)
        taken.sort(key=lambda s: (-s["score"], s["id"]))
        chosen += [(s["pixels"][lap][0], s["pixels"][lap][1], s["id"], s["cluster"]) for s in taken]
        lap += 1
    return chosen
