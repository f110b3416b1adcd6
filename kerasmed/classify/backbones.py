"""The one table of backbones: Keras Applications networks and what each wants to see."""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmed.errors import ConfigError
from kerasmed.runtime.backend import load_keras


def _to_minus_one_one(x):
    return x / 127.5 - 1.0


def _to_imagenet_normal(x):
    """torchvision's normalisation, as DenseNet was trained with."""
    return keras.layers.Rescaling(
        [1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)],
        [-mean / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))],
    )(x)


def _to_centred_bgr(x):
    """Caffe's order and centring, as VGG and ResNet were trained with."""
    swapped = ops.take(x, [2, 1, 0], axis=-1)
    return keras.layers.Rescaling([1.0, 1.0, 1.0], [-103.939, -116.779, -123.68])(swapped)


def _as_it_is(x):
    """EfficientNet rescales inside itself."""
    return x


def _leave(network: keras.Model) -> None:
    """Most networks are the same with weights of a file as with those that Keras downloads."""


def _scale_stem(network: keras.Model) -> None:
    """Divide EfficientNet's input by the root of ImageNet's deviations, in the first kernel.

    Keras does so in a layer that it builds for ``weights="imagenet"`` alone, and not for the same
    weights in a file (keras.applications.efficientnet). A file of a network that was not trained
    with ImageNet's mean is left as it is.
    """
    norm = next(each for each in network.layers if isinstance(each, keras.layers.Normalization))
    if np.any(ops.convert_to_numpy(norm.mean)):
        kernel = network.get_layer("stem_conv").kernel
        kernel.assign(kernel / np.sqrt([0.229, 0.224, 0.225])[:, None].astype("float32"))


@dataclass(frozen=True)
class Backbone:
    """One network.

    Attributes:
        network: its function in ``keras.applications``.
        input_size: height and width that its ImageNet weights were trained at.
        smallest: the least input size that it accepts.
        preprocess: from float32 0 to 255 to what it expects.
        options: further arguments of the function.
        complete: what is to be done to it after weights of a file are loaded.
    """

    network: str
    input_size: int
    smallest: int
    preprocess: Callable[[Any], Any]
    options: dict[str, Any] = field(default_factory=dict)
    complete: Callable[[keras.Model], None] = _leave


BACKBONES: dict[str, Backbone] = {
    "VGG16": Backbone("VGG16", 224, 32, _to_centred_bgr),
    "VGG19": Backbone("VGG19", 224, 32, _to_centred_bgr),
    "ResNet50": Backbone("ResNet50", 224, 32, _to_centred_bgr),
    "DenseNet121": Backbone("DenseNet121", 224, 32, _to_imagenet_normal),
    "InceptionV3": Backbone("InceptionV3", 299, 75, _to_minus_one_one),
    "Xception": Backbone("Xception", 299, 71, _to_minus_one_one),
    "MobileNetV2": Backbone("MobileNetV2", 224, 32, _to_minus_one_one),
    "EfficientNetB0": Backbone("EfficientNetB0", 224, 32, _as_it_is, complete=_scale_stem),
    "MobileNet": Backbone("MobileNet", 224, 32, _to_minus_one_one, {"alpha": 0.75}),
}


def find_backbone(name: str) -> Backbone:
    """The table's entry of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BACKBONES:
        close = get_close_matches(name, BACKBONES, n=1)
        hint = f"did you mean {close[0]}?" if close else "mend the name."
        raise ConfigError(
            f"Unknown backbone: expected one of {', '.join(BACKBONES)}; received {name!r}; {hint}"
        )
    return BACKBONES[name]


def resolve_input_size(name: str, input_size: int | None) -> int:
    """The input size that was asked for, or the backbone's own.

    Raises:
        ConfigError: the backbone takes no images that small.
    """
    backbone = find_backbone(name)
    if input_size is not None and input_size < backbone.smallest:
        raise ConfigError(
            f"classifiers.input_size: {name} needs at least {backbone.smallest}, "
            f"received {input_size}; raise it or leave it out."
        )
    return input_size or backbone.input_size


def weights_for(name: str, weights: str | dict[str, str], key: str = "classifiers.weights") -> str:
    """The weights setting of one backbone: "imagenet", "none" or an existing path.

    Args:
        name: of the backbone.
        weights: one for all, or by backbone.
        key: of the setting, for messages.

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
            f"received {weights!r}, which is no file; mend the path."
        )
    return weights


def build_network(name: str, input_size: int, weights: str) -> keras.Model:
    """A backbone without its top.

    Raises:
        ConfigError: the weights cannot be downloaded or do not fit the network.
    """
    load_keras()  # which refuses channels_first, where another program has set it
    backbone = find_backbone(name)
    build = getattr(keras.applications, backbone.network)
    try:
        network = build(
            include_top=False,
            weights=None if weights == "none" else weights,
            input_shape=(input_size, input_size, 3),
            **backbone.options,
        )
    except Exception as error:  # Keras raises bare Exception for a failed download.
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"classifiers.weights: cannot load {weights!r} into {name}: {reason} Give a path to "
            'its weights without top, or "none" to train from scratch.'
        ) from None
    if weights not in ("imagenet", "none"):
        backbone.complete(network)
    return network
