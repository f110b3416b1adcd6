"""A preview of what the network draws so far, and whether it memorises its training images."""

import math
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageDraw

from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.enlarge import enlarge, padded
from kerasmed.files import written_aside
from kerasmed.metrics.memorisation import comparison_pixels, fraction_closer_to_train
from kerasmed.parallel.workers import this_worker

IMAGES = 48
_MAX_COMPARED = 1000  # training images, and as many validation images
_CAPTION_HEIGHT = 14
_ENLARGED = 12  # images that are drawn again from their reduced ones


class Preview(keras.callbacks.Callback):
    """Draws the same few dozen images after some epochs, one row a class, into PNGs.

    Args:
        folder: folder of the PNGs, one for each step at which it draws.
        every: epochs between two previews. The first and the last epoch have one too.
        train: images that the model learns from, to say whether it memorises them.
        validation: similar images that it does not learn from. With both, a preview says what
            fraction of its images are closer, in pixels, to a training image than to one of as
            many validation images. It is about one half if nothing was memorised. The logs of the
            epoch get it as ``closer_to_train``, and NaN in epochs without a preview.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 10)
        >>> ddpm = km.DiffusionModel.from_preset("cpu", images, widths=[8], batch_size=10)
        >>> ddpm.compile()
        >>> callbacks = [km.callbacks.Preview("previews")]
        >>> history = ddpm.fit(images, epochs=1, callbacks=callbacks, verbose=0)
        >>> from pathlib import Path
        >>> [path.name for path in Path("previews").iterdir()]
        ['step-00000002.png']
    """

    def __init__(
        self,
        folder: Path | str,
        every: int = 10,
        train: ImageSet | None = None,
        validation: ImageSet | None = None,
    ):
        super().__init__()
        self.folder = Path(folder)
        self.every = every
        self._compared: tuple[np.ndarray, np.ndarray] | None = None
        if train is not None and validation is not None:
            size = min(len(train), len(validation), _MAX_COMPARED)
            self._compared = _evenly(train, size), _evenly(validation, size)

    @property
    def compares(self) -> bool:
        """Whether it says how many images are closer to a training image."""
        return self._compared is not None

    def on_epoch_end(self, epoch, logs=None):
        self._is_drawn = epoch == 0 or (epoch + 1) % self.every == 0
        if self._is_drawn:
            self._draw_epoch(logs)
        elif self._compared and this_worker().is_chief:
            logs["closer_to_train"] = math.nan  # so that all rows of a CSVLogger have it

    def on_train_end(self, logs=None):
        if not getattr(self, "_is_drawn", True):
            self._draw_epoch(logs or {})

    def _draw_epoch(self, logs: dict[str, float]) -> None:
        if not this_worker().is_chief:
            return
        losses = [f"{name} {logs[name]:.4f}" for name in ("loss", "val_loss") if name in logs]
        closer = self.draw(self.model, ", ".join(losses))
        if closer is not None:
            logs["closer_to_train"] = closer

    def draw(self, model: keras.Model, note: str) -> float | None:
        """Draw the images of a ``DiffusionModel`` into a PNG, with a note below them.

        Returns:
            Fraction of them that are closer to a training image, see ``train``; or None.
        """
        num_classes = len(model.class_names)
        columns = max(1, IMAGES // num_classes)
        images = model.sample(per_class=columns, seed=model.seed, verbose=0).images
        caption, closer = f"step {model.batches_seen}, {note}", None
        if self._compared:
            versions = comparison_pixels(all_versions(images, model.symmetry))
            closer = fraction_closer_to_train(*self._compared, versions, seed=model.seed)
            caption += f", closer to training {closer:.2f}"
        rows = images.reshape(num_classes, columns, *images.shape[1:])
        _save_page(rows, caption, _page_of(model, self.folder))
        return closer


class UpscalingPreview:
    """Draws real images again from their reduced ones, one row a class, into PNGs.

    Of each image it shows the bicubic enlargement, what the ``Upscaler`` draws, and the image.

    Args:
        folder: folder of the PNGs, one for each step at which it draws.
        validation: images that the model does not learn from.
    """

    compares = False  # what it draws is close to the validation images by intent

    def __init__(self, folder: Path, validation: ImageSet):
        self.folder = folder
        of_each = max(1, _ENLARGED // len(validation.class_names))
        labels = range(len(validation.class_names))
        by_class = [np.flatnonzero(validation.labels == label)[:of_each] for label in labels]
        self._shown = validation.subset(np.concatenate(by_class))

    def draw(self, model: keras.Model, note: str) -> None:
        """Draw the images of an ``Upscaler`` into a PNG, with a note below them."""
        real = self._shown
        small = model.reduce(real)
        drawn = model.upscale(small, seed=model.seed, verbose=0).images
        bicubic = np.clip(np.rint(enlarge(padded(small.images))), 0, 255).astype(np.uint8)
        triples = np.stack([bicubic, drawn, real.images], axis=1)
        counts = np.bincount(real.labels, minlength=len(real.class_names))
        rows = np.zeros((len(counts), counts.max(), *triples.shape[1:]), np.uint8)
        for label, count in enumerate(counts):
            rows[label, :count] = triples[real.labels == label]
        caption = f"step {model.batches_seen}, {note}; bicubic, drawn, real"
        _save_page(
            rows.reshape(len(rows), -1, *real.images.shape[1:]),
            caption,
            _page_of(model, self.folder),
        )


def _page_of(model: keras.Model, folder: Path) -> Path:
    return folder / f"step-{model.batches_seen:08d}.png"


def _save_page(rows: np.ndarray, caption: str, path: Path) -> None:
    """Images (rows, columns, size, size, 3) as one PNG with a caption."""
    grid = np.concatenate(np.concatenate(rows, axis=1), axis=1)
    page = Image.new("RGB", (grid.shape[1], grid.shape[0] + _CAPTION_HEIGHT))
    page.paste(Image.fromarray(grid))
    ImageDraw.Draw(page).text((2, grid.shape[0] + 1), caption, fill="white")
    with written_aside(path) as temporary:
        page.save(temporary)


def _evenly(images: ImageSet, count: int) -> np.ndarray:
    """Pixels for comparison of so many images, evenly spread over a set."""
    rows = np.linspace(0, len(images) - 1, count).round().astype(int)
    return comparison_pixels(images.images[rows])
