"""Images and labels as arrays: checks, rows, a folder of PNGs, batches for TensorFlow."""

from collections.abc import Sequence, Sized
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kerasmed import __version__
from kerasmed.data.entries import folder_name
from kerasmed.data.marks import Mark, write_marked_png
from kerasmed.errors import InputError
from kerasmed.files import folder_written_aside, nameless_file

if TYPE_CHECKING:
    import tensorflow as tf

# Bytes above which rows are copied into a file and not into memory.
_MAX_BYTES_IN_MEMORY = 2**28


def check_pixels(images: np.ndarray) -> np.ndarray:
    """Images as uint8 (n, size, size, 3).

    Args:
        images: uint8 (n, size, size), (n, size, size, 1) or (n, size, size, 3).

    Raises:
        InputError: another shape or dtype.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    is_square = images.ndim == 4 and images.shape[1] == images.shape[2] > 0
    if not is_square or images.shape[3] not in (1, 3) or not len(images):
        raise InputError(
            "Images: expected the shape (n, size, size, 3), or (n, size, size) for grey, received "
            f"{images.shape}; crop or resize them to squares."
        )
    if images.dtype != np.uint8:
        raise InputError(
            f"Images: expected uint8, 0 to 255, received {images.dtype} from {images.min():g} to "
            f"{images.max():g}; scale and round them."
        )
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images


def check_not_empty(images: Sized) -> None:
    """Refuse no images.

    Raises:
        InputError: there are none.
    """
    if not len(images):
        raise InputError("Images: expected one or more, received none; give some.")


def check_size(images: np.ndarray, size: int) -> np.ndarray:
    """The given images, (n, size, size, 3).

    Raises:
        InputError: they have another size, or there are none.
    """
    check_not_empty(images)
    if images.shape[1] != size:
        raise InputError(
            f"Images: expected {size} x {size} pixels, received {images.shape[1]} x "
            f"{images.shape[2]}; resize them."
        )
    return images


def check_labels(
    labels: Sequence[str] | Sequence[int] | np.ndarray,
    count: int,
    class_names: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int32 (n,), and the sorted names that they are indices into.

    Args:
        labels: names of classes, or numbers from 0 on.
        count: number of images.
        class_names: names of the numbers, in their order.

    Raises:
        InputError: another number of labels, of another kind, or out of range; a name that occurs
            twice.
    """
    if class_names is not None and len(set(class_names)) < len(class_names):
        raise InputError(
            f"class_names: expected different names, received {list(class_names)}; rename a class."
        )
    values = np.asarray(labels)
    if values.shape != (count,) or values.dtype.kind not in "iuU":
        raise InputError(
            f"Labels: expected {count} names or numbers, received shape {values.shape} of "
            f"{values.dtype}; give one label an image."
        )
    if values.dtype.kind == "U":
        names = sorted(set(values.tolist()) if class_names is None else class_names)
        if unknown := set(values.tolist()) - set(names):
            raise InputError(
                f"Labels: expected the classes {names}, received also {sorted(unknown)}; correct "
                "the labels or the names."
            )
        return np.searchsorted(names, values).astype(np.int32), tuple(names)
    given = list(map(str, range(int(values.max()) + 1))) if class_names is None else class_names
    if values.min() < 0 or values.max() >= len(given):
        raise InputError(
            f"Labels: expected numbers from 0 to {len(given) - 1}, received {values.min()} to "
            f"{values.max()}; correct the labels or the names."
        )
    order = np.argsort(given)
    return np.argsort(order)[values].astype(np.int32), tuple(given[i] for i in order)


def take_rows(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """A copy of some images, in memory; many of a memory map, in a nameless file.

    That file is in the folder of the memory map, or the system's for temporary files if the map has
    no name.
    """
    is_large = images[:1].nbytes * len(indices) > _MAX_BYTES_IN_MEMORY
    if not (is_large and isinstance(images, np.memmap)):
        return np.asarray(images[indices])
    rows_at_once = max(1, _MAX_BYTES_IN_MEMORY // images[:1].nbytes)
    folder = Path(images.filename).parent if images.filename else Path(gettempdir())
    with nameless_file(folder) as file:
        for start in range(0, len(indices), rows_at_once):
            file.write(images[indices[start : start + rows_at_once]].tobytes())
        file.flush()
        return np.memmap(file, images.dtype, "c", shape=(len(indices), *images.shape[1:]))


def write_pngs(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    path: Path,
    is_synthetic: np.ndarray,
    set_id: str,
) -> None:
    """Write each image as a PNG into the folder of its class.

    Args:
        images, labels, class_names: as in ``ImageSet``.
        path: the folder.
        is_synthetic: bool (n,), the images that are marked as synthetic.
        set_id: identifier of the set, for these marks.

    Raises:
        StageError: the folder exists already, or cannot be written.
    """
    with folder_written_aside(path, replace=False) as folder:
        names = [folder_name(name) for name in class_names]
        for name in names:
            (folder / name).mkdir()
        rows = zip(images, labels, is_synthetic, strict=True)
        for row, (pixels, label, is_marked) in enumerate(rows):
            file, number = folder / names[label] / f"{row:06d}.png", f"{row:06d}"
            if is_marked:
                mark = Mark(f"kerasmed {__version__}", set_id, number)
                write_marked_png(file, np.asarray(pixels), mark)
            else:
                Image.fromarray(np.asarray(pixels)).save(file)


def tf_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, shuffle: bool, seed: int
) -> "tf.data.Dataset":
    """Batches of images and labels, read from the array when they are needed."""
    import tensorflow as tf

    def batch(positions):
        rows = tf.numpy_function(lambda at: np.asarray(images[at]), [positions], tf.uint8)
        return tf.ensure_shape(rows, (None, *images.shape[1:])), tf.gather(labels, positions)

    positions = tf.data.Dataset.range(len(images))
    if shuffle:
        positions = positions.shuffle(len(images), seed)
    return positions.batch(batch_size).map(batch).prefetch(tf.data.AUTOTUNE)
