"""A CNN and its training: head on frozen features, then the whole network at a lower rate."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.backbones import (
    build_network,
    find_backbone,
    resolve_input_size,
    weights_for,
)
from kerasmed.classify.mixing import mix
from kerasmed.config import ClassifierConfig, Mixing
from kerasmed.data.image_set import ImageSet
from kerasmed.data.order import EpochOrder
from kerasmed.data.symmetry import transform_at_random
from kerasmed.evaluate.probe import fit_probe
from kerasmed.files import write_text, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runtime import Runtime, precision_policy

# Batch normalisation of a network that starts from nothing: Keras's momentum of 0.99 needs more
# steps than a small set gives before the moving statistics mean anything.
_MOMENTUM_FROM_SCRATCH = 0.9


@dataclass(frozen=True)
class Classifier:
    """A trained network with what its exported file needs to know.

    Attributes:
        model: from uint8 images (batch, size, size, 3) to ``features`` and ``logits``.
        temperature: what the logits are divided by before softmax.
    """

    model: keras.Model
    temperature: float


def build_classifier(
    backbone: str,
    num_classes: int,
    image_size: int,
    input_size: int | None,
    weights: str,
    dropout: float,
    precision: str = "float32",
) -> keras.Model:
    """A classifier with enlargement, preprocessing and backbone in one graph.

    Args:
        backbone: a key of BACKBONES.
        num_classes: width of the last layer.
        image_size: height and width of the images of the study.
        input_size: what they are enlarged to; the backbone's own if None.
        weights: "imagenet", "none" or a path.
        dropout: share of features dropped before the last layer.
        precision: a Keras dtype policy.

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
        network = build_network(backbone, input_size, weights)
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                if weights == "none":
                    layer.momentum = _MOMENTUM_FROM_SCRATCH
                else:
                    # Pretrained statistics hold better than those of a few hundred images. Calling
                    # the network with training=False is not enough: Keras 3.15 calls it again with
                    # what the outer model is called with.
                    layer.trainable = False
        x = network(x)
        features = keras.layers.GlobalAveragePooling2D(name="features", dtype="float32")(x)
        x = keras.layers.Dropout(dropout, name="dropout", dtype="float32")(features)
        logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")(x)
        return keras.Model(images, {"features": features, "logits": logits}, name=backbone)


class LabelledBatches(keras.utils.PyDataset):
    """An endless sequence of augmented batches; batch ``i`` shows samples of EpochOrder."""

    def __init__(
        self,
        image_set: ImageSet,
        batch_size: int,
        symmetry: str,
        augment: Callable[[np.ndarray], np.ndarray],
        mixing: Mixing,
        class_weights: np.ndarray,
        seed: int,
    ):
        super().__init__()
        self.image_set = image_set
        self.batch_size = batch_size
        self.symmetry = symmetry
        self.augment = augment
        self.mixing = mixing
        self.class_weights = class_weights
        self.seed = seed
        self._order = EpochOrder(len(image_set), seed)

    @property
    def num_batches(self) -> None:
        """Endless."""
        return None

    def __getitem__(self, index: int):
        images, labels = [], []
        for sample in range(index * self.batch_size, (index + 1) * self.batch_size):
            epoch, position = self._order(sample)
            rng = np.random.default_rng([self.seed, epoch, position])
            image = self.image_set.images[position]
            images.append(transform_at_random(image, self.symmetry, rng))
            labels.append(self.image_set.labels[position])
        one_hot = np.eye(len(self.class_weights), dtype=np.float32)[labels]
        rng = np.random.default_rng([self.seed, index])
        mixed, shares = mix(self.augment(np.stack(images)), one_hot, self.mixing, rng)
        return mixed, shares, (shares @ self.class_weights).astype(np.float32)


def balancing_weights(labels: np.ndarray, num_classes: int, enabled: bool = True) -> np.ndarray:
    """Weight of each class, inverse to its frequency, averaging 1 over the images."""
    if not enabled:
        return np.ones(num_classes)
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    return len(labels) / (num_classes * counts)


def train_classifier(
    backbone: str,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    symmetry: str,
    seed: int,
    runtime: Runtime,
    folder: Path,
    images_per_epoch: int | None = None,
) -> tuple[Classifier, dict[str, Any]]:
    """Train one CNN, and leave ``model.keras`` (float32) and ``history.csv`` in the folder.

    With pretrained weights the head is first fitted by logistic regression on frozen features,
    computed once; then everything, or the upper part, is trained at a low rate that warms up. From
    scratch there is only the second phase. It stops early on the loss over the validation images
    and keeps its best weights, which may be those that it started from. The temperature is fitted
    on the same images (Guo et al., arXiv:1706.04599).

    Args:
        backbone: a key of BACKBONES.
        train: images to learn from.
        validation: images that stop the training and set the temperature.
        settings: the recipe.
        symmetry: flips and turns to draw from, see ``data.symmetry``.
        seed: of weights, order and augmentation.
        runtime: precision and XLA, resolved.
        folder: the CNN's.
        images_per_epoch: that the second phase shows in an epoch; each once if None.

    Returns:
        The classifier, in float32, and what really ran.
    """
    keras.utils.set_random_seed(seed)
    started = time.monotonic()
    num_classes = len(train.class_names)
    weights = weights_for(backbone, settings.weights)
    arguments = (
        backbone, num_classes, train.image_size, settings.input_size, weights, settings.dropout,
    )  # fmt: skip
    model = build_classifier(*arguments, precision=runtime.precision)
    class_weights = balancing_weights(train.labels, num_classes, settings.class_weights)
    title = f"Training {backbone}"
    rows: list[dict[str, Any]] = []
    ran: dict[str, Any] = {"kept": "head", "jit_compile": False}
    if weights != "none":
        rows.append(_fit_head(model, train, validation, settings, class_weights))
    batches = LabelledBatches(
        train,
        settings.batch_size,
        symmetry,
        make_augmenter(settings.augment, seed),
        settings.mixing,
        class_weights,
        seed,
    )
    if settings.finetune_epochs:
        found, ran = _fine_tune(
            model,
            batches,
            validation,
            settings,
            runtime,
            title,
            weights != "none",
            images_per_epoch or len(train),
        )
        rows += found
    plain = build_classifier(*arguments[:4], "none", settings.dropout)
    plain.set_weights(model.get_weights())
    logits = predict_outputs(plain, validation.images)["logits"]
    classifier = Classifier(plain, fit_temperature(logits, validation.labels))
    with written_aside(folder / "model.keras") as temporary:
        plain.save(temporary)
    header = list(rows[0])
    lines = [",".join(header)] + [",".join(str(row[key]) for key in header) for row in rows]
    write_text(folder / "history.csv", "\n".join(lines) + "\n")
    return classifier, {
        "precision": model.dtype_policy.name,
        **ran,
        "parameters": plain.count_params(),
        "n_train": len(train),
        "n_validation": len(validation),
        "validation_accuracy": float((logits.argmax(axis=1) == validation.labels).mean()),
        "temperature": classifier.temperature,
        "weights": Path(weights).name,
        "minutes": round((time.monotonic() - started) / 60, 3),
    }


def predict_outputs(
    model: keras.Model, images: np.ndarray, batch_size: int = 32
) -> dict[str, np.ndarray]:
    """Features and logits of images, batch after batch, the last one padded."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padding = np.zeros((batch_size - len(batch), *batch.shape[1:]), batch.dtype)
        outputs = model.predict_on_batch(np.concatenate([batch, padding]))
        parts.append({k: ops.convert_to_numpy(v)[: len(batch)] for k, v in outputs.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood of labels (n,) under logits (n, classes)."""
    return float((logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, from 0.05 to 20, that makes the labels likeliest.

    The labels count as a little uncertain, by one image more of every class (Platt 1999): where
    all images are classified rightly, the least temperature would otherwise be the best.

    Args:
        logits: float (n, classes).
        labels: int (n,).
    """
    images, classes = logits.shape
    uncertain = classes / (images + classes)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        of_any_class = float((logsumexp(scaled, axis=1) - scaled.mean(axis=1)).mean())
        return (1 - uncertain) * mean_cross_entropy(scaled, labels) + uncertain * of_any_class

    bounds = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _fit_head(
    model: keras.Model,
    train: ImageSet,
    validation: ImageSet,
    settings: ClassifierConfig,
    class_weights: np.ndarray,
) -> dict[str, Any]:
    """Fit the last layer by logistic regression on features computed once; a row of history."""
    features = predict_outputs(model, train.images)["features"]
    probe = fit_probe(
        features,
        train.labels,
        len(class_weights),
        class_weights[train.labels],
        settings.head_inverse_regularisation,
    )
    model.get_layer("logits").set_weights([probe.kernel, probe.bias])
    row: dict[str, Any] = {"phase": "head", "epoch": 1}
    held_out = predict_outputs(model, validation.images)["features"]
    for prefix, inputs, labels in (
        ("", features, train.labels),
        ("val_", held_out, validation.labels),
    ):
        logits = probe.logits(inputs)
        row[f"{prefix}loss"] = round(mean_cross_entropy(logits, labels), 5)
        row[f"{prefix}accuracy"] = round(float((logits.argmax(axis=1) == labels).mean()), 5)
    return row


def freeze_lower_layers(model: keras.Model, trained_share: float) -> None:
    """Leave only that share of the backbone's layers trainable, counted from its output down."""
    layers = next(each for each in model.layers if isinstance(each, keras.Model)).layers
    for layer in layers[: round(len(layers) * (1 - trained_share))]:
        layer.trainable = False


def _fine_tune(
    model: keras.Model,
    batches: LabelledBatches,
    validation: ImageSet,
    settings: ClassifierConfig,
    runtime: Runtime,
    title: str,
    starts_from_head: bool,
    images_per_epoch: int,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train the layers down to ``finetune_share`` by a rate that warms up and falls along a cosine.

    Returns:
        Its rows of history, and what ran: among it which phase's weights were ``kept``.
    """
    freeze_lower_layers(model, settings.finetune_share)
    steps = max(1, -(-images_per_epoch // settings.batch_size))
    total = steps * settings.finetune_epochs
    # Keras scales the loss where this outer model's policy is mixed_float16.
    with precision_policy(runtime.precision):
        trained = keras.Model(model.input, model.output["logits"])
    trained.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                initial_learning_rate=0.0,
                warmup_target=settings.finetune_learning_rate,
                warmup_steps=max(1, total // 20),
                decay_steps=total,
            ),
            global_clipnorm=1.0,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=settings.label_smoothing
        ),
        weighted_metrics=["accuracy"],
        jit_compile=runtime.jit_compile,
    )
    one_hot = np.eye(len(batches.class_weights), dtype=np.float32)
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=settings.patience, restore_best_weights=True
    )
    before = trained.get_weights()
    held_out = (validation.images, one_hot[validation.labels])
    # The head's weights are a candidate too; random ones are not.
    loss_before = np.inf
    if starts_from_head:
        loss_before = trained.evaluate(*held_out, batch_size=32, verbose=0)[0]
    with progress_bar(title, total, "steps") as advance:
        pace = _Pace(advance)
        history = trained.fit(
            batches,
            steps_per_epoch=steps,
            epochs=settings.finetune_epochs,
            validation_data=held_out,
            validation_batch_size=32,
            callbacks=[stopping, pace],
            shuffle=False,
            verbose=0,
        )
    improved = bool(np.nanmin([*history.history["val_loss"], np.inf]) <= loss_before)
    if not improved:
        trained.set_weights(before)
    ran = {
        "kept": "finetune" if improved else "head",
        "jit_compile": bool(trained.jit_compile),
        "steps": len(pace.seconds),
        "images_per_s": round(settings.batch_size / float(np.median(pace.seconds)), 1),
    }
    say(
        f"{ran['images_per_s']} images/s, {model.dtype_policy.name}, XLA "
        f"{'on' if ran['jit_compile'] else 'off'}; kept what the phase {ran['kept']!r} left."
    )
    return _rows("finetune", history), ran


class _Pace(keras.callbacks.Callback):
    """Moves a progress bar on, a step at a time, and notes how long each took."""

    def __init__(self, advance: Callable[[int, str], None]):
        super().__init__()
        self._advance = advance
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)
        self._advance(1, "")

    def on_epoch_end(self, epoch, logs=None):
        self._advance(0, f"validation loss {logs['val_loss']:.4f}")


def _rows(phase: str, history: keras.callbacks.History) -> list[dict[str, Any]]:
    columns = ("loss", "accuracy", "val_loss", "val_accuracy")
    epochs = range(len(history.history["loss"]))
    return [
        {
            "phase": phase,
            "epoch": epoch + 1,
            **{key: round(float(history.history[key][epoch]), 5) for key in columns},
        }
        for epoch in epochs
    ]
