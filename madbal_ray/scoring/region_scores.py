"""Scores that look around a pixel, for strategies that ask for regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torchvision.transforms.functional import gaussian_blur

from madbal_ray.scoring.pixel_scores import to_size

WINDOW_SHARE = 8
"""The shorter side of the grid over the side of a window: CEREALS' 128 of Cityscapes' 1024."""

CLICKS_OF_A_WINDOW = 4.0
CONTOUR_OF_A_CLICK = 10.0
"""A window of one class takes four clicks, and each ten pixels of contour inside it one more.

CEREALS learns clicks from those that people made. Without any recorded, this stands for them.
"""

ATTENTION_SHARE = 32
"""The shorter side of the grid over the standard deviation of CPRAL's attention (our choice)."""


def information_by_clicks(
    information: Float[Tensor, "B H W"], prediction: Int64[Tensor, "B H W"]
) -> Float32[Tensor, "B H W"]:
    """Return the mean information of the window around a pixel over the clicks that it takes.

    The clicks to outline everything in a window are estimated from the contours of the
    prediction: `CLICKS_OF_A_WINDOW` + contour pixels / `CONTOUR_OF_A_CLICK`. At the image's edge
    a window is what is left of it, and costs what a whole one with as dense contours would.

    Args:
        information: nats, at least 0.
        prediction: class ids.

    Source: Mackowiak et al. 2018 (CEREALS), with a cost that is estimated, not learned.
    """
    side = max(1, min(prediction.shape[1:]) // WINDOW_SHARE) | 1  # odd, so that it has a centre
    contour = torch.zeros_like(prediction, dtype=torch.float32)
    contour[:, :, :-1][prediction[:, :, :-1] != prediction[:, :, 1:]] = 1.0
    contour[:, :-1][prediction[:, :-1] != prediction[:, 1:]] = 1.0
    clicks = CLICKS_OF_A_WINDOW + _window_mean(contour, side) * side**2 / CONTOUR_OF_A_CLICK
    return _window_mean(information.float(), side) / clicks


def _window_mean(values: Tensor, side: int) -> Tensor:
    """Return the mean over the square around each pixel, as far as it lies in the image."""
    for window in ((side, 1), (1, side)):
        padding = (window[0] // 2, window[1] // 2)
        values = avg_pool2d(values, window, stride=1, padding=padding, count_include_pad=False)
    return values


def vote_entropy(passes: Sequence[Float[Tensor, "B C h w"]], height: int, width: int) -> Tensor:
    """Return the entropy of the classes that several passes vote for, float32 [B H W], in nats.

    Args:
        passes: logits of each; brought to H x W as all scores are.
    """
    votes = None
    for logits in passes:
        full = to_size(logits, height, width)
        vote = torch.zeros_like(full, dtype=torch.float32)
        vote.scatter_(1, full.argmax(dim=1, keepdim=True), 1.0)
        votes = vote if votes is None else votes + vote
    assert votes is not None
    share = votes / len(passes)
    return -torch.special.xlogy(share, share).sum(dim=1)


def attended(values: Float32[Tensor, "B H W"]) -> Float32[Tensor, "B H W"]:
    """Return values as a Gaussian around each pixel sees them, the image mirrored at its edge.

    Source: after the Gaussian attention of CPRAL (Qiao et al. 2022), which is learned there.
    """
    shorter = min(values.shape[1:])
    deviation = max(1.0, shorter / ATTENTION_SHARE)
    radius = min(int(3 * deviation), shorter - 1)
    blurred = gaussian_blur(values.unsqueeze(1), [2 * radius + 1] * 2, [deviation] * 2)
    return blurred.squeeze(1)
