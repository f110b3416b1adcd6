"""Images explained by one classifier file, each explanation checked and recorded."""

import hashlib
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from kerasmed import __version__
from kerasmed.errors import ModelFileError
from kerasmed.explain.config import ExplainConfig
from kerasmed.explain.explainers import build_explainer
from kerasmed.explain.explanation import Explanation
from kerasmed.explain.faithfulness import against_region, deletion_and_insertion
from kerasmed.explain.masks import (
    apply_masks,
    draw_masks,
    fill_of,
    sample_weights,
)
from kerasmed.explain.perturbation import ROUND, Predict
from kerasmed.explain.randomisation import LOGITS, randomise_weights
from kerasmed.explain.records import read_recorded, recorded
from kerasmed.explain.surrogate import fit_surrogate, rank_correlation
from kerasmed.files import sha256_of
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.session import provider_key
from kerasmed.runtime.backend import load_keras

# Rank correlation of LIME's weights from the same masks from which on a file of another precision
# explains like the float32 one.
SAME_EXPLANATION = 0.95
# That of the maps of a network and of its shuffled copy from which on the map tells nothing.
_SAME_WITHOUT_TRAINING = 0.5


class _AnyExplainer(Protocol):
    def explain(self, image: np.ndarray, segments: np.ndarray | None = None) -> Explanation: ...


class NetworkExplainer:
    """Explains by every explainer of the settings; a context, for it keeps a temporary file.

    Args:
        engine: the classifier file.
        trained: the Keras network that it was exported from, which Grad-CAM needs.
        settings: which explainers, and how.
        seed: of masks and random orders.

    Raises:
        ModelFileError: Grad-CAM was asked for and the Keras network is not there.
    """

    def __init__(self, engine: OnnxClassifier, trained: Path, settings: ExplainConfig, seed: int):
        self.engine = engine
        self.settings = settings
        self.seed = seed
        self._explainers: dict[str, _AnyExplainer] = {
            name: _grad_cam(engine, trained)
            if name == "grad_cam"
            else build_explainer(name, engine.predict, settings, seed)
            for name in settings.explainers
        }
        self._model_sha256 = sha256_of(engine.path)

    def __enter__(self) -> "NetworkExplainer":
        self._folder = TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self.__dict__.pop("_shuffled", None)  # closed before its file goes
        self._folder.cleanup()

    @cached_property
    def _shuffled(self) -> OnnxClassifier:
        """The network with its weights shuffled; not made where every record is there already."""
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

        Those of other explainers than LIME are called ``<stem>.<explainer>.png``. What is there
        already, from the same image, file and settings, is not made again.

        Args:
            folder: where to.
            stem: of the files' names.
            image: uint8 (height, width, 3).
            segments: int (height, width), its superpixels.
            notes: what else the records are to say.
            region: bool (height, width), what decides the class, where that is known.

        Returns:
            The record of each explainer by its name, see ``recorded``.
        """
        made_from = self._made_from(image, segments, notes, region)
        records = {}
        for name in self._explainers:

            def explain(name: str = name) -> tuple[Explanation, dict[str, Any]]:
                explanation = self._explainers[name].explain(image, segments)
                return explanation, {**notes, **self._check(name, explanation, region)}

            records[name] = recorded(
                picture_path(folder, stem, name),
                made_from,
                self.engine.class_names,
                self.settings.top,
                explain,
            )
        return records

    def is_explained(
        self,
        folder: Path,
        stem: str,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None = None,
    ) -> bool:
        """Whether ``explain_into`` would find all of it there."""
        made_from = self._made_from(image, segments, notes, region)
        paths = (picture_path(folder, stem, name) for name in self._explainers)
        return all(read_recorded(path, made_from) is not None for path in paths)

    def _made_from(
        self,
        image: np.ndarray,
        segments: np.ndarray,
        notes: dict[str, Any],
        region: np.ndarray | None,
    ) -> dict[str, Any]:
        return {
            "kerasmed": __version__,
            "model_sha256": self._model_sha256,
            "inputs_sha256": [_hash(each) for each in (image, segments, region)],
            "notes": notes,
            "seed": self.seed,
            "settings": self.settings.model_dump(exclude={"images_per_class", "explainers"}),
        }

    def _check(
        self, name: str, explanation: Explanation, region: np.ndarray | None
    ) -> dict[str, Any]:
        """What is known of the worth of an explanation, for the predicted class."""
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
        found: dict[str, Any] = {"faithfulness": explanation.faithfulness}
        if region is not None and region.any():
            found["region"] = against_region(weights, explanation.segments, region, settings.top)
        if name == "lime" and self.engine.metadata.get("precision") == "fp32":
            other = self._without_training(explanation)
            if np.ptp(other) > 0:
                found["randomised"] = rank_correlation(weights, other)
                if found["randomised"] > _SAME_WITHOUT_TRAINING:
                    explanation.warnings.append(
                        "the map stays alike (rank correlation "
                        f"{found['randomised']:.2f}) with the network's weights shuffled"
                    )
        return found

    def _without_training(self, explanation: Explanation) -> np.ndarray:
        """LIME's weights (segments,) of the predicted class's logit, the weights being shuffled."""
        masks = draw_masks(
            len(explanation.superpixel_weights),
            explanation.num_samples,
            self.seed,
            self.settings.sampling,
        )
        fill = fill_of(explanation.image, explanation.segments, self.settings.hide)
        logits = [
            self._shuffled.outputs(
                apply_masks(explanation.image, fill, explanation.segments, masks[at : at + ROUND]),
                (LOGITS,),
            )[LOGITS]
            for at in range(0, len(masks), ROUND)
        ]
        weights = sample_weights(masks, self.settings.sampling)
        surrogate = fit_surrogate(masks, np.concatenate(logits), weights, False)
        return surrogate.weights[:, explanation.predicted]


def picture_path(folder: Path, stem: str, explainer: str) -> Path:
    """Where the picture of an explanation lies; its record lies beside it as ``.json``."""
    return folder / f"{stem}{'' if explainer == 'lime' else f'.{explainer}'}.png"


def _hash(values: np.ndarray | None) -> str | None:
    return None if values is None else hashlib.sha256(values.tobytes()).hexdigest()


def _grad_cam(engine: OnnxClassifier, trained: Path) -> _AnyExplainer:
    if not trained.exists():
        raise ModelFileError(
            f"Grad-CAM needs the Keras network of {engine.path}: expected it at {trained}, "
            "received no file; explain within the run folder, or leave grad_cam out of "
            "explain.explainers."
        )
    load_keras()
    import keras

    from kerasmed.explain.cam import GradCamExplainer

    model = keras.saving.load_model(trained, compile=False)
    return GradCamExplainer(model, engine.metadata["temperature"])


def agreement_of_precisions(
    images: np.ndarray, one: Predict, other: Predict, settings: ExplainConfig, seed: int
) -> float:
    """Mean rank correlation of LIME's weights by two files of one network, from the same masks.

    Args:
        images: uint8 (batch, height, width, 3), a few.
        one: probabilities by the float32 file.
        other: by the other file.
        settings: of the explanations; they stop at ``min_samples``.
        seed: of the masks.
    """
    few = settings.model_copy(
        update={"num_samples": min(settings.min_samples, settings.num_samples)}
    )
    found = []
    for image in images:
        first = build_explainer("lime", one, few, seed).explain(image)
        second = build_explainer("lime", other, few, seed).explain(image, first.segments)
        weights = (each.superpixel_weights[:, first.predicted] for each in (first, second))
        found.append(rank_correlation(*weights))
    return float(np.mean(found))
