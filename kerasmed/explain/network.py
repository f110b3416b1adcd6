"""Images explained by one classifier file, each explanation checked and recorded."""

import hashlib
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from kerasmed import __version__
from kerasmed.errors import ModelFileError
from kerasmed.explain.checks import (
    LOGITS,
    compare_with_region,
    deletion_and_insertion,
    randomise_weights,
)
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainers import build_explainer
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.masks import apply_masks, draw_masks, fill_of, sample_weights
from kerasmed.explain.perturbation import ROUND, Predict
from kerasmed.explain.records import read_record, record_explanation
from kerasmed.explain.surrogate import fit_surrogate, rank_correlation
from kerasmed.files import sha256_of
from kerasmed.fingerprint import Fingerprint
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.session import provider_key
from kerasmed.runtime.backend import load_keras

# A file of another precision explains like the float32 one if LIME's weights from the same masks
# have at least this rank correlation.
SAME_EXPLANATION = 0.95
# Above this rank correlation with the map of the shuffled network, a map says nothing.
_SAME_WITHOUT_TRAINING = 0.5


class _AnyExplainer(Protocol):
    def explain(self, image: np.ndarray, segments: np.ndarray | None = None) -> Explanation: ...


class NetworkExplainer:
    """Explains images with every explainer of the settings.

    It is a context manager, since it keeps a temporary file.

    Args:
        engine: the classifier file.
        trained: path of the Keras network that it was exported from, which CAM needs.
        settings: which explainers, and how.
        seed: seed of the masks, the random orders and the shuffled weights.

    Raises:
        ModelFileError: the settings ask for CAM, and there is no Keras network.
    """

    def __init__(self, engine: OnnxClassifier, trained: Path, settings: ExplainConfig, seed: int):
        self.engine = engine
        self.settings = settings
        self.seed = seed
        self._explainers: dict[str, _AnyExplainer] = {
            name: _cam_explainer(engine, trained)
            if name == "cam"
            else build_explainer(name, engine.predict, settings, seed)
            for name in settings.explainers
        }
        self._model_sha256 = sha256_of(engine.path)

    def __enter__(self) -> "NetworkExplainer":
        self._folder = TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self.__dict__.pop("_shuffled", None)  # closed before its file is removed
        self._folder.cleanup()

    @cached_property
    def _shuffled(self) -> OnnxClassifier:
        """The network with its weights shuffled, written only when a new record needs it."""
        path = Path(self._folder.name) / "shuffled.onnx"
        randomise_weights(self.engine.path, path, self.seed)
        return OnnxClassifier(path, provider_key(self.engine.provider))

    def explain_into(
        self,
        folder: Path,
        stem: str,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Explain an image, and write ``<stem>.png`` and ``.json``.

        The files of other explainers than LIME are called ``<stem>.<explainer>.png`` and
        ``.json``. Existing records of the same image, file and settings are read instead.

        Args:
            folder: folder of the files.
            stem: start of the files' names.
            image: uint8 (height, width, 3).
            segments: int (height, width), its superpixels.
            notes: further entries of the records.
            region: bool (height, width), what decides the class, where that is known.

        Returns:
            The record of each explainer by its name, see ``record_explanation``.
        """
        made_from = self._made_from(image, segments, notes, region)
        return {
            name: record_explanation(
                picture_path(folder, stem, name),
                made_from,
                self.engine.class_names,
                self.settings.top,
                partial(self._explain, name, image, segments, notes, region),
            )
            for name in self._explainers
        }

    def is_explained(
        self,
        folder: Path,
        stem: str,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None = None,
    ) -> bool:
        """Whether ``explain_into`` would find every record."""
        made_from = self._made_from(image, segments, notes, region)
        paths = (picture_path(folder, stem, name) for name in self._explainers)
        return all(read_record(path, made_from) is not None for path in paths)

    def _made_from(
        self,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None,
    ) -> Fingerprint:
        settings = {
            "kerasmed": __version__,
            "seed": self.seed,
            "explain": self.settings.model_dump(exclude={"images_per_class", "explainers"}),
            "notes": notes,
        }
        arrays = {"image": image, "superpixels": segments, "region": region}
        inputs = {name: _hash(array) for name, array in arrays.items() if array is not None}
        return Fingerprint(settings, {"model": self._model_sha256, **inputs})

    def _explain(
        self,
        name: str,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None,
    ) -> tuple[Explanation, dict[str, Any]]:
        """An explanation, and what its record notes besides."""
        explanation = self._explainers[name].explain(image, segments)
        return explanation, {**notes, **self._check(name, explanation, region)}

    def _check(
        self, name: str, explanation: Explanation, region: np.ndarray | None
    ) -> dict[str, Any]:
        """Results of the checks of an explanation, for the predicted class."""
        if not self.settings.checks:
            return {}
        label, settings = explanation.predicted, self.settings
        weights = explanation.superpixel_weights[:, label]
        explanation.faithfulness = deletion_and_insertion(
            explanation.image,
            explanation.segments,
            weights,
            label,
            self.engine.predict,
            settings.hide,
            self.seed,
        )
        results: dict[str, Any] = {"faithfulness": explanation.faithfulness}
        if region is not None and region.any():
            results["region"] = compare_with_region(
                weights, explanation.segments, region, settings.top
            )
        if name == "lime" and self.engine.metadata.get("precision") == "fp32":
            shuffled_weights = self._explain_shuffled(explanation)
            if np.ptp(shuffled_weights) > 0:
                results["randomised"] = rank_correlation(weights, shuffled_weights)
                if results["randomised"] > _SAME_WITHOUT_TRAINING:
                    explanation.warnings.append(
                        "the map stays alike (rank correlation "
                        f"{results['randomised']:.2f}) with the network's weights shuffled"
                    )
        return results

    def _explain_shuffled(self, explanation: Explanation) -> np.ndarray:
        """LIME's weights (segments,) of the predicted class's logit, by the shuffled network."""
        masks = draw_masks(
            len(explanation.superpixel_weights),
            explanation.num_samples,
            self.seed,
            self.settings.sampling,
        )
        image, segments = explanation.image, explanation.segments
        fill = fill_of(image, segments, self.settings.hide)
        logits = []
        for start in range(0, len(masks), ROUND):
            perturbed = apply_masks(image, fill, segments, masks[start : start + ROUND])
            logits.append(self._shuffled.outputs(perturbed, (LOGITS,))[LOGITS])
        weights = sample_weights(masks, self.settings.sampling)
        surrogate = fit_surrogate(masks, np.concatenate(logits), weights, False)
        return surrogate.weights[:, explanation.predicted]


def picture_path(folder: Path, stem: str, explainer: str) -> Path:
    """Path of the picture of an explanation; its record is next to it, as ``.json``."""
    return folder / f"{stem}{'' if explainer == 'lime' else f'.{explainer}'}.png"


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _cam_explainer(engine: OnnxClassifier, trained: Path) -> _AnyExplainer:
    if not trained.exists():
        raise ModelFileError(
            f"CAM needs the Keras network of {engine.path}: expected it at {trained}, "
            "received no file; explain within the run folder, or leave cam out of "
            "explain.explainers."
        )
    load_keras()
    from kerasmed.explain.cam import CamExplainer
    from kerasmed.saved_models import load_model

    model = load_model(trained, compile=False)
    return CamExplainer(model.inference_network(), model.temperature)


def agreement_of_precisions(
    images: np.ndarray,
    predict_float32: Predict,
    predict_other: Predict,
    settings: ExplainConfig,
    seed: int,
) -> float:
    """Mean rank correlation of LIME's weights by two files of one network, from the same masks.

    Args:
        images: uint8 (batch, height, width, 3), a few.
        predict_float32: probabilities by the float32 file.
        predict_other: probabilities by the file of another precision.
        settings: settings of the explanations, which stop at ``min_samples``.
        seed: seed of the masks.
    """
    few = settings.model_copy(
        update={"num_samples": min(settings.min_samples, settings.num_samples)}
    )
    correlations = []
    for image in images:
        expected = build_explainer("lime", predict_float32, few, seed).explain(image)
        other = build_explainer("lime", predict_other, few, seed).explain(image, expected.segments)
        label = expected.predicted
        correlations.append(
            rank_correlation(
                expected.superpixel_weights[:, label], other.superpixel_weights[:, label]
            )
        )
    return float(np.mean(correlations))
