"""Training batches of a CNN, each a pure function of the seed and its number."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np

from kerasmed.classify.augment import Augmenter
from kerasmed.classify.config import Mixing
from kerasmed.classify.mixing import mix
from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.random_streams import Purpose, random_stream

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class LabelledBatches(keras.utils.PyDataset):
    """An endless sequence of augmented batches, in the order of EpochOrder.

    Args:
        image_set: images to learn from.
        batch_size: images in a whole batch.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        augment: changes a batch of images; see ``make_augmenter``.
        mixing: how the images of a batch are mixed, see ``mix``.
        class_weights: weight of each class in the loss.
        seed: seed of everything drawn.
        first_step: number of batches that were made before.
        shard: index of the shard of each batch that this process makes, and number of shards.
    """

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        symmetry: str,
        augment: Augmenter,
        mixing: Mixing,
        class_weights: np.ndarray,
        seed: int,
        first_step: int = 0,
        shard: tuple[int, int] = (0, 1),
    ):
        super().__init__()
        self.image_set = image_set
        self.batch_size = batch_size
        self.symmetry = symmetry
        self.augment = augment
        self.mixing = mixing
        self.class_weights = class_weights
        self.seed = seed
        self.first_step = first_step
        size = batch_size // shard[1]
        self._rows = slice(size * shard[0], size * (shard[0] + 1))
        self._order = EpochOrder(len(image_set), seed, Purpose.CLASSIFIER_ORDER)

    @property
    def num_batches(self) -> None:
        """None: the sequence is endless."""
        return None

    def __getitem__(self, index: int) -> Batch:
        index += self.first_step
        first = index * self.batch_size
        samples = range(self.batch_size)
        if self.mixing == "none":  # mixing needs the images of the whole batch
            samples = samples[self._rows]
        images, labels, rngs = [], [], []
        for sample in samples:
            epoch, position = self._order(first + sample)
            rngs.append(random_stream(self.seed, Purpose.CLASSIFIER_AUGMENTATION, epoch, position))
            images.append(self.image_set.images[position])
            labels.append(self.image_set.labels[position])
        batch, targets = _changed(
            images, labels, rngs, (self.seed, index), self.symmetry, self.augment, self.mixing,
            len(self.class_weights),
        )  # fmt: skip
        if self.mixing != "none":
            batch, targets = batch[self._rows], targets[self._rows]
        return batch, targets, (targets @ self.class_weights).astype(np.float32)


def labelled_stream(
    pairs: Iterator[tuple[np.ndarray, np.ndarray]],
    symmetry: str,
    augment: Augmenter,
    mixing: Mixing,
    class_weights: np.ndarray,
    seed: int,
    first_step: int = 0,
) -> Iterator[Batch]:
    """Augmented batches from a stream of images and labels.

    Args:
        pairs: batches of images, uint8 (batch, height, width, 3), and labels, int (batch,).
        symmetry, augment, mixing, class_weights, seed, first_step: see ``LabelledBatches``.
    """
    for step, (images, labels) in enumerate(pairs, first_step):
        rngs = [random_stream(seed, Purpose.CLASSIFIER_STREAM, step, i) for i in range(len(images))]
        batch, targets = _changed(
            images, labels, rngs, (seed, step), symmetry, augment, mixing, len(class_weights)
        )
        yield batch, targets, (targets @ class_weights).astype(np.float32)


def _changed(
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    rngs: list[np.random.Generator],
    seed_and_step: tuple[int, int],
    symmetry: str,
    augment: Augmenter,
    mixing: Mixing,
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The images flipped, turned, augmented and mixed, and their labels one-hot."""
    turned = [
        transform_at_random(image, symmetry, rng) for image, rng in zip(images, rngs, strict=True)
    ]
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    seed, step = seed_and_step
    rng = random_stream(seed, Purpose.CLASSIFIER_MIXING, step)
    return mix(augment(np.stack(turned), rngs), one_hot, mixing, rng)


def balancing_weights(labels: np.ndarray, num_classes: int, enabled: bool = True) -> np.ndarray:
    """Weight of each class, inverse to its frequency, averaging 1 over the images."""
    if not enabled:
        return np.ones(num_classes)
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return len(labels) / (num_classes * counts)
