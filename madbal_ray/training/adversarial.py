"""Telling labelled from unlabelled images by their looks: an autoencoder, a judge of its codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

THUMBNAIL = 64
"""Side of the images that are looked at."""

LATENT = 32
BATCH = 32
"""Labelled images of a batch, and as many unlabelled ones."""

LEARNING_RATE = 5e-4
ADVERSARY = 1.0
"""Weight of deceiving the judge beside rebuilding the image (lambda of the paper)."""

CHANNELS = (16, 32, 64, 128)

Thumbnails = UInt8[np.ndarray, "_ 64 64 3"]


class AutoEncoder(nn.Module):
    """A variational autoencoder of thumbnails."""

    def __init__(self) -> None:
        super().__init__()
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS), CHANNELS, strict=False):
            down += [
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        for before, after in zip(CHANNELS[::-1], CHANNELS[-2::-1], strict=False):
            up += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        side = THUMBNAIL // 2 ** len(CHANNELS)
        size = CHANNELS[-1] * side**2
        self.down = nn.Sequential(*down, nn.Flatten())
        self.mean, self.log_variance = nn.Linear(size, LATENT), nn.Linear(size, LATENT)
        self.up = nn.Sequential(
            nn.Linear(LATENT, size),
            nn.Unflatten(1, (CHANNELS[-1], side, side)),
            *up,
            nn.ConvTranspose2d(CHANNELS[0], 3, 4, stride=2, padding=1),
        )

    def encode(self, images: Float32[Tensor, "B 3 64 64"]) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance of the codes, each [B, LATENT]."""
        found = self.down(images)
        return self.mean(found), self.log_variance(found)


@dataclass(frozen=True)
class Judge:
    """An autoencoder and the network that tells labelled from unlabelled by its codes."""

    encoder: AutoEncoder
    judge: nn.Module

    def judged(
        self, images: UInt8[np.ndarray, "N 64 64 3"]
    ) -> tuple[Float64[np.ndarray, "N"], Float32[np.ndarray, "N 32"]]:
        """Return how likely each image is none of the labelled ones, 0..1, and its code."""
        self.encoder.eval()
        scores, codes = [np.zeros(0)], [np.zeros((0, LATENT), np.float32)]
        with torch.inference_mode():
            for image in images:  # alone, so that its score does not depend on its shard
                mean, _ = self.encoder.encode(_as_input(image[None]))
                scores.append(torch.sigmoid(-self.judge(mean).double())[:, 0].numpy())
                codes.append(mean.numpy())
        return np.concatenate(scores), np.concatenate(codes)


def learn_to_tell(
    labelled: Thumbnails, unlabelled: Thumbnails, *, steps: int, generator: np.random.Generator
) -> Judge:
    """Train both networks against each other on CPUs.

    The encoder is to rebuild images and to make the judge take all of them for labelled; the
    judge is to see which are. Batches are drawn with replacement.

    Args:
        labelled, unlabelled: at least one image each.
        generator: the only source of chance.

    Source: Sinha et al. 2019 (VAAL), Algorithm 1; its loss per pixel, smaller networks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator.integers(2**62)))
        encoder = AutoEncoder()
        judge = nn.Sequential(
            nn.Linear(LATENT, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1)
        )
        of_encoder = torch.optim.Adam(encoder.parameters(), LEARNING_RATE)
        of_judge = torch.optim.Adam(judge.parameters(), LEARNING_RATE)
        all_labelled = torch.ones(2 * BATCH, 1)
        truth = all_labelled.clone()
        truth[BATCH:] = 0.0
        encoder.train()
        for _ in range(steps):
            batch = torch.cat([_drawn(images, generator) for images in (labelled, unlabelled)])
            mean, log_variance = encoder.encode(batch)
            code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            loss = _evidence_loss(encoder.up(code), batch, mean, log_variance)
            loss = loss + ADVERSARY * binary_cross_entropy_with_logits(judge(mean), all_labelled)
            of_encoder.zero_grad()
            loss.backward()
            of_encoder.step()

            of_judge.zero_grad()
            binary_cross_entropy_with_logits(judge(mean.detach()), truth).backward()
            of_judge.step()
    return Judge(encoder, judge)


def _evidence_loss(rebuilt: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return squared error and divergence from a standard normal code, for each value."""
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum()
    return mse_loss(rebuilt, images) + divergence / images.numel()


def _drawn(images: Thumbnails, generator: np.random.Generator) -> Tensor:
    return _as_input(images[generator.integers(len(images), size=BATCH)])


def _as_input(images: np.ndarray) -> Tensor:
    """Return images in -1..1, [B, 3, side, side]."""
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1.0
