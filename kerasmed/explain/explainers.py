"""LIME, KernelSHAP and occlusion over any function from images to probabilities.

All three hide superpixels and watch the probabilities; ``grad_cam.py`` looks into the network.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from kerasmed.config import ExplainConfig
from kerasmed.errors import InputError
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.masks import (
    LIME_SAMPLINGS,
    PAIRED,
    apply_masks,
    draw_masks,
    fill_of,
    sample_weights,
)
from kerasmed.explain.segments import superpixels_of
from kerasmed.explain.surrogate import Surrogate, fit_surrogate

# Perturbed images that are made and predicted at once, and after which LIME judges whether to stop.
ROUND = 128

# What makes an explanation one that should not be relied on.
LEAST_R2 = 0.3
LEAST_OVERLAP = 0.5
LEAST_CHANGE = 1e-3
ONE_SUPERPIXEL = "there is one superpixel, so nothing to compare"

# LIME stops when the overlap is expected to be as large, and no interval among the strongest is
# wider to either side than this share of the strongest weight.
SETTLED_OVERLAP = 0.7
SETTLED_WIDTH = 0.25

Predict = Callable[[np.ndarray], np.ndarray]

_DEFAULTS = ExplainConfig()


@dataclass(frozen=True)
class PerturbedImage:
    """An image whose superpixels can be hidden, and what is predicted then."""

    image: np.ndarray
    segments: np.ndarray
    fill: np.ndarray
    predict: Predict

    @property
    def num_segments(self) -> int:
        """Superpixels of the image."""
        return int(self.segments.max()) + 1

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """Probabilities (masks, classes) of the image with the superpixels that each mask keeps."""
        return np.concatenate(list(self.rounds(masks)))

    def rounds(self, masks: np.ndarray) -> Iterator[np.ndarray]:
        """As ``probabilities``, in rounds; the next is perturbed while one is predicted."""
        with ThreadPoolExecutor(1) as perturbing:
            ahead = perturbing.submit(self._perturb, masks[:ROUND])
            classes = None
            for start in range(0, len(masks), ROUND):
                images = ahead.result()
                ahead = perturbing.submit(self._perturb, masks[start + ROUND : start + 2 * ROUND])
                found = _checked(self.predict(images), len(images), classes)
                classes = found.shape[1]
                yield found

    def _perturb(self, masks: np.ndarray) -> np.ndarray:
        return apply_masks(self.image, self.fill, self.segments, masks)


def _checked(probabilities: np.ndarray, count: int, classes: int | None) -> np.ndarray:
    """What a predict function gave, if it is what it should be."""
    wanted = f"({count}, {classes or 'classes'}) numbers of 0 to 1 whose rows add up to 1"
    try:
        found = np.asarray(probabilities)
        found = found if found.dtype.kind in "fiu" else found.astype(np.float64)
    except (TypeError, ValueError):  # ragged, or no numbers
        raise InputError(
            f"Probabilities: expected {wanted}, received a {type(probabilities).__name__} of "
            "something else from the predict function; mend it."
        ) from None
    if (
        found.ndim != 2
        or len(found) != count
        or found.shape[1] < 2
        or (classes is not None and found.shape[1] != classes)
    ):
        raise InputError(
            f"Probabilities: expected {wanted}, received the shape {found.shape} from the predict "
            "function; mend it."
        )
    if not np.isfinite(found).all():
        raise InputError(
            f"Probabilities: expected {wanted}, received NaN or infinity from the predict "
            "function; check the model."
        )
    wrong = (found < 0).any(axis=1) | (np.abs(found.sum(axis=1) - 1) > 1e-3)
    if wrong.any():
        raise InputError(
            f"Probabilities: expected {wanted}, received rows such as "
            f"{found[wrong.argmax()].tolist()} from the predict function; put a softmax behind "
            "logits."
        )
    return found


class Explainer(ABC):
    """What all explainers share that hide superpixels.

    Args:
        predict: from uint8 (batch, height, width, 3) to probabilities (batch, classes), for
            instance the method ``predict`` of an ``OnnxClassifier``.
        segmentation: a key of SEGMENTATIONS.
        superpixels: the wanted number, see ``segment_image``.
        hide: what hidden superpixels show: "mean", their mean colour, or a grey level, 0 to 255.
    """

    name: str
    # Settings of ``ExplainConfig``, and the seed, that it takes.
    takes: tuple[str, ...] = ("segmentation", "superpixels", "hide")

    def __init__(
        self,
        predict: Predict,
        segmentation: str = _DEFAULTS.segmentation,
        superpixels: int = _DEFAULTS.superpixels,
        hide: str | int = _DEFAULTS.hide,
    ):
        if not callable(predict):
            raise InputError(
                "Predict: expected a function from uint8 images to probabilities, received "
                f"{type(predict).__name__}; give for instance the method predict of a model."
            )
        _check_count("Superpixels", superpixels, 1)
        self.predict = predict
        self.segmentation = segmentation
        self.superpixels = superpixels
        self.hide = hide

    def explain(self, image: np.ndarray, segments: np.ndarray | None = None) -> Explanation:
        """Explain the probabilities of one image, for all classes.

        Args:
            image: uint8 (height, width, 3), 0 to 255.
            segments: int (height, width), its superpixels, with any ids; made by the explainer's
                segmentation if None.

        Raises:
            InputError: an image of another form, segments of another size, or a predict function
                that does not give probabilities.
        """
        started = time.perf_counter()
        segments = superpixels_of(image, segments, self.segmentation, self.superpixels)
        fill = fill_of(image, segments, self.hide)
        found = self._explain(PerturbedImage(image, segments, fill, self.predict))
        found.duration_s = time.perf_counter() - started
        return found

    @abstractmethod
    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        """The explanation, but for its duration."""

    def _explanation(
        self,
        perturbed: PerturbedImage,
        weights: np.ndarray,
        probabilities: np.ndarray,
        **others: Any,
    ) -> Explanation:
        """One from weights (segments, classes) and probabilities (samples, classes)."""
        return Explanation(
            image=perturbed.image,
            segments=perturbed.segments,
            superpixel_weights=weights,
            probabilities=probabilities[0],
            explainer=self.name,
            num_samples=len(probabilities),
            warnings=_warnings(perturbed.num_segments, probabilities),
            **others,
        )


class LimeExplainer(Explainer):
    """LIME (Ribeiro et al., arXiv:1602.04938).

    Kernel, ridge and hidden colours are those of `lime` 0.2.0.1, and with the sampling
    "independent" so is the distribution of masks; the seed governs the masks and nothing else, and
    every superpixel is weighed instead of some that were first chosen.

    Args:
        num_samples: perturbed images at most, the whole one included.
        min_samples: perturbed images after which it may stop, once SETTLED_OVERLAP and
            SETTLED_WIDTH hold for the predicted class; as large as ``num_samples``, it never does.
        top: superpixels whose ranking must have settled, and whose stability is reported.
        sampling: a key of SAMPLINGS.
        seed: of the masks. The same seed gives the same answer.
        others: see ``Explainer``.
    """

    name = "lime"
    takes = (*Explainer.takes, "num_samples", "min_samples", "top", "sampling", "seed")

    def __init__(
        self,
        predict: Predict,
        num_samples: int = _DEFAULTS.num_samples,
        min_samples: int = _DEFAULTS.min_samples,
        top: int = _DEFAULTS.top,
        sampling: str = _DEFAULTS.sampling,
        seed: int = 0,
        **others: Any,
    ):
        super().__init__(predict, **others)
        if sampling not in LIME_SAMPLINGS:
            raise InputError(
                f"Sampling: expected one of {', '.join(LIME_SAMPLINGS)}; received {sampling!r}."
            )
        _check_count("Samples", num_samples, 10)
        _check_count("Fewest samples", min_samples, 1)
        _check_count("Top", top, 1)
        _check_count("Seed", seed, 0)
        self.num_samples = num_samples
        self.min_samples = min(min_samples, num_samples)
        self.top = top
        self.sampling = sampling
        self.seed = seed

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        masks = draw_masks(perturbed.num_segments, self.num_samples, self.seed, self.sampling)
        weights = sample_weights(masks, self.sampling)
        probabilities = np.empty((0, 0))
        for each in perturbed.rounds(masks):
            probabilities = np.concatenate([probabilities, each]) if len(probabilities) else each
            count = len(probabilities)
            # With so few samples nothing has settled, and each fit of many superpixels takes long.
            if count < min(len(masks), max(self.min_samples, 2 * perturbed.num_segments)):
                continue
            surrogate = fit_surrogate(
                masks[:count], probabilities, weights[:count], self.sampling in PAIRED
            )
            label = int(probabilities[0].argmax())
            stability = surrogate.stability(label, self.top, self.seed)
            strongest = surrogate.strongest(label, self.top)
            widest = surrogate.half_widths[strongest, label].max()
            narrow = widest <= SETTLED_WIDTH * np.abs(surrogate.weights[:, label]).max()
            if stability["top_overlap"] >= SETTLED_OVERLAP and narrow:
                break
        found = self._explanation(
            perturbed,
            surrogate.weights,
            probabilities,
            seed=self.seed,
            intercepts=surrogate.intercepts,
            scores=surrogate.scores,
            half_widths=surrogate.half_widths,
            stability=stability,
        )
        found.warnings += _lime_warnings(
            probabilities[:, label], surrogate, label, stability["top_overlap"]
        )
        return found


def _warnings(num_segments: int, probabilities: np.ndarray) -> list[str]:
    """Why the weights of any explainer should not be relied on: (samples, classes)."""
    found = []
    if num_segments == 1:
        found.append(ONE_SUPERPIXEL)
    if len(probabilities) < num_segments:
        found.append(f"{len(probabilities)} samples are fewer than the {num_segments} superpixels")
    if np.ptp(probabilities[:, probabilities[0].argmax()]) < LEAST_CHANGE:
        found.append("the probability does not change, whatever is hidden")
    return found


def _lime_warnings(
    probabilities: np.ndarray, surrogate: Surrogate, label: int, overlap: float
) -> list[str]:
    """Why those of LIME should not be relied on: (samples,) probabilities of the class."""
    if np.ptp(probabilities) < LEAST_CHANGE:
        return []  # said already
    found = []
    if surrogate.scores[label] < LEAST_R2:
        found.append(
            f"the surrogate explains {surrogate.scores[label]:.0%} of the changes of the "
            f"probability, less than {LEAST_R2:.0%}"
        )
    if overlap < LEAST_OVERLAP:
        found.append(
            f"the strongest superpixels by other masks would have a Jaccard index of {overlap:.2f} "
            f"with these, less than {LEAST_OVERLAP}"
        )
    return found


class KernelShapExplainer(Explainer):
    """Shapley values by weighted regression (Lundberg and Lee, arXiv:1705.07874).

    Pairs of masks are drawn from the Shapley kernel, and the weights add up to the difference
    between the image and the image with everything hidden (Covert and Lee, arXiv:2012.01536).
    """

    name = "kernel_shap"
    takes = (*Explainer.takes, "num_samples", "seed")

    def __init__(
        self,
        predict: Predict,
        num_samples: int = _DEFAULTS.num_samples,
        seed: int = 0,
        **others: Any,
    ):
        super().__init__(predict, **others)
        _check_count("Samples", num_samples, 10)
        _check_count("Seed", seed, 0)
        self.num_samples = num_samples
        self.seed = seed

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        count = perturbed.num_segments
        ends = np.array([[True] * count, [False] * count])
        masks = ends
        if count > 1:
            drawn = draw_masks(count, self.num_samples - 1, self.seed, "shapley")[1:]
            masks = np.concatenate([ends, drawn])
        found = perturbed.probabilities(masks)
        whole, nothing = found[0].astype(np.float64), found[1].astype(np.float64)
        x, y = masks[2:].astype(np.float64), found[2:] - nothing
        # Ridge as small as it can be where there are fewer samples than superpixels.
        gram = x.T @ x / max(len(x), 1) + 1e-6 * np.eye(count)
        moments = x.T @ y / max(len(x), 1)
        solved = np.linalg.solve(gram, np.column_stack([moments, np.ones(count)]))
        free, ones = solved[:, :-1], solved[:, -1:]
        weights = free + ones * ((whole - nothing) - free.sum(axis=0)) / ones.sum()
        return self._explanation(perturbed, weights, found, seed=self.seed, intercepts=nothing)


class OcclusionExplainer(Explainer):
    """How much each probability falls when one superpixel is hidden (arXiv:1311.2901)."""

    name = "occlusion"

    def _explain(self, perturbed: PerturbedImage) -> Explanation:
        count = perturbed.num_segments
        found = perturbed.probabilities(
            np.concatenate([[[True] * count], ~np.eye(count, dtype=bool)])
        )
        weights = found[0].astype(np.float64) - found[1:]
        intercepts = found[0] - weights.sum(axis=0)
        return self._explanation(perturbed, weights, found, seed=None, intercepts=intercepts)


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, Integral) or value < least:
        raise InputError(
            f"{name}: expected a whole number of {least} or more, received {value!r}; mend it."
        )


EXPLAINERS: dict[str, type[Explainer]] = {
    each.name: each for each in (LimeExplainer, KernelShapExplainer, OcclusionExplainer)
}


def build_explainer(name: str, predict: Predict, settings: ExplainConfig, seed: int) -> Explainer:
    """One of EXPLAINERS with the settings that it takes."""
    chosen = EXPLAINERS[name]
    values = {**settings.model_dump(), "seed": seed}
    return chosen(predict, **{key: values[key] for key in chosen.takes})
