"""The order in which training visits images, as a pure function of the seed."""

import numpy as np


class EpochOrder:
    """Position of the image that the n-th sample of a training shows.

    Every epoch visits each image once, in an order drawn from (seed, epoch).
    """

    def __init__(self, num_images: int, seed: int):
        self.num_images = num_images
        self.seed = seed
        self._epoch = -1
        self._order = np.array([], dtype=np.int64)

    def __call__(self, sample: int) -> tuple[int, int]:
        """Epoch and position of a sample."""
        epoch, place = divmod(sample, self.num_images)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(self.num_images)
        return epoch, int(self._order[place])
