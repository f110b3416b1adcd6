"""Networks as feature extractors, in ONNX like every other network."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasmed.audit.config import AuditConfig
from kerasmed.classify.config import ClassifierConfig
from kerasmed.errors import ConfigError
from kerasmed.files import sha256_of
from kerasmed.inference.extractor import OnnxExtractor
from kerasmed.runtime.backend import load_keras


class Extractor(NamedTuple):
    """A frozen network whose features images are compared in.

    Attributes:
        network: name of a backbone, or path of an ONNX file.
        weights: weights of the backbone, "imagenet" or a path; None for a file.
    """

    network: str
    weights: str | None


def named_extractors(audit: AuditConfig, classifiers: ClassifierConfig) -> list[Extractor]:
    """The networks of the settings; none if nothing in them has pretrained weights.

    Raises:
        ConfigError: an unknown network, no weights for it, or no such file.
    """
    names, weights, key = audit.extractors, audit.extractor_weights, "audit.extractor_weights"
    if names is None:
        names, weights = classifiers.pretrained()[:1], classifiers.weights
        key = "classifiers.weights"
    return [_find(name, weights, key) for name in names]


def _find(name: str, weights: str | dict[str, str], key: str) -> Extractor:
    if name.lower().endswith(".onnx"):
        if not Path(name).is_file():
            raise ConfigError(
                f"audit.extractors: expected an ONNX file, received {name!r}, which is not a file; "
                "correct the path."
            )
        return Extractor(name, None)
    load_keras()
    from kerasmed.classify.backbones import find_backbone, weights_for

    find_backbone(name)
    return Extractor(name, weights_for(name, weights, key))


def open_extractors(
    extractors: list[Extractor], images: np.ndarray, folder: Path
) -> Iterator[tuple[str, OnnxExtractor]]:
    """The networks, one at a time, each with a name for its figures.

    The first call exports those that are not files.

    Args:
        extractors: the networks.
        images: images of the study, uint8 (n, size, size, 3), for the parity check of the export.
        folder: folder of the exported files.

    Raises:
        ModelFileError: a file that cannot be used.
    """
    for network, weights in extractors:
        if weights is None:
            yield Path(network).name, OnnxExtractor(network)
        else:
            name = network if weights == "imagenet" else f"{network} ({Path(weights).name})"
            yield name, OnnxExtractor(_exported(network, weights, images, folder))


def _exported(backbone: str, weights: str, images: np.ndarray, folder: Path) -> Path:
    """The ONNX file of a backbone, which is written if there is none."""
    load_keras()
    from kerasmed.classify.network import build_classifier
    from kerasmed.export.classifiers import export_classifier

    size = images.shape[1]
    version = weights if weights == "imagenet" else sha256_of(Path(weights))[:16]
    path = folder / f"{backbone}-{size}-{version}.onnx"
    if not path.exists():
        # Only the features are used, not the head.
        model = build_classifier(backbone, 2, size, None, weights, 0.0)
        metadata = {"class_names": ["unused", "also unused"], "backbone": backbone}
        export_classifier(model, 1.0, metadata, images[:33], path)
    return path
