"""The network of a CNN: enlargement, preprocessing, backbone and head in one graph."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from kerasmed.classify.backbones import build_network, find_backbone, resolve_input_size
from kerasmed.progress import ignore
from kerasmed.runtime.backend import precision_policy

# Batch normalisation of a network that is trained from scratch: with Keras's momentum of 0.99 the
# moving statistics need more steps than a small set gives.
_MOMENTUM_FROM_SCRATCH = 0.9


def build_classifier(
    backbone: str,
    num_classes: int,
    image_size: int,
    input_size: int | None,
    weights: str,
    dropout: float,
    precision: str = "float32",
    load: bool = True,
) -> keras.Model:
    """A classifier with enlargement, preprocessing and backbone in one graph.

    Args:
        backbone: a key of BACKBONES.
        num_classes: width of the last layer.
        image_size: height and width of the images of the study.
        input_size: height and width after enlargement; the backbone's own if None.
        weights: "imagenet", "none" or a path.
        dropout: fraction of features dropped before the last layer.
        precision: a Keras dtype policy.
        load: whether to load the weights. If not, the network has the same layers with random
            weights.

    Returns:
        A model from ``images`` uint8 (batch, image_size, image_size, 3) to a dict of ``features``
        float32 (batch, d), the pooled embedding, and ``logits`` float32 (batch, num_classes).
    """
    input_size = resolve_input_size(backbone, input_size)
    with precision_policy(precision):
        images = keras.Input((image_size, image_size, 3), dtype="uint8", name="images")
        x = ops.cast(images, "float32")
        if input_size != image_size:
            x = keras.layers.Resizing(
                input_size, input_size, interpolation="bilinear", dtype="float32"
            )(x)
        x = find_backbone(backbone).preprocess(x)
        network = build_network(backbone, input_size, weights if load else "none")
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                if weights == "none":
                    layer.momentum = _MOMENTUM_FROM_SCRATCH
                else:
                    # Pretrained statistics are better than those of a few hundred images. Calling
                    # the network with training=False is not enough: Keras 3.15 calls it again with
                    # the arguments of the outer model.
                    layer.trainable = False
        x = network(x)
        features = keras.layers.GlobalAveragePooling2D(name="features", dtype="float32")(x)
        x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(features)
        logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")(x)
        return keras.Model(images, {"features": features, "logits": logits}, name=backbone)


def predict_outputs(
    model: keras.Model,
    images: np.ndarray,
    batch_size: int = 32,
    advance: Callable[[float, str], None] = ignore,
) -> dict[str, np.ndarray]:
    """Features and logits of images, computed batch by batch; the last batch is padded.

    Args:
        model: what ``build_classifier`` returns.
        images: uint8 (n, image_size, image_size, 3).
        batch_size: images at a time.
        advance: called with the number of finished images, and a note.
    """
    batches: list[dict[str, np.ndarray]] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
        outputs = model.predict_on_batch(np.concatenate([batch, padding]))
        batches.append(
            {name: ops.convert_to_numpy(value)[: len(batch)] for name, value in outputs.items()}
        )
        advance(len(batch), "")
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
