"""The plain way: a straightforward writing of what published code bases do.

And `vectorised_uncertainty`, the best that plain torch does without a kernel of one's own. Never
imported by the package; each function is checked for equal results before it is timed.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch.nn import functional as F


def uncertainty(logits, head_logits, maturity_weights, error_logits, is_boundary):
    """Return u(x) and prediction from full-resolution softmax maps of every head."""
    size = is_boundary.shape[-2:]

    def full(maps):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)

    def entropy(p):
        return -(p * torch.log(p.clamp_min(1e-12))).sum(1)

    main = F.softmax(full(logits), dim=1)
    total = entropy(main)
    resized = full(maturity_weights)
    for index, head in enumerate(head_logits):
        other = F.softmax(full(head), dim=1)
        mixture = (main + other) / 2
        js = entropy(mixture) - (entropy(main) + entropy(other)) / 2
        total = total + resized[:, index] * js
    errors = torch.sigmoid(full(error_logits))
    error = torch.where(is_boundary, errors[:, 0], errors[:, 1])
    return total * torch.exp(error), main.argmax(1)


def vectorised_uncertainty(logits, head_logits, maturity_weights, error_logits, is_boundary):
    """Return what `uncertainty` returns: each entropy once, log-softmax, all heads at once."""
    size = is_boundary.shape[-2:]

    def full(maps):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)

    heads = torch.stack([full(maps) for maps in (logits, *head_logits)])  # [1 + K, B, C, H, W]
    logs = F.log_softmax(heads, dim=2)
    probabilities = logs.exp()
    entropies = -(probabilities * logs).sum(2)
    mixture = (probabilities[:1] + probabilities[1:]) / 2
    of_mixture = -(mixture * mixture.clamp_min(1e-37).log()).sum(2)
    divergence = of_mixture - (entropies[:1] + entropies[1:]) / 2
    total = entropies[0] + (full(maturity_weights).transpose(0, 1) * divergence).sum(0)
    errors = full(error_logits)
    error = torch.where(is_boundary, errors[:, 0], errors[:, 1]).sigmoid()
    return total * error.exp(), heads[0].argmax(1)


def reduce_by_masks(score, prediction, is_asked, ids, num_superpixels, num_classes):
    """Return mean, dominant class and best pixel of each superpixel: one mask after the other."""
    means, classes, ys, xs = [], [], [], []
    for index in range(num_superpixels):
        mask = (ids == index) & ~is_asked
        if not mask.any():
            means.append(0.0)
            classes.append(-1)
            ys.append(-1)
            xs.append(-1)
            continue
        means.append(score[mask].mean().item())
        classes.append(torch.bincount(prediction[mask], minlength=num_classes).argmax().item())
        best = torch.where(mask, score, -torch.inf).argmax().item()
        ys.append(best // score.shape[1])
        xs.append(best % score.shape[1])
    return means, classes, ys, xs


def dense_cross_entropy(logits, target):
    """Return the mean cross-entropy after upsampling to the target's grid; 255 is ignored."""
    full = F.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(full, target, ignore_index=255)


def patches(image, label_map, num_superpixels, size):
    """Return one filled, resized patch after the other."""
    out = np.zeros((num_superpixels, size, size, 3), np.float32)
    for index in range(num_superpixels):
        inside = label_map == index
        y, x = np.nonzero(inside)
        top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
        crop = image[top:bottom, left:right].astype(np.float32)
        mean = image[inside].mean(axis=0)
        crop[~inside[top:bottom, left:right]] = mean
        out[index] = cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(out, 0, 255)
