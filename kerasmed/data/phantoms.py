"""Procedural images of the three domains, each with the region that decides its class.

They resemble real images enough to exercise every stage, and contain no patient data. The mask of
the deciding region is the ground truth for explanations. Contrast, size and noise vary, and every
image has irrelevant structures, so brightness does not identify a class.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from kerasmed.random_streams import Purpose, random_stream

# A painter draws a canvas, float (size, size, 3) in 0..1, and a mask, bool (size, size).
Painter = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel, -1 to 1."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    return np.meshgrid(axis, axis, indexing="ij")


def _texture(size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of standard deviation 1; ``scale`` is its grain as a fraction of the edge."""
    field = gaussian_filter(rng.standard_normal((size, size)), scale * size, mode="wrap")
    return field / max(field.std(), 1e-6)


def _blob(
    size: int,
    centre: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
    roughness: float = 0.15,
    stretch: float = 1.0,
) -> np.ndarray:
    """Distance to the edge of a roundish region, in units of its radius; negative inside."""
    rows, columns = _grid(size)
    turn = rng.uniform(0, np.pi)
    dy, dx = rows - centre[0], columns - centre[1]
    along = (dx * np.cos(turn) + dy * np.sin(turn)) / stretch
    across = (-dx * np.sin(turn) + dy * np.cos(turn)) * stretch
    edge = 1 + roughness * _texture(size, 0.08, rng)
    return np.hypot(along, across) / radius - edge


def _soft(distance: np.ndarray, softness: float = 0.12) -> np.ndarray:
    """1 inside a region, 0 outside, with a soft edge."""
    return 1 / (1 + np.exp(np.clip(distance / softness, -30, 30)))


def _grey(canvas: np.ndarray) -> np.ndarray:
    return np.repeat(canvas[:, :, None], 3, axis=2)


def _head(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A head in cross-section: skull, brain, ventricles, vessels. Returns canvas and brain."""
    rows, columns = _grid(size)
    height, width = rng.uniform(0.78, 0.9), rng.uniform(0.62, 0.75)
    radius = np.hypot(rows / height, columns / width)
    skull = np.exp(-(((radius - 0.97) / 0.05) ** 2)) * rng.uniform(0.5, 0.9)
    brain = _soft(radius - 0.88, 0.03)
    tissue = rng.uniform(0.28, 0.42) + 0.045 * _texture(size, 0.04, rng)
    canvas = skull + brain * tissue
    gap = rng.uniform(0.08, 0.14)
    for side in (-1, 1):
        ventricle = _blob(size, (rng.uniform(-0.15, 0.0), side * gap), 0.16, rng, 0.1, 0.65)
        canvas = canvas - 0.2 * brain * _soft(ventricle)
    for _ in range(rng.integers(2, 6)):  # bright vessels, irrelevant to the class
        centre = rng.uniform(-0.6, 0.6, 2)
        canvas = canvas + 0.35 * brain * _soft(_blob(size, tuple(centre), 0.035, rng))
    return canvas, brain


def _finish_grey(canvas: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-0.03, 0.05)
    return _grey(canvas * gain + offset + noise * rng.standard_normal(canvas.shape))


def _mri(kind: str) -> Painter:
    def paint(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        canvas, brain = _head(size, rng)
        mask = np.zeros((size, size), dtype=bool)
        if kind != "no_lesion":
            canvas, mask = _LESIONS[kind](canvas, brain, size, rng)
        return _finish_grey(canvas, rng, 0.03), mask

    return paint


def _ring_lesion(canvas, brain, size, rng):
    """Deep, ragged, bright at the rim and dark in the middle."""
    centre = (rng.uniform(-0.45, 0.4), rng.choice([-1, 1]) * rng.uniform(0.18, 0.4))
    distance = _blob(size, centre, rng.uniform(0.17, 0.3), rng, 0.25)
    strength = rng.uniform(0.18, 0.5)
    rim = np.exp(-((distance / 0.3) ** 2))
    canvas = canvas + brain * strength * (rim - 0.45 * _soft(distance + 0.35))
    return canvas, distance < 0.25


def _surface_lesion(canvas, brain, size, rng):
    """At the skull, smooth-edged, evenly bright."""
    angle = rng.uniform(0, 2 * np.pi)
    centre = (0.66 * np.sin(angle), 0.52 * np.cos(angle))
    distance = _blob(size, centre, rng.uniform(0.15, 0.26), rng, 0.06)
    canvas = canvas + brain * rng.uniform(0.16, 0.45) * _soft(distance, 0.06)
    return canvas, distance < 0


def _midline_lesion(canvas, brain, size, rng):
    """Small, on the midline below the ventricles."""
    centre = (rng.uniform(0.25, 0.42), rng.uniform(-0.07, 0.07))
    distance = _blob(size, centre, rng.uniform(0.09, 0.16), rng, 0.1)
    canvas = canvas + brain * rng.uniform(0.2, 0.5) * _soft(distance)
    return canvas, distance <= max(0.0, distance.min())  # at least one pixel at any image size


_LESIONS = {
    "ring_lesion": _ring_lesion,
    "surface_lesion": _surface_lesion,
    "midline_lesion": _midline_lesion,
}


def _smear(kind: str) -> Painter:
    """A stained smear: pale erythrocytes everywhere, and a few nuclei that decide the class."""
    radius, stretch, is_lobed, nuclei = {
        "benign": ((0.09, 0.13), 1.0, False, (1, 4)),
        "early": ((0.13, 0.2), 1.0, False, (3, 7)),
        "pre": ((0.14, 0.22), 1.35, False, (4, 8)),
        "pro": ((0.16, 0.25), 1.0, True, (4, 8)),
    }[kind]

    def paint(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        background = np.array([0.93, 0.9, 0.93]) + rng.uniform(-0.05, 0.04, 3)
        canvas = np.ones((size, size, 3)) * background
        for _ in range(rng.integers(8, 16)):
            centre = tuple(rng.uniform(-1, 1, 2))
            erythrocyte = _soft(_blob(size, centre, rng.uniform(0.16, 0.22), rng))
            tint = np.array([0.05, 0.14, 0.08])
            canvas -= erythrocyte[:, :, None] * tint * rng.uniform(0.5, 1.1)
        mask = np.zeros((size, size), dtype=bool)
        stain = np.array([0.45, 0.58, 0.25]) * rng.uniform(0.75, 1.15)
        for _ in range(rng.integers(*nuclei)):
            centre = tuple(rng.uniform(-0.85, 0.85, 2))
            distance = _blob(size, centre, rng.uniform(*radius), rng, 0.12, stretch)
            grain = 1 + 0.15 * _texture(size, 0.02, rng)
            if is_lobed:  # a pale cleft across the nucleus
                cleft = _blob(size, centre, 0.1, rng, 0.1, 2.2)
                grain = grain - 0.6 * _soft(cleft, 0.2)
            amount = _soft(distance) * grain
            canvas = canvas - amount[:, :, None] * stain
            mask |= distance < 0
        return canvas + 0.02 * rng.standard_normal(canvas.shape), mask

    return paint


def _ct(kind: str) -> Painter:
    """A chest slice: body, two lungs with vessels, and ground-glass patches or none."""

    def paint(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = _grid(size)
        body = _soft(np.hypot(rows / rng.uniform(0.7, 0.85), columns / 0.95) - 1, 0.03)
        canvas = body * (rng.uniform(0.5, 0.62) + 0.03 * _texture(size, 0.04, rng))
        lungs = np.zeros((size, size))
        for side in (-1, 1):
            row, column = (rng.uniform(-0.08, 0.05), side * rng.uniform(0.4, 0.46))
            radius = np.hypot((rows - row) / rng.uniform(0.5, 0.6), (columns - column) / 0.33)
            lungs = np.maximum(lungs, _soft(radius - 1, 0.05))
        canvas = canvas * (1 - lungs) + lungs * rng.uniform(0.08, 0.16)
        for _ in range(rng.integers(8, 18)):
            vessel = _blob(size, tuple(rng.uniform(-0.6, 0.6, 2)), 0.03, rng, 0.1, 1.4)
            canvas = canvas + 0.3 * lungs * _soft(vessel)
        mask = np.zeros((size, size), dtype=bool)
        if kind == "ground_glass":
            patches = rng.integers(1, 5)
            while patches > 0 or not mask.any():  # at least one patch must meet the lungs
                patches -= 1
                centre = (rng.uniform(-0.35, 0.4), rng.choice([-1, 1]) * rng.uniform(0.3, 0.55))
                distance = _blob(size, centre, rng.uniform(0.12, 0.28), rng, 0.35)
                haze = 1 + 0.25 * _texture(size, 0.03, rng)
                canvas = canvas + rng.uniform(0.1, 0.28) * lungs * _soft(distance, 0.25) * haze
                mask |= (distance < 0) & (lungs > 0.5)
        return _finish_grey(canvas, rng, 0.03), mask

    return paint


FAMILIES: dict[str, dict[str, Painter]] = {
    "mri": {kind: _mri(kind) for kind in ("no_lesion", *_LESIONS)},
    "smear": {kind: _smear(kind) for kind in ("benign", "early", "pre", "pro")},
    "ct": {kind: _ct(kind) for kind in ("clear", "ground_glass")},
}


def draw_phantom(
    family: str, class_name: str, index: int, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """One phantom and the region that decides its class.

    Args:
        family: "mri", "smear" or "ct".
        class_name: one of the family's classes.
        index: number of the image; it depends only on these five arguments.
        size: height and width in pixels.
        seed: seed of the whole set.

    Returns:
        Image uint8 (size, size, 3), 0 to 255, and mask bool (size, size). The mask is empty for a
        class without such a region.
    """
    names = list(FAMILIES[family])
    rng = random_stream(
        seed, Purpose.PHANTOM, list(FAMILIES).index(family), names.index(class_name), index
    )
    canvas, mask = FAMILIES[family][class_name](size, rng)
    return np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8), mask


def write_phantoms(folder: Path, family: str, per_class: int, size: int, seed: int) -> None:
    """Write ``phantoms/``, a folder of class folders, and ``masks/`` with the same layout.

    Args:
        folder: folder that both are written to.
        family: "mri", "smear" or "ct".
        per_class: number of images of each class.
        size: height and width in pixels.
        seed: seed of the whole set.
    """
    for class_name in FAMILIES[family]:
        for kind in ("phantoms", "masks"):
            (folder / kind / class_name).mkdir(parents=True)
        for index in range(per_class):
            image, mask = draw_phantom(family, class_name, index, size, seed)
            name = f"{class_name}/{class_name}-{index:05d}.png"
            Image.fromarray(image).save(folder / "phantoms" / name)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name)
