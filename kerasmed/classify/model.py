"""The classifier: a Keras model from uint8 images to calibrated probabilities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from pydantic import ValidationError
from scipy.special import softmax

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.backbones import set_all_weights, weights_for
from kerasmed.classify.batches import LabelledBatches, Sources, balancing_weights, labelled_stream
from kerasmed.classify.calibration import fit_temperature, mean_cross_entropy
from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.head import fit_head
from kerasmed.classify.network import build_classifier, predict_outputs
from kerasmed.classify.optimizer import (
    ClippedAdam,
    cosine_schedule,
    freeze_lower_layers,
    synchronize_normalization,
)
from kerasmed.classify.recorder import Recorder
from kerasmed.data.arrays import check_pixels, check_size
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import endless, is_stream
from kerasmed.errors import InputError
from kerasmed.image_model import CountBatches, ImageModel, check_batch_size
from kerasmed.parallel import devices
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import progress_if
from kerasmed.random_streams import Purpose, initial_weights
from kerasmed.settings import describe_problems

_CHECKED = 33  # images that an export is checked with


@keras.saving.register_keras_serializable("kerasmed")
class ImageClassifier(ImageModel):
    """A CNN of Keras Applications for small images, with enlargement and preprocessing inside.

    It is a ``keras.Model``: ``compile``, ``fit``, ``save``, callbacks, dtype policies and
    ``jit_compile`` are Keras's own. ``fit`` first fits the last layer to pretrained features, by
    logistic regression, and then trains the whole network at a low rate. ``predict`` takes uint8
    images and gives probabilities.

    Args:
        backbone: a key of ``kerasmed.classify.backbones.BACKBONES``, such as "MobileNetV2".
        image_size: height and width of the images.
        class_names: names of the classes, sorted.
        settings: the recipe, see ``ClassifierConfig``; or a dict of its keys, such as
            ``{"weights": "none", "augment": "light"}``. Its defaults if None.
        symmetry: flips and turns that leave an image a valid image of its class: "none", "mirror"
            (left to right) or "dihedral" (all eight).
        seed: seed of new weights, the order of images, and augmentation.
        temperature: divides the logits before softmax; ``fit`` and ``calibrate`` set it.
        formats: how the files of its images are read, as in ``ImageSet.formats``. ``fit`` takes it
            from an ``ImageSet`` with real images, and ``export`` writes it into the file.
        load_weights: whether to load the settings' ``weights``.
        **kwargs: ``name`` and ``dtype``, a dtype policy such as "mixed_bfloat16".

    Raises:
        InputError: unknown settings, or fewer than two classes.
        ConfigError: an unknown backbone, an input size below its least, or weights that cannot be
            loaded.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 10)
        >>> cnn = km.ImageClassifier.from_preset(
        ...     "MobileNet", images, weights="none", input_size=32, augment="none"
        ... )
        >>> cnn.compile()
        >>> history = cnn.fit(images, validation_data=images, epochs=1, verbose=0)
        >>> cnn.predict(images.images[:3]).shape
        (3, 2)
        >>> cnn.save("cnn.keras")
        >>> loaded = km.load_model("cnn.keras")
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        class_names: Sequence[str],
        settings: ClassifierConfig | dict[str, Any] | None = None,
        symmetry: str = "none",
        seed: int = 0,
        temperature: float = 1.0,
        formats: dict[str, Any] | None = None,
        load_weights: bool = True,
        **kwargs: Any,
    ):
        super().__init__(image_size, class_names, symmetry, seed, **kwargs)
        if len(self.class_names) < 2:
            raise InputError(
                "class_names: expected two classes or more, received "
                f"{list(self.class_names)}; a classifier has nothing to tell apart."
            )
        self.backbone = backbone
        self.settings = _settings_for(backbone, settings)
        self.temperature = temperature
        self.formats = dict(formats or {})
        self.is_trained = False
        self.weights_name = str(self.settings.weights)
        if load_weights:
            self.weights_name = weights_for(backbone, self.settings.weights)

        def build(precision: str, load: bool) -> keras.Model:
            return build_classifier(
                backbone, len(self.class_names), image_size, self.settings.input_size,
                self.weights_name, self.settings.dropout, precision, load,
            )  # fmt: skip

        with initial_weights(seed, Purpose.CLASSIFIER_WEIGHTS):
            self.network = build(self.dtype_policy.name, load_weights)
        # Predicts where the network computes in another precision, or on several devices. It is no
        # layer of this model, so no strategy copies it.
        self._copy = _Copy()
        if self.dtype_policy.name != "float32" or devices.is_distributed():
            self._copy.network = devices.outside_strategies(lambda: build("float32", False))
        self._examples: np.ndarray | None = None
        self._frozen: set[str] = set()  # layers, by `compile`
        self.built = True

    @classmethod
    def from_preset(
        cls,
        backbone: str,
        images: ImageSet,
        symmetry: str = "none",
        seed: int = 0,
        dtype: Any = None,
        **settings: Any,
    ) -> "ImageClassifier":
        """A classifier for these images, with pretrained weights.

        Args:
            backbone: a key of ``BACKBONES``.
            images: what it will learn from; gives size, classes and formats.
            symmetry, seed, dtype: see the class.
            **settings: keys of ``ClassifierConfig``, such as ``weights``: "imagenet", "none" or a
                file of the backbone's weights.

        Raises:
            InputError: an unknown setting.
            ConfigError: as for the class.
        """
        return cls(
            backbone, images.image_size, images.class_names, settings, symmetry, seed,
            formats=images.formats, dtype=dtype,
        )  # fmt: skip

    def call(self, inputs, training=False):
        """The logits (batch, classes) of uint8 images (batch, size, size, 3)."""
        return self.network(inputs, training=training)["logits"]

    def compile(
        self,
        optimizer: Any = None,
        loss: Any = None,
        weighted_metrics: Any = ("accuracy",),
        **kwargs: Any,
    ) -> None:
        """Choose optimiser and loss; see ``keras.Model.compile``.

        Args:
            optimizer: if None, Adam whose rate rises and then falls by a cosine over each ``fit``.
            loss: of one-hot labels and logits; cross-entropy if None.
            weighted_metrics: as for Keras, like ``**kwargs``.
        """
        settings = self.settings
        self._frozen = freeze_lower_layers(self.network, settings.finetune_fraction, self._frozen)
        synchronize_normalization(self.network)
        if optimizer is None:
            rate = cosine_schedule(settings.finetune_learning_rate, 1)
            optimizer = ClippedAdam(learning_rate=rate, global_clipnorm=1.0)
        if loss is None:
            loss = keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=settings.label_smoothing
            )
        # Keras 3.15 would make a metric that it is given by name within the first step, and
        # TensorFlow then traces that step twice.
        metrics = [
            keras.metrics.CategoricalAccuracy(metric) if metric == "accuracy" else metric
            for metric in weighted_metrics or ()
        ]
        super().compile(optimizer, loss, weighted_metrics=metrics, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_data: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        head: bool | None = None,
        synthetic: ImageSet | None = None,
    ) -> keras.callbacks.History:
        """Train on images and labels; see ``keras.Model.fit``.

        With ``validation_data`` it keeps the weights with the lowest calibrated loss on them, stops
        early in the second half, and calibrates the temperature. Where training made a trained
        model worse beyond chance, it keeps the weights from before. Without, the temperature is 1.

        Args:
            x: an ``ImageSet``; an array uint8 (n, size, size, 3) with ``y``; or a
                ``tf.data.Dataset``, ``PyDataset`` or other iterable of batches (images, labels),
                whose classes all count alike.
            y: labels of an array: names of classes, or their numbers.
            batch_size, epochs: those of the settings if None.
            verbose, callbacks, initial_epoch, steps_per_epoch: as for Keras.
            validation_data: images like ``x``, or a pair of arrays.
            head: whether to fit the last layer first, see ``fit_head``. If None, pretrained weights
                get it once.
            synthetic: images that are shown among those of ``x``, by the settings
                ``synthetic_fraction`` and ``synthetic_weight``.

        Raises:
            InputError: the model is not compiled; images of another size or dtype; labels out of
                range; a stream of unknown length without ``steps_per_epoch``.
            StageError: a loss that is not finite.
        """
        self._check_compiled("fit")
        self._take_formats(x)
        epochs = self.settings.finetune_epochs if epochs is None else epochs
        real, sources = (x, y), None
        if synthetic is not None:
            (x, sources), y = self._together(x, y, synthetic), None
        images, steps_per_epoch = self._training_set(x, y, batch_size, steps_per_epoch)
        validation = self._validation_set(validation_data)
        if head or (head is None and self.weights_name != "none" and not self.is_trained):
            if sources is None:
                real = self._image_set(images, batches=steps_per_epoch), None
            self._fit_head(*real, validation, synthetic)
        if not initial_epoch:
            self._restart_optimizer(steps_per_epoch * epochs)
        callbacks = list(callbacks or ())
        if validation is not None and not any(isinstance(c, Recorder) for c in callbacks):
            callbacks = [Recorder(validation, self.settings, epochs), *callbacks]
        history = devices.fit(
            self,
            self._batches(images, batch_size or self.settings.batch_size, sources),
            [_CountBatches(steps_per_epoch), *callbacks],
            steps_per_epoch,
            initial_epoch,
            epochs,
            verbose,
        )
        if validation is not None:
            self.calibrate(validation)
        elif history.epoch:
            self.temperature = 1.0
        return history

    def fit_head(
        self,
        x: Any,
        y: Any = None,
        validation_data: Any = None,
        synthetic: ImageSet | None = None,
    ) -> dict[str, Any]:
        """Fit the last layer by logistic regression on the features of the network as it is.

        Args:
            x, y, validation_data, synthetic: as for ``fit``.

        Returns:
            Loss and accuracy, also on the validation images if there are any.

        Raises:
            InputError: the weights are random; otherwise as for ``fit``.
        """
        self._take_formats(x)
        return self._fit_head(x, y, self._validation_set(validation_data), synthetic)

    def _fit_head(
        self, x: Any, y: Any, validation: ImageSet | None, synthetic: ImageSet | None
    ) -> dict[str, Any]:
        if self.weights_name == "none" and not self.is_trained:
            raise InputError(
                "fit_head: expected pretrained weights, received random ones, whose features say "
                'nothing; give `weights` a file or "imagenet", or call `fit` first.'
            )
        images, sources = self._image_set(x, y), None
        if synthetic is not None:
            images, sources = self._together(images, None, synthetic)
        row = devices.outside_strategies(
            lambda: fit_head(self.inference_network(), images, validation, self.settings, sources)
        )
        if self._copy.network is not None:
            head = self._copy.network.get_layer("logits").get_weights()
            self.network.get_layer("logits").set_weights(head)
        self.is_trained = True
        return row

    def calibrate(self, x: Any, y: Any = None) -> float:
        """Set the temperature that suits these images (Guo et al., arXiv:1706.04599), return it."""
        images = self._image_set(x, y)
        self.temperature = fit_temperature(self.outputs(images.images)["logits"], images.labels)
        return self.temperature

    def predict(self, x: Any, batch_size: int = 32, verbose: str | int = 0) -> np.ndarray:
        """Probability of each class for each image.

        Args:
            x: uint8 (batch, size, size, 3), 0 to 255; or an ``ImageSet``.
            batch_size: images at a time.
            verbose: 0 shows no progress.

        Returns:
            float32 (batch, classes), calibrated, rows summing to 1.

        Raises:
            InputError: no images; another size or dtype.
        """
        logits = self._shown_outputs("Predicting", self._pixels(x), batch_size, verbose)["logits"]
        return softmax(logits / np.float32(self.temperature), axis=1)

    def features(self, x: Any, batch_size: int = 32) -> np.ndarray:
        """The pooled features of images, float32 (batch, d); arguments as for ``predict``."""
        return self.outputs(self._pixels(x), batch_size)["features"]

    def evaluate(self, x: Any, y: Any = None, verbose: str | int = 0) -> dict[str, float]:
        """Cross-entropy of the calibrated probabilities (``loss``), and ``accuracy``.

        Args:
            x, y: as for ``fit``.
            verbose: 0 shows no progress.
        """
        images = self._image_set(x, y)
        logits = self._shown_outputs("Evaluating", images.images, 32, verbose)["logits"]
        return {
            "loss": mean_cross_entropy(logits / self.temperature, images.labels),
            "accuracy": float((logits.argmax(axis=1) == images.labels).mean()),
        }

    def export(
        self, filepath: str | Path, images: np.ndarray | None = None, **metadata: Any
    ) -> dict[str, Any]:
        """Write a self-contained ONNX file, checked against Keras; ``OnnxClassifier`` runs it.

        Args:
            filepath: path of the file, such as "cnn.onnx". The sidecar "cnn.json" comes with it.
            images: uint8 images to check it with. If None, some of the last ``fit``; of a loaded
                model noise.
            **metadata: further metadata of the file.

        Returns:
            The sidecar: metadata, greatest differences from Keras, SHA-256.

        Raises:
            MachineError: Keras runs on another backend than TensorFlow.
            ModelFileError: onnxruntime and Keras disagree.
        """
        self._check_exports()
        from kerasmed.export.classifiers import export_classifier, spread
        from kerasmed.export.verify import noise_images

        if images is None:
            images = self._examples
        if images is None:
            images = noise_images(self.image_size)
        own = {
            "class_names": list(self.class_names),
            "backbone": self.backbone,
            "weights": Path(self.weights_name).name,
            "formats": dict(self.formats),
        }
        network, path = self.inference_network(), Path(filepath)
        checked = spread(self._pixels(images))
        return export_classifier(network, self.temperature, {**own, **metadata}, checked, path)

    def inference_network(self) -> keras.Model:
        """The float32 network from uint8 images to ``features`` and ``logits``, on one device."""
        if self._copy.network is None:
            return self.network
        set_all_weights(self._copy.network, self.network.get_weights())
        return self._copy.network

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set what ``get_weights`` of a classifier with the same backbone returned.

        Raises:
            InputError: the weights of another backbone or number of classes.
        """
        self._check_shapes(weights, [tuple(weight.shape) for weight in self.weights])
        set_all_weights(self, weights)

    def save_own_variables(self, store: Any) -> None:
        """What Keras does not save: the temperature, and the state of the training."""
        super().save_own_variables(store)
        store["calibration"] = np.array([self.is_trained, self.temperature])

    def load_own_variables(self, store: Any) -> None:
        """Restore what ``save_own_variables`` stored."""
        super().load_own_variables(store)
        is_trained, self.temperature = np.array(store["calibration"]).tolist()
        self.is_trained = bool(is_trained)

    def get_config(self) -> dict[str, Any]:
        """Everything that builds the same model, without its weights."""
        return {
            **super().get_config(),
            "backbone": self.backbone,
            "settings": self.settings.model_dump(),
            "temperature": self.temperature,
            "formats": dict(self.formats),
        }

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> "ImageClassifier":
        return cls(**config, load_weights=False)

    def outputs(self, x: np.ndarray, batch_size: int = 32) -> dict[str, np.ndarray]:
        """``features`` and ``logits`` of uint8 images, float32; arguments as for ``predict``."""
        return self._shown_outputs("Predicting", x, batch_size, verbose=0)

    def _shown_outputs(
        self, title: str, x: np.ndarray, batch_size: int, verbose: str | int
    ) -> dict[str, np.ndarray]:
        check_batch_size(batch_size)
        network = self.inference_network()
        with progress_if(verbose, title, len(x), "images") as advance:
            return devices.outside_strategies(
                lambda: predict_outputs(network, x, batch_size, advance)
            )

    def uncompiled(self) -> "ImageClassifier":
        """A copy in float32 without the optimiser, as a study saves it."""
        copy = super().uncompiled()
        copy.is_trained = self.is_trained
        return copy

    def _take_formats(self, x: Any) -> None:
        """Keep how real images were read; drawn ones say nothing about it."""
        if isinstance(x, ImageSet) and not x.is_synthetic.all():
            self.formats = dict(x.formats)

    def _pixels(self, x: Any) -> np.ndarray:
        return check_size(x.images if isinstance(x, ImageSet) else check_pixels(x), self.image_size)

    def _restart_optimizer(self, steps: int) -> None:
        """Begin the default optimiser anew, its rate falling over so many steps."""
        optimizer = self.inner_optimizer()
        if not isinstance(optimizer, ClippedAdam):
            return
        rate = self.settings.finetune_learning_rate
        optimizer.learning_rate = cosine_schedule(rate, max(1, steps))
        for variable in optimizer.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))
        self.train_function = None  # the former one computes with the former rates

    def _together(self, x: Any, y: Any, synthetic: ImageSet) -> tuple[ImageSet, Sources]:
        """Real images and synthetic ones as one set, and how both are shown."""
        if is_stream(x):
            raise InputError(
                "fit: expected an ImageSet or arrays to go with `synthetic`, received a stream; "
                "mix both in the stream."
            )
        real, drawn = self._image_set(x, y), self._image_set(synthetic)
        settings = self.settings
        shown = settings.synthetic_fraction, settings.synthetic_weight
        return real + drawn, Sources(len(real), len(drawn), *shown)

    def _batches(self, x: Any, batch_size: int, sources: Sources | None = None) -> Any:
        """What Keras trains on: augmented images, one-hot labels, weights; of a set or a stream."""
        settings, augment = self.settings, make_augmenter(self.settings.augment)
        common = self.symmetry, augment, settings.mixing
        if not isinstance(x, ImageSet):
            pairs = endless(x, self.image_size, self.class_names)
            weights = np.ones(len(self.class_names))
            return labelled_stream(pairs, *common, weights, self.seed, self.batches_seen)
        rows = np.linspace(0, len(x) - 1, min(_CHECKED, len(x))).astype(int)
        self._examples = np.asarray(x.images[rows])
        sources = sources or Sources(len(x))
        weights = balancing_weights(x.targets, settings.class_weights, sources.shown())
        worker = this_worker()
        shard = worker.index, len(worker.addresses)
        return LabelledBatches(
            x, batch_size, *common, weights, self.seed, self.batches_seen, shard, sources
        )


class _Copy:
    """Holds a copy of a classifier's network for predictions, if it needs one."""

    network: keras.Model | None = None


class _CountBatches(CountBatches):
    """Also says that the model is trained."""

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.model.is_trained = True


def _settings_for(
    backbone: str, settings: ClassifierConfig | dict[str, Any] | None
) -> ClassifierConfig:
    if not isinstance(settings, ClassifierConfig):
        try:
            settings = ClassifierConfig(**{**(settings or {}), "backbones": [backbone]})
        except ValidationError as error:
            raise InputError(f"Classifier: {describe_problems(error)}") from None
    return settings.of_backbone(backbone)
