"""Training batches of a CNN, each a pure function of the seed and its number."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np

from kerasmed.classify.augment import Augmenter
from kerasmed.classify.config import Mixing
from kerasmed.classify.mixing import mix
from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder, MixedOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.random_streams import Purpose, random_stream

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class Sources(NamedTuple):
    """Real images followed by synthetic ones in one set, and how both are shown.

    Attributes:
        num_real: number of images; those after them are synthetic.
        num_synthetic: number of synthetic images.
        fraction: fraction of the images shown that are synthetic; each is shown as often as any
            other if None.
        weight: weight of a synthetic image in the loss; that of a real one is 1.
    """

    num_real: int
    num_synthetic: int = 0
    fraction: float | None = None
    weight: float = 1.0

    def order(self, seed: int) -> EpochOrder | MixedOrder:
        """In which order a training shows the images."""
        of_one_order = self.num_real + (self.num_synthetic if self.fraction is None else 0)
        first = EpochOrder(of_one_order, seed, Purpose.CLASSIFIER_ORDER)
        if self.fraction is None:
            return first
        second = EpochOrder(self.num_synthetic, seed, Purpose.CLASSIFIER_SYNTHETIC_ORDER)
        return MixedOrder(first, second, self.fraction)

    def shown(self) -> np.ndarray:
        """How often each image is shown, 1 in the mean: (n,)."""
        counts = np.array([self.num_real, self.num_synthetic])
        if self.fraction is None:
            return np.ones(counts.sum())
        often = np.array([1 - self.fraction, self.fraction]) * counts.sum() / counts
        return np.repeat(often, counts)

    def weights(self) -> np.ndarray:
        """Weight of each image in the loss: (n,)."""
        return np.repeat([1.0, self.weight], [self.num_real, self.num_synthetic])


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
        sources: which of the images are synthetic, and how they are shown; none if None.
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
        sources: Sources | None = None,
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
        sources = sources or Sources(len(image_set))
        self._order, self._weights = sources.order(seed), sources.weights()
        self._targets = image_set.targets

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
        images, targets, weights, rngs = [], [], [], []
        for sample in samples:
            epoch, position = self._order(first + sample)
            rngs.append(random_stream(self.seed, Purpose.CLASSIFIER_AUGMENTATION, epoch, position))
            images.append(self.image_set.images[position])
            targets.append(self._targets[position])
            weights.append(self._weights[position])
        batch = _changed(
            images, targets, weights, rngs, (self.seed, index), self.symmetry, self.augment,
            self.mixing, self.class_weights,
        )  # fmt: skip
        if self.mixing == "none":
            return batch
        pixels, mixed, of_images = batch
        return pixels[self._rows], mixed[self._rows], of_images[self._rows]


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
        targets, weights = np.eye(len(class_weights))[labels], np.ones(len(images))
        yield _changed(
            images, targets, weights, rngs, (seed, step), symmetry, augment, mixing, class_weights
        )


def _changed(
    images: Sequence[np.ndarray] | np.ndarray,
    targets: Sequence[np.ndarray] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    rngs: list[np.random.Generator],
    seed_and_step: tuple[int, int],
    symmetry: str,
    augment: Augmenter,
    mixing: Mixing,
    class_weights: np.ndarray,
) -> Batch:
    """The images flipped, turned, augmented and mixed, their targets, and their weights."""
    turned = [
        transform_at_random(image, symmetry, rng) for image, rng in zip(images, rngs, strict=True)
    ]
    seed, step = seed_and_step
    rng = random_stream(seed, Purpose.CLASSIFIER_MIXING, step)
    # A weight is mixed as the label is.
    with_weights = np.column_stack((np.asarray(targets), np.asarray(weights))).astype(np.float32)
    mixed, together = mix(augment(np.stack(turned), rngs), with_weights, mixing, rng)
    labels, of_images = np.ascontiguousarray(together[:, :-1]), together[:, -1]
    return mixed, labels, ((labels @ class_weights) * of_images).astype(np.float32)


def balancing_weights(
    targets: np.ndarray, enabled: bool = True, shown: np.ndarray | None = None
) -> np.ndarray:
    """Weight of each class, inverse to its frequency, averaging 1 over the images.

    Args:
        targets: float (n, classes), rows summing to 1.
        enabled: if not, each class has the weight 1.
        shown: how often each image is shown, 1 in the mean: (n,).
    """
    count, num_classes = targets.shape
    if not enabled:
        return np.ones(num_classes)
    counts = np.maximum((np.ones(count) if shown is None else shown) @ targets, 1)
    return count / (num_classes * counts)
