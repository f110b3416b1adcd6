"""Pretrained networks as feature extractors, in ONNX like every other network."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerasmed.audit.config import AuditConfig
from kerasmed.files import sha256_of
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.runtime.backend import load_keras


def open_extractors(
    settings: AuditConfig, images: np.ndarray, folder: Path
) -> Iterator[tuple[str, OnnxClassifier]]:
    """The networks of ``audit.extractors``, one at a time, each with a name for its figures.

    The first call exports them.

    Args:
        settings: Names and weights of the networks.
        images: Images of the study, uint8 (n, size, size, 3), for the parity check of the export.
        folder: Folder of the exported files.
    """
    size = images.shape[1]
    for backbone in settings.extractors:
        load_keras()
        from kerasmed.classify.backbones import weights_for
        from kerasmed.classify.network import build_classifier
        from kerasmed.export.classifiers import export_classifier

        weights = weights_for(backbone, settings.extractor_weights, "audit.extractor_weights")
        name = f"{backbone} ({Path(weights).name})"
        version = weights if weights == "imagenet" else sha256_of(Path(weights))[:16]
        path = folder / f"{backbone}-{size}-{version}.onnx"
        if not path.exists():
            # Only the features are used, not the head.
            model = build_classifier(backbone, 2, size, None, weights, 0.0)
            metadata = {"class_names": ["unused", "also unused"], "backbone": backbone}
            export_classifier(model, 1.0, metadata, images[:33], path)
        yield name, OnnxClassifier(path)
