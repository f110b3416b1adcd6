"""What the `fit` of a model takes: an ``ImageSet``, arrays, or a stream of batches."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerasmed.data.arrays import check_labels, check_pixels
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import InputError

Pair = tuple[np.ndarray, np.ndarray]


def sorted_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of a model's classes, whose numbers are those of every ``ImageSet``.

    Raises:
        InputError: they are not sorted, or not all different.
    """
    names = tuple(class_names)
    if not names or names != tuple(sorted(set(names))):
        raise InputError(
            f"class_names: expected different names in sorted order, received {list(names)}; sort "
            "them, or give those of an ImageSet."
        )
    return names


def is_stream(x: Any) -> bool:
    """Whether it gives batches: a ``tf.data.Dataset``, a ``PyDataset`` or another iterable."""
    return not isinstance(x, ImageSet | np.ndarray | list | tuple) and not hasattr(x, "shape")


def as_image_set(x: Any, y: Any, image_size: int, class_names: tuple[str, ...]) -> ImageSet:
    """Images and labels as a set of the given size and classes.

    Args:
        x: an ``ImageSet``; uint8 (n, size, size, 3) with ``y``; or a finite stream of batches.
        y: labels of an array, by name or number.
        image_size, class_names: what the model is for.

    Raises:
        InputError: another size, dtype or classes; labels out of range.
    """
    if is_stream(x):
        batches = list(one_pass(x, image_size, class_names))
        x, y = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    if not isinstance(x, ImageSet):
        if y is None:
            raise InputError(
                "Images: expected labels with an array of images, received none; give both, or an "
                "ImageSet."
            )
        x = ImageSet.from_arrays(x, y, class_names)
    if x.image_size != image_size or x.class_names != class_names:
        raise InputError(
            f"Images: expected {image_size} x {image_size} pixels of the classes "
            f"{list(class_names)}, received {x.image_size} x {x.image_size} of "
            f"{list(x.class_names)}; read them so, or build a model for them."
        )
    return x


def one_pass(stream: Any, image_size: int, class_names: tuple[str, ...]) -> Iterator[Pair]:
    """The batches of one pass over a stream, checked: uint8 images, int32 labels.

    Raises:
        InputError: no pairs of images and labels, another size or dtype, or labels out of range.
    """
    is_indexed = hasattr(stream, "num_batches")  # Keras's PyDataset, which has no iterator
    batches = (stream[i] for i in range(stream_length(stream))) if is_indexed else stream
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(
                "Batches: expected pairs of images and labels, received "
                f"{type(batch).__name__}; map the dataset to such pairs."
            )
        images, labels = map(np.asarray, batch)
        images = check_pixels(images)
        if images.shape[1] != image_size:
            raise InputError(
                f"Images: expected {image_size} x {image_size} pixels, received "
                f"{images.shape[1]} x {images.shape[2]}; resize them."
            )
        yield images, check_labels(labels, len(images), class_names)[0]
    if is_indexed:
        stream.on_epoch_end()


def endless(stream: Any, image_size: int, class_names: tuple[str, ...]) -> Iterator[Pair]:
    """The batches of one pass over a stream after another, see ``one_pass``."""
    while True:
        yield from one_pass(stream, image_size, class_names)


def stream_length(stream: Any) -> int:
    """Number of batches in one pass.

    Raises:
        InputError: the stream does not say.
    """
    try:
        return getattr(stream, "num_batches", None) or len(stream)
    except (TypeError, NotImplementedError):
        raise InputError(
            "fit: expected steps_per_epoch for a stream of unknown length, received none; give "
            "the number of batches of an epoch."
        ) from None
