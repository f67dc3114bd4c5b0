"""Street-like scenes drawn from a seed: textured, strongly imbalanced, no download.

Sky, buildings, road and pavement fill most of a scene; poles, signs and people are thin or
small and rare, and share their colours with the background, so that it matters which
pixels are labelled. The strip at the bottom (the bonnet of the camera's car) is void.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32

from madbal_ray import rng
from madbal_ray.arrays import IGNORE_INDEX, Mask, RGBImage
from madbal_ray.config.data import DataConfig, SyntheticConfig
from madbal_ray.data.dataset import Dataset, ImageRecord, identity_values
from madbal_ray.state.stage_dir import StageDir
from madbal_ray.state.storage import Folder

CLASSES: dict[str, tuple[int, int, int]] = {
    "sky": (128, 170, 220),
    "building": (140, 110, 100),
    "road": (105, 100, 110),
    "pavement": (170, 150, 150),
    "tree": (70, 110, 60),
    "car": (120, 60, 80),
    "pole": (120, 120, 115),
    "sign": (200, 170, 60),
    "person": (150, 90, 80),
}
"""What scenes are painted with: some classes look alike on purpose."""

COLORS: dict[str, tuple[int, int, int]] = {
    "sky": (90, 170, 255),
    "building": (160, 80, 60),
    "road": (85, 85, 95),
    "pavement": (225, 170, 205),
    "tree": (40, 140, 50),
    "car": (60, 30, 160),
    "pole": (240, 220, 60),
    "sign": (255, 130, 0),
    "person": (220, 20, 60),
}
"""What class maps are drawn with, to be told apart."""

SKY, BUILDING, ROAD, PAVEMENT, TREE, CAR, POLE, SIGN, PERSON = range(len(CLASSES))
SPLITS = ("train", "val")


def scene_dir(config: SyntheticConfig, pool: Folder) -> StageDir:
    """Return the pool's folder of these scenes."""
    settings = config.result_settings()
    return StageDir.plan(pool, "synthetic", settings, {})


def scene_key(config: SyntheticConfig) -> str:
    """Return the key of these scenes."""
    return scene_dir(config, Folder("/")).key


def open_dataset(config: DataConfig, root: Folder) -> Dataset:
    """Draw the scenes into `root` unless they are there, and index them."""
    options = config.synthetic
    _draw_all(options, root)
    records = []
    for split, count in zip(SPLITS, (options.num_train, options.num_val), strict=True):
        for index in range(count):
            image = f"{split}/{index:05d}.png"
            records.append(ImageRecord(image, image, f"{split}_masks/{index:05d}.png", split))
    return Dataset(
        name="synthetic",
        records=records,
        class_names=tuple(CLASSES),
        mask_values=identity_values(len(CLASSES)),
        colors=tuple(COLORS.values()),
    )


def _draw_all(config: SyntheticConfig, root: Folder) -> None:
    plan = scene_dir(config, Folder("/"))
    stage = StageDir(root, "synthetic", plan.key, plan.settings, {})
    if stage.is_done and stage.marker().key == plan.key:
        return
    files = []
    for split, count in zip(SPLITS, (config.num_train, config.num_val), strict=True):
        for index in range(count):
            image, mask = draw_scene(
                config.seed, f"{split}/{index}", height=config.height, width=config.width
            )
            files.append(stage.write_file(f"{split}/{index:05d}.png", _png(image[..., ::-1])))
            files.append(stage.write_file(f"{split}_masks/{index:05d}.png", _png(mask)))
    stage.commit(files, {"classes": list(CLASSES)})


def _png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(array))[1].tobytes()


def draw_scene(seed: int, name: str, *, height: int, width: int) -> tuple[RGBImage, Mask]:
    """Draw one scene and its mask; the same arguments give the same bytes."""
    scene = _Scene(rng.stream(seed, "synthetic_scene", name), height, width)
    scene.paint_background()
    scene.paint_objects()
    return scene.finish()


class _Scene:
    """A canvas of float colours and class ids, painted from back to front."""

    def __init__(self, generator: np.random.Generator, height: int, width: int) -> None:
        self.random = generator
        self.height, self.width = height, width
        self.color = np.zeros((height, width, 3), np.float32)
        self.mask = np.full((height, width), SKY, np.uint8)
        self.horizon = int(height * generator.uniform(0.38, 0.5))
        self.light = generator.uniform(0.75, 1.2)

    def noise(self, cell_y: float, cell_x: float) -> Float32[np.ndarray, "H W"]:
        """Return smooth noise in -1..1 whose blobs are about cell_y x cell_x pixels."""
        rows = max(2, int(self.height / cell_y))
        columns = max(2, int(self.width / cell_x))
        coarse = self.random.uniform(-1, 1, (rows, columns)).astype(np.float32)
        return cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)

    def paint(self, where: np.ndarray, class_id: int, texture: np.ndarray, spread: float) -> None:
        """Fill `where` with a class: its base colour, moved by `spread`, and a texture."""
        base = np.array(list(CLASSES.values())[class_id], np.float32)
        tint = self.random.normal(0, spread, 3).astype(np.float32)
        filled = (base + tint) + texture[..., None]
        self.color[where] = filled[where]
        self.mask[where] = class_id

    def shape(self, draw: Callable[[np.ndarray], object]) -> np.ndarray:
        """Return the pixels that an OpenCV drawing call covers."""
        canvas = np.zeros((self.height, self.width), np.uint8)
        draw(canvas)
        return canvas.astype(bool)

    def polygon(self, *corners: tuple[float, float]) -> np.ndarray:
        """Return the pixels of a polygon given by (x, y) corners."""
        points = np.array(corners, np.float32).round().astype(np.int32)
        return self.shape(lambda canvas: cv2.fillPoly(canvas, [points], (1,)))

    def paint_background(self) -> None:
        """Paint sky, buildings, trees, pavement and road."""
        everything = np.ones((self.height, self.width), bool)
        rows = np.linspace(25, -15, self.height, dtype=np.float32)[:, None]
        self.paint(everything, SKY, rows + 10 * self.noise(12, 40), 18)
        x = 0.0
        while x < self.width:
            wide = self.random.uniform(0.12, 0.32) * self.width
            if self.random.random() < 0.8:
                top = self.horizon * self.random.uniform(0.1, 0.85)
                house = self.polygon(
                    (x, top), (x + wide, top), (x + wide, self.height), (x, self.height)
                )
                self.paint(house, BUILDING, self.windows() + 8 * self.noise(3, 3), 28)
            x += wide
        for _ in range(self.random.integers(1, 5)):
            self.paint_tree()
        ground = self.polygon(
            (0, self.horizon),
            (self.width, self.horizon),
            (self.width, self.height),
            (0, self.height),
        )
        self.paint(ground, PAVEMENT, 14 * self.noise(2, 6) + 6 * self.noise(1, 1), 16)
        vanishing = self.width * self.random.uniform(0.35, 0.65)
        left, right = self.random.uniform(-0.4, 0.15), self.random.uniform(0.85, 1.4)
        road = self.polygon(
            (vanishing - 0.05 * self.width, self.horizon),
            (vanishing + 0.05 * self.width, self.horizon),
            (right * self.width, self.height),
            (left * self.width, self.height),
        )
        self.paint(road, ROAD, 10 * self.noise(1, 3) + 6 * self.noise(10, 10), 16)

    def windows(self) -> np.ndarray:
        """Return a texture of dark and bright rectangles in rows."""
        period = self.random.uniform(6, 11)
        rows = np.sin(np.arange(self.height) * 2 * np.pi / period) > 0.2
        columns = np.sin(np.arange(self.width) * 2 * np.pi / (0.8 * period)) > 0.1
        glass = np.outer(rows, columns).astype(np.float32)
        return glass * self.random.choice([-45.0, 40.0])

    def paint_tree(self) -> None:
        """Paint one crown of leaves, half above the horizon."""
        center = (
            int(self.random.uniform(0, self.width)),
            int(self.horizon * self.random.uniform(0.5, 1)),
        )
        axes = (
            max(3, int(self.width * self.random.uniform(0.04, 0.12))),
            max(3, int(self.height * self.random.uniform(0.06, 0.2))),
        )
        crown = self.shape(lambda c: cv2.ellipse(c, center, axes, 0, 0, 360, (1,), -1))
        crown &= self.noise(3, 3) > -0.6
        self.paint(crown, TREE, 28 * self.noise(2, 2), 18)

    def paint_objects(self) -> None:
        """Paint cars, poles with signs, and people, far ones first."""
        for depth in np.sort(self.random.uniform(0.1, 0.9, self.random.integers(1, 5))):
            self.paint_car(float(depth))
        for _ in range(self.random.integers(1, 4)):
            self.paint_pole()
        for _ in range(self.random.integers(0, 4)):
            self.paint_person()

    def foot(self, depth: float) -> tuple[float, float]:
        """Return (x, y) of a point on the ground; depth 0 is the horizon, 1 the camera."""
        y = self.horizon + depth * (self.height - self.horizon)
        return self.random.uniform(0.05, 0.95) * self.width, y

    def paint_car(self, depth: float) -> None:
        """Paint a body, a dark window band and wheels."""
        x, y = self.foot(depth)
        tall = self.height * (0.06 + 0.2 * depth)
        wide = tall * self.random.uniform(1.3, 2.0)
        body = self.polygon(
            (x - wide / 2, y - 0.6 * tall),
            (x + wide / 2, y - 0.6 * tall),
            (x + wide / 2, y),
            (x - wide / 2, y),
        )
        roof = self.polygon(
            (x - wide / 3, y - tall),
            (x + wide / 3, y - tall),
            (x + wide / 2, y - 0.5 * tall),
            (x - wide / 2, y - 0.5 * tall),
        )
        band = self.polygon(
            (x - wide / 3.5, y - 0.9 * tall),
            (x + wide / 3.5, y - 0.9 * tall),
            (x + wide / 2.6, y - 0.6 * tall),
            (x - wide / 2.6, y - 0.6 * tall),
        )
        texture = 5 * self.noise(4, 8) - 60 * band.astype(np.float32)
        self.paint(body | roof, CAR, texture, 50)

    def paint_pole(self) -> None:
        """Paint a thin upright, sometimes with a sign."""
        x, y = self.foot(self.random.uniform(0.05, 0.5))
        top = self.random.uniform(0.1, 0.6) * self.horizon
        half = max(1.0, self.width / 128) / 2
        pole = self.polygon((x - half, top), (x + half, top), (x + half, y), (x - half, y))
        self.paint(pole, POLE, 5 * self.noise(6, 1), 20)
        if self.random.random() < 0.6:
            radius = max(2, int(self.width * self.random.uniform(0.015, 0.03)))
            sign = self.shape(lambda c: cv2.circle(c, (int(x), int(top)), radius, (1,), -1))
            self.paint(sign, SIGN, 5 * self.noise(3, 3), 30)

    def paint_person(self) -> None:
        """Paint a head and a body."""
        x, y = self.foot(self.random.uniform(0.15, 0.7))
        tall = self.height * self.random.uniform(0.1, 0.22)
        body = self.shape(
            lambda c: cv2.ellipse(
                c,
                (int(x), int(y - 0.4 * tall)),
                (max(1, int(0.15 * tall)), max(2, int(0.4 * tall))),
                0,
                0,
                360,
                (1,),
                -1,
            )
        )
        head = self.shape(
            lambda c: cv2.circle(
                c, (int(x), int(y - 0.85 * tall)), max(1, int(0.12 * tall)), (1,), -1
            )
        )
        self.paint(body | head, PERSON, 10 * self.noise(2, 2), 35)

    def finish(self) -> tuple[RGBImage, Mask]:
        """Add light, grain and the void strip."""
        grain = self.random.normal(0, 4, self.color.shape).astype(np.float32)
        image = np.clip(self.color * self.light + grain, 0, 255).astype(np.uint8)
        self.mask[self.height - max(2, self.height // 24) :] = IGNORE_INDEX
        return image, self.mask
