"""What the `fit` of a model takes: an ``ImageSet``, arrays, or a stream of batches."""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np

from kerasmed.data.arrays import check_labels, check_not_empty, check_pixels, check_size
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


def as_image_set(
    x: Any, y: Any, image_size: int, class_names: tuple[str, ...], batches: int | None = None
) -> ImageSet:
    """Images and labels as a set of the given size and classes.

    Args:
        x: an ``ImageSet``; uint8 (n, size, size, 3) with ``y``; or a stream of batches.
        y: labels of an array, by name or number.
        image_size, class_names: what the model is for.
        batches: number of batches to take from a stream; all if None.

    Raises:
        InputError: no images; another size, dtype or classes; labels out of range or where they do
            not belong; a stream that does not say how long it is.
    """
    if isinstance(x, ImageSet) and y is not None:
        raise InputError(
            "Images: expected an ImageSet by itself, received labels as well; leave them out."
        )
    if is_stream(x):
        limit = batches or stream_length(x)
        taken = list(islice(one_pass(x, image_size, class_names), limit))
        _refuse_empty(len(taken))
        x, y = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
    if not isinstance(x, ImageSet):
        if y is None:
            raise InputError(
                "Images: expected labels with an array of images, received none; give both, or an "
                "ImageSet."
            )
        x = ImageSet.from_arrays(x, y, class_names)
    check_not_empty(x)
    if x.image_size != image_size or x.class_names != class_names:
        raise InputError(
            f"Images: expected {image_size} x {image_size} pixels of the classes "
            f"{list(class_names)}, received {x.image_size} x {x.image_size} of "
            f"{list(x.class_names)}; read them again, or build a model for them."
        )
    return x


def one_pass(stream: Any, image_size: int, class_names: tuple[str, ...]) -> Iterator[Pair]:
    """The batches of one pass over a stream, checked: uint8 images, int32 labels.

    Raises:
        InputError: no pairs of images and labels, another size or dtype, or labels out of range.
    """
    is_indexed = hasattr(stream, "num_batches")  # Keras's PyDataset
    numbers = range(stream.num_batches) if is_indexed and stream.num_batches else count()
    for batch in map(stream.__getitem__, numbers) if is_indexed else stream:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(
                "Batches: expected pairs of images and labels, received "
                f"{type(batch).__name__}; map the dataset to such pairs."
            )
        images, labels = map(np.asarray, batch)
        images = check_size(check_pixels(images), image_size)
        yield images, check_labels(labels, len(images), class_names)[0]
    if is_indexed:
        stream.on_epoch_end()


def endless(stream: Any, image_size: int, class_names: tuple[str, ...]) -> Iterator[Pair]:
    """The batches of one pass over a stream after another, see ``one_pass``."""
    while True:
        given = 0
        for pair in one_pass(stream, image_size, class_names):
            given += 1
            yield pair
        _refuse_empty(given)


def _refuse_empty(batches: int) -> None:
    if not batches:
        raise InputError(
            "Batches: expected a stream that can be read in every epoch, received one without "
            "batches; give a dataset instead of an iterator, or lower steps_per_epoch."
        )


def stream_length(stream: Any) -> int:
    """Number of batches in one pass.

    Raises:
        InputError: the stream does not say.
    """
    try:
        return getattr(stream, "num_batches", None) or len(stream)
    except (TypeError, NotImplementedError):
        raise InputError(
            "Batches: expected a stream of known length, received one that does not say; give "
            "steps_per_epoch, or arrays as validation_data."
        ) from None
