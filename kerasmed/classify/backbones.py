"""The one table of backbones: Keras Applications networks and the preprocessing of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import applications, ops

from kerasmed.errors import ConfigError
from kerasmed.runtime.backend import load_keras


def _do_nothing(network: keras.Model) -> None:
    """Most networks have the same layers with any weights."""


def _scale_stem(network: keras.Model) -> None:
    """Divide EfficientNet's input by the root of ImageNet's deviations, in the first kernel.

    Keras does so in a layer that it builds only for ``weights="imagenet"``, and not for the same
    weights in a file (keras.applications.efficientnet). A network with a mean of 0 was not trained
    with ImageNet's mean and stays unchanged.
    """
    normalization = next(
        layer for layer in network.layers if isinstance(layer, keras.layers.Normalization)
    )
    if np.any(ops.convert_to_numpy(normalization.mean)):
        kernel = network.get_layer("stem_conv").kernel
        kernel.assign(kernel / np.sqrt([0.229, 0.224, 0.225])[:, None].astype("float32"))


@dataclass(frozen=True)
class Backbone:
    """One network.

    Attributes:
        network: name of its function in ``keras.applications``.
        input_size: height and width that its ImageNet weights were trained at.
        smallest: the smallest input size that it accepts.
        preprocess: its own ``preprocess_input``, from float32 pixels, 0 to 255.
        options: further arguments of the function.
        complete: applied to the network after its weights are loaded.
    """

    network: str
    input_size: int
    smallest: int
    preprocess: Callable[[Any], Any]
    options: dict[str, Any] = field(default_factory=dict)
    complete: Callable[[keras.Model], None] = _do_nothing


BACKBONES: dict[str, Backbone] = {
    "VGG16": Backbone("VGG16", 224, 32, applications.vgg16.preprocess_input),
    "VGG19": Backbone("VGG19", 224, 32, applications.vgg19.preprocess_input),
    "ResNet50": Backbone("ResNet50", 224, 32, applications.resnet.preprocess_input),
    "DenseNet121": Backbone("DenseNet121", 224, 32, applications.densenet.preprocess_input),
    "InceptionV3": Backbone("InceptionV3", 299, 75, applications.inception_v3.preprocess_input),
    "Xception": Backbone("Xception", 299, 71, applications.xception.preprocess_input),
    "MobileNetV2": Backbone("MobileNetV2", 224, 32, applications.mobilenet_v2.preprocess_input),
    "EfficientNetB0": Backbone(
        "EfficientNetB0", 224, 32, applications.efficientnet.preprocess_input, complete=_scale_stem
    ),
    "MobileNet": Backbone(
        "MobileNet", 224, 32, applications.mobilenet.preprocess_input, {"alpha": 0.75}
    ),
}


def find_backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        ConfigError: the table has no such backbone.
    """
    if name not in BACKBONES:
        close = get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean {close[0]}?" if close else "correct the name."
        raise ConfigError(
            f"Unknown backbone: expected one of {', '.join(BACKBONES)}; received {name!r}; {hint}"
        )
    return BACKBONES[name]


def resolve_input_size(name: str, input_size: int | None) -> int:
    """The given input size, or the backbone's own if None.

    Raises:
        ConfigError: the size is too small for the backbone.
    """
    backbone = find_backbone(name)
    if input_size is not None and input_size < backbone.smallest:
        raise ConfigError(
            f"classifiers.input_size: {name} needs at least {backbone.smallest}, "
            f"received {input_size}; raise it or omit it."
        )
    return input_size or backbone.input_size


def weights_for(name: str, weights: str | dict[str, str], key: str = "classifiers.weights") -> str:
    """The weights setting of one backbone: "imagenet", "none" or an existing path.

    Args:
        name: name of the backbone.
        weights: one setting for all backbones, or one by backbone.
        key: name of the setting, for error messages.

    Raises:
        ConfigError: no setting for this backbone, or no file at the path.
    """
    if isinstance(weights, dict):
        if name not in weights:
            raise ConfigError(
                f"{key}: expected an entry for {name}, received {sorted(weights)}; "
                'add "imagenet", "none" or a path.'
            )
        weights = weights[name]
    if weights not in ("imagenet", "none") and not Path(weights).is_file():
        raise ConfigError(
            f'{key}: expected "imagenet", "none" or a weights file, '
            f"received {weights!r}, which is not a file; correct the path."
        )
    return weights


def set_all_weights(network: keras.Model, weights: Sequence[np.ndarray]) -> None:
    """``network.set_weights``, after which EfficientNet also normalises by the new statistics.

    Keras 3.15 updates what a Normalization layer computes with only when it loads a file.
    """
    keras.Model.set_weights(network, weights)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def build_network(name: str, input_size: int, weights: str) -> keras.Model:
    """A backbone without its top.

    Raises:
        ConfigError: the weights cannot be downloaded or do not fit the network.
    """
    load_keras()  # refuses channels_first, if another program has set it
    backbone = find_backbone(name)

    def build(weights: str | None) -> keras.Model:
        return getattr(applications, backbone.network)(
            include_top=False,
            weights=weights,
            input_shape=(input_size, input_size, 3),
            **backbone.options,
        )

    try:
        network = build(None if weights == "none" else weights)
    except Exception as error:  # Keras raises bare Exception for a failed download.
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"classifiers.weights: cannot load {weights!r} into {name}: {reason} Give a path to "
            'its weights without top, or "none" to train from scratch.'
        ) from None
    if weights == "imagenet" and backbone.complete is not _do_nothing:
        loaded, network = network, build(None)  # with the layers of a saved model that is loaded
        set_all_weights(network, loaded.get_weights())
    if weights != "none":
        backbone.complete(network)
    return network
