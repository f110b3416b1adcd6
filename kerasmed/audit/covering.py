"""Which of many drawn images to keep, so that they cover the training images."""

import numpy as np

from kerasmed.random_streams import Purpose, random_stream


def covering(training: np.ndarray, candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Positions of the candidates that are nearest to the training images, as many for each.

    The training images take turns, in a new order each round. Each takes the nearest candidate that
    is left.

    Args:
        training: features of the training images of a class, float (n, d).
        candidates: features of the drawn images of that class, float (m, d).
        count: how many to keep, at most m.
        seed: seed of the order.

    Returns:
        int (count,), ascending.

    Example:
        >>> import numpy as np
        >>> from kerasmed.audit.covering import covering
        >>> training = np.array([[0.0], [10.0]])
        >>> covering(training, np.array([[0.1], [0.2], [0.3], [9.0]]), count=2, seed=0)
        array([0, 3])
    """
    scale = np.maximum(training.std(axis=0), 1e-6)
    training, candidates = training / scale, candidates / scale
    squares = (candidates**2).sum(axis=1)
    chosen: list[int] = []
    while len(chosen) < count:
        rng = random_stream(seed, Purpose.COVERING_ORDER, len(chosen))
        for image in training[rng.permutation(len(training))][: count - len(chosen)]:
            nearest = int(np.argmin(squares - 2 * candidates @ image))
            squares[nearest] = np.inf
            chosen.append(nearest)
    return np.sort(chosen)
