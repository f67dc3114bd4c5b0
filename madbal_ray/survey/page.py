"""What a survey found as one page: its lines, and a few images under their masks."""

from __future__ import annotations

import base64
import html
import io

import cv2
import numpy as np
from PIL import Image

from madbal_ray.arrays import IGNORE_INDEX, Mask, RGBImage
from madbal_ray.survey.found import Survey

OVERLAY_SIDE = 480
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
pre { overflow-x: auto; white-space: pre-wrap; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; max-width: 30rem; }
.swatch { display: inline-block; width: 1em; height: 1em; border: 1px solid; }
"""


def page(found: Survey) -> str:
    """Return the page, whole in itself."""
    title = html.escape(f"Data check: {found.root}")
    lines = html.escape("\n".join(found.lines()))
    figures = []
    for image_id, image, mask in found.overlays():
        picture = overlay(image, mask, np.array(found.dataset.colors, np.uint8))
        name = html.escape(image_id)
        figures.append(
            f'<figure><img alt="{name} under its mask" src="{_data_uri(picture)}">'
            f"<figcaption>{name}</figcaption></figure>"
        )
    legend = ""
    if found.layout.has_classes:
        legend = "".join(
            f'<li><span class="swatch" style="background: rgb{color}"></span> {html.escape(name)}'
            for name, color in zip(found.dataset.class_names, found.dataset.colors, strict=True)
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><main><h1>{title}</h1><pre>{lines}</pre>"
        f"<h2>Images under their masks</h2><ul>{legend}</ul>{''.join(figures)}</main></html>\n"
    )


def overlay(image: RGBImage, mask: Mask | None, colors: np.ndarray) -> RGBImage:
    """Return an image with its classes laid over it, void left as it is, small enough to show."""
    if mask is not None:
        painted = image.copy()
        is_class = mask != IGNORE_INDEX
        painted[is_class] = colors[mask[is_class]]
        image = cv2.addWeighted(image, 0.5, painted, 0.5, 0)
    scale = OVERLAY_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _data_uri(image: RGBImage) -> str:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"
