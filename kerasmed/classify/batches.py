"""Training batches of a CNN, each a pure function of the seed and its number."""

import keras
import numpy as np

from kerasmed.classify.augment import Augmenter
from kerasmed.classify.config import Mixing
from kerasmed.classify.mixing import mix
from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.random_streams import Purpose, random_stream


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
        size = batch_size // shard[1]
        self._rows = slice(size * shard[0], size * (shard[0] + 1))
        self._order = EpochOrder(len(image_set), seed, Purpose.CLASSIFIER_ORDER)

    @property
    def num_batches(self) -> None:
        """None: the sequence is endless."""
        return None

    def __getitem__(self, index: int):
        first = index * self.batch_size
        samples = range(self.batch_size)
        if self.mixing == "none":  # mixing needs the images of the whole batch
            samples = samples[self._rows]
        images, labels, rngs = [], [], []
        for sample in samples:
            epoch, position = self._order(first + sample)
            rng = random_stream(self.seed, Purpose.CLASSIFIER_AUGMENTATION, epoch, position)
            image = self.image_set.images[position]
            images.append(transform_at_random(image, self.symmetry, rng))
            labels.append(self.image_set.labels[position])
            rngs.append(rng)
        one_hot = np.eye(len(self.class_weights), dtype=np.float32)[labels]
        rng = random_stream(self.seed, Purpose.CLASSIFIER_MIXING, index)
        batch, targets = mix(self.augment(np.stack(images), rngs), one_hot, self.mixing, rng)
        if self.mixing != "none":
            batch, targets = batch[self._rows], targets[self._rows]
        return batch, targets, (targets @ self.class_weights).astype(np.float32)


def balancing_weights(labels: np.ndarray, num_classes: int, enabled: bool = True) -> np.ndarray:
    """Weight of each class, inverse to its frequency, averaging 1 over the images."""
    if not enabled:
        return np.ones(num_classes)
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return len(labels) / (num_classes * counts)
