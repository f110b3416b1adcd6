"""The diffusion model: a Keras model that learns to remove noise and then draws images."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from pydantic import ValidationError

from kerasmed import __version__
from kerasmed.data.arrays import check_labels, check_pixels
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import (
    as_image_set,
    endless,
    is_stream,
    sorted_names,
    stream_length,
)
from kerasmed.diffusion.averaged import AveragedDenoiser
from kerasmed.diffusion.batches import Batch, NoisyBatches, noisy_stream, validation_batch
from kerasmed.diffusion.checkpoints import Checkpoints
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.generate import generate_images
from kerasmed.diffusion.optimizer import EmaAdamW
from kerasmed.diffusion.presets import PRESETS
from kerasmed.diffusion.solvers import DEFAULT_STEPS, SOLVERS, sampling_timesteps
from kerasmed.diffusion.unet import AUGMENTATION_LAYER, build_denoiser
from kerasmed.diffusion.validation import Validation, validation_losses
from kerasmed.errors import InputError, MachineError, ModelFileError
from kerasmed.fingerprint import Fingerprint
from kerasmed.inference.pixels import PixelRange
from kerasmed.parallel import devices
from kerasmed.parallel.workers import check_agreed, this_worker
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, initial_weights
from kerasmed.runtime.backend import list_gpus, load_keras, load_saved_model, precision_policy
from kerasmed.runtime.hardware import cpu_cores
from kerasmed.settings import describe_problems

SYMMETRIES = ("none", "mirror", "dihedral")


@keras.saving.register_keras_serializable("kerasmed")
class DiffusionModel(keras.Model):
    """A class-conditional diffusion model of small images.

    It is a ``keras.Model``: ``compile``, ``fit``, ``save``, callbacks, dtype policies and
    ``jit_compile`` are Keras's own. It learns from uint8 images; noise and augmentation are drawn
    by ``fit``. ``sample``, ``evaluate`` and ``export`` use the moving average of the weights.

    Args:
        image_size: height and width of the images.
        class_names: names of the classes, sorted.
        settings: network and recipe, see ``DiffusionConfig``; a dict of its keys, such as
            ``{"preset": "small", "augment": 0.0}``. The preset ``cpu`` if None.
        symmetry: flips and turns that leave an image a valid image of its class: "none", "mirror"
            (left to right) or "dihedral" (all eight).
        seed: seed of the weights, the order of images, and all noise.
        pixels: mean of each channel and scale of the images, as ``adapt`` finds them.
        **kwargs: ``name`` and ``dtype``, a dtype policy such as "mixed_bfloat16".

    Raises:
        InputError: unknown settings, or an image size that the network cannot halve.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 10)
        >>> ddpm = km.DiffusionModel.from_preset("cpu", images, widths=[8], batch_size=4)
        >>> ddpm.compile()
        >>> history = ddpm.fit(images, validation_data=images, epochs=2, verbose=0)
        >>> sorted(history.history)[:2], len(history.history["loss"])
        (['loss', 'val_loss'], 2)
        >>> ddpm.sample(per_class=3, steps=2, verbose=0)
        ImageSet(6 images of 16 x 16 pixels: benign 3, malignant 3)
        >>> ddpm.save("ddpm.keras")
        >>> loaded = km.load_model("ddpm.keras")
    """

    def __init__(
        self,
        image_size: int,
        class_names: Sequence[str],
        settings: DiffusionConfig | dict[str, Any] | None = None,
        symmetry: str = "none",
        seed: int = 0,
        pixels: PixelRange | dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        load_keras()
        super().__init__(autocast=False, **kwargs)  # the network casts for itself
        self.image_size = image_size
        self.class_names = sorted_names(class_names)
        self.settings = _settings_for(image_size, settings)
        if symmetry not in SYMMETRIES:
            raise InputError(
                f"symmetry: expected one of {', '.join(SYMMETRIES)}, received {symmetry!r}."
            )
        self.symmetry = symmetry
        self.seed = seed
        if isinstance(pixels, dict):
            pixels = PixelRange(tuple(pixels["mean"]), pixels["scale"])
        self.pixels = pixels
        shape = image_size, len(self.class_names), self.settings
        with (
            precision_policy(self.dtype_policy.name),
            initial_weights(seed, Purpose.DENOISER_WEIGHTS),
        ):
            self.network = build_denoiser(*shape, augmented=self.settings.augment > 0)
            self._averaged = AveragedDenoiser(*shape)
        self.batches_seen = 0
        self.built = True

    @classmethod
    def from_preset(
        cls,
        preset: str,
        images: ImageSet,
        symmetry: str = "none",
        seed: int = 0,
        dtype: Any = None,
        **settings: Any,
    ) -> "DiffusionModel":
        """An untrained model for these images.

        Args:
            preset: "cpu" (4.6 million weights), "small" (16), "base" (53) or "large" (122).
            images: what it will learn from; gives size, classes and pixel range.
            symmetry, seed, dtype: see the class.
            **settings: keys of ``DiffusionConfig`` that override the preset.

        Raises:
            InputError: an unknown preset or setting, or images of a size that does not fit.
        """
        if preset not in PRESETS:
            raise InputError(f"Preset: expected one of {', '.join(PRESETS)}, received {preset!r}.")
        model = cls(
            images.image_size, images.class_names, {"preset": preset, **settings}, symmetry, seed,
            dtype=dtype,
        )  # fmt: skip
        model.adapt(images)
        return model

    def adapt(self, images: ImageSet | np.ndarray) -> None:
        """Set the pixel range that suits these images, as a preprocessing layer of Keras does.

        Args:
            images: an ``ImageSet``, or uint8 (n, size, size, 3).
        """
        pixels = images.images if isinstance(images, ImageSet) else check_pixels(images)
        self.pixels = PixelRange.of(pixels)

    def call(self, inputs, training=False):
        """Clean images (batch, height, width, 3) from a dict of noisy images, timesteps and labels.

        All are in the network's units; these are the weights themselves, not their average.
        """
        return self.network(inputs, training=training)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """Choose optimiser and loss; see ``keras.Model.compile``.

        Args:
            optimizer: AdamW with warm-up and a moving average of the weights if None. Of another
                one ``sample`` uses the weights themselves. (An average that Keras keeps by
                ``use_ema`` replaces the weights when ``fit`` ends.)
            loss: squared error if None. It compares clean and predicted images in the network's
                units; ``fit`` weights each image by its timestep (min-SNR, arXiv:2303.09556).
            **kwargs: as for ``keras.Model.compile``.
        """
        settings = self.settings
        if optimizer is None:
            optimizer = EmaAdamW(
                ema_decay=settings.ema_decay,
                warmup_steps=settings.warmup_steps,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                global_clipnorm=settings.clip_norm,
            )
        loss = keras.losses.MeanSquaredError() if loss is None else loss
        super().compile(optimizer, loss, **kwargs)
        self.optimizer.build(self.trainable_variables)
        self._averaged.network.jit_compile = self.jit_compile  # otherwise `predict` would choose
        if self._averaged.iterations is not None:
            self._averaged.iterations = 0  # of this optimiser

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was compiled; Keras calls this."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_data: Any = None,
        validation_freq: int | list[int] = 1,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
    ) -> keras.callbacks.History:
        """Train on images and labels; see ``keras.Model.fit``.

        What is drawn for a step depends on the seed and on how many steps were trained before. So a
        training in several calls, or of a model that was saved and loaded in between, equals one
        call; over a stream only if the stream repeats itself.

        Args:
            x: an ``ImageSet``; an array uint8 (n, size, size, 3) with ``y``; or a
                ``tf.data.Dataset``, ``PyDataset`` or other iterable of batches (images, labels).
            y: labels of an array: names of classes, or their numbers.
            batch_size: images in a step; that of the settings if None.
            epochs, verbose, initial_epoch, steps_per_epoch: as for Keras. An epoch shows each image
                once on average.
            callbacks: of Keras or of ``kerasmed.callbacks``.
            validation_data: images like ``x``, or a pair of arrays. The average of the weights is
                validated on up to 256 of them.
            validation_freq: epochs between validations, or a list of epochs.

        Raises:
            InputError: the model is not compiled or adapted; images of another size or dtype;
                labels out of range; a stream of unknown length without ``steps_per_epoch``.
            StageError: ``Checkpoints`` of another model, recipe or image set.
        """
        self._check_ready("fit")
        settings = self.settings
        if batch_size is not None:
            settings = settings.model_copy(update={"batch_size": batch_size})
        images = None if is_stream(x) else self._image_set(x, y)
        if steps_per_epoch is None:
            steps_per_epoch = (
                stream_length(x) if images is None else math.ceil(len(images) / settings.batch_size)
            )
        validation = None if validation_data is None else self._validation_set(validation_data)
        recipe = self._recipe(settings, steps_per_epoch, images, validation)
        check_agreed(recipe)
        self.stop_training = False
        for checkpoints in callbacks:
            if isinstance(checkpoints, Checkpoints):
                self.batches_seen = checkpoints.resume(self, recipe)
                initial_epoch = self.batches_seen // steps_per_epoch
        own: list[keras.callbacks.Callback] = [_CountBatches(steps_per_epoch)]
        if validation is not None:
            own.append(Validation(self._validation_batch(validation), validation_freq))
        return devices.fit(
            self,
            self._batches(x if images is None else images, settings),
            [*own, *callbacks],
            steps_per_epoch,
            initial_epoch,
            initial_epoch if self.stop_training else epochs,  # resumed at its end
            verbose,
        )

    def evaluate(self, x: Any, y: Any = None) -> dict[str, float]:
        """The weighted loss of the averaged weights, at the same noise every time.

        Args:
            x, y: as for ``validation_data`` of ``fit``; at most 256 images count.

        Returns:
            ``loss``, and by quarters of the timesteps ``loss_t0_249`` (little noise) to
            ``loss_t750_999``.

        Raises:
            InputError: as for ``fit``; or the model has not been trained.
        """
        self._check_ready("evaluate")
        images = self._validation_set(x if y is None else (x, y))
        self._check_trained("evaluate")
        return self.validation_losses(self._validation_batch(images))

    def validation_losses(self, batch: Batch) -> dict[str, float]:
        """As ``evaluate``, on a batch of noisy images; see ``diffusion.batches``."""
        with devices.on_one_device():
            loss = keras.losses.get(self.loss)
            return validation_losses(self.denoiser, batch, getattr(loss, "call", loss))

    def sample(
        self,
        labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        per_class: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        solver: str = "unipc",
        guidance_scale: float = 1.0,
        batch_size: int = 32,
        verbose: str | int = "auto",
    ) -> ImageSet:
        """Draw images.

        Image ``i`` of a class depends on the seed only, not on the batch size or the other images.
        Those of ``kerasmed sample`` are the same, without its copy filter; drawn through ONNX they
        differ by a few grey levels at most.

        Args:
            labels: the class of each image, by number or name. Or give ``per_class``.
            per_class: how many images of each class.
            seed: seed of the set, 0 or more.
            steps: evaluations of the network for an image, 1 to 1000; if None 15, or as many as
                another solver needs to draw structure of every scale at its true strength.
            solver: "unipc", "dpmpp_2m", "ddim" or "ddpm".
            guidance_scale: above 1, the class counts for more; costs twice as much.
            batch_size: images drawn at once.
            verbose: 0 shows no progress.

        Raises:
            InputError: the model has not been trained; labels out of range; unknown solver; neither
                or both of ``labels`` and ``per_class``.
        """
        self._check_trained("sample")
        wanted = self._wanted(labels, per_class)
        if solver not in SOLVERS:
            raise InputError(f"solver: expected one of {', '.join(SOLVERS)}, received {solver!r}.")
        if guidance_scale != 1.0 and not self.settings.label_dropout:
            raise InputError(
                "guidance_scale: expected 1 for a model that always saw the class (label_dropout "
                f"0), received {guidance_scale}."
            )
        timesteps = sampling_timesteps(DEFAULT_STEPS[solver] if steps is None else steps)
        drawn = generate_images(
            self.denoiser, self.pixel_range, wanted, len(self.class_names), self.image_size,
            seed, solver, timesteps, guidance_scale, batch_size,
        )  # fmt: skip
        showing = progress_bar("Sampling", len(wanted), "images") if verbose else nullcontext(None)
        images = np.empty((len(wanted), self.image_size, self.image_size, 3), np.uint8)
        with showing as advance:
            for row, (_, _, image) in enumerate(drawn):
                images[row] = image
                if advance is not None:
                    advance(1, "")
        numbers = np.array([label for label, _ in wanted])
        return ImageSet.from_arrays(images, numbers, self.class_names)

    def export(self, filepath: str | Path, **metadata: Any) -> dict[str, Any]:
        """Write the averaged network as ONNX, checked against Keras; ``OnnxDenoiser`` runs it.

        Args:
            filepath: path of the file, such as "denoiser.onnx".
            **metadata: further metadata of the file.

        Returns:
            All metadata of the file.

        Raises:
            InputError: the model has not been trained.
            MachineError: Keras runs on another backend than TensorFlow.
            ModelFileError: onnxruntime and Keras disagree.
        """
        self._check_trained("export")
        if (backend := keras.backend.backend()) != "tensorflow":
            raise MachineError(
                f"The export to ONNX works on TensorFlow, received {backend}; save the model, and "
                "load and export it without KERAS_BACKEND."
            )
        from kerasmed.export.denoisers import export_denoiser

        own = {"class_names": list(self.class_names)}
        network = self.inference_network()
        return export_denoiser(network, self.pixel_range, {**own, **metadata}, Path(filepath))

    @property
    def pixel_range(self) -> PixelRange:
        """The pixel range that ``adapt`` found; ``InputError`` before it."""
        if self.pixels is None:
            raise InputError(
                "The pixel range is not set: expected a model that was adapted, received a new "
                "one; call `adapt(images)`, or build it with `from_preset`."
            )
        return self.pixels

    @property
    def denoiser(self) -> AveragedDenoiser:
        """The averaged network as a function on arrays, ``denoiser(x_t, timesteps, labels)``."""
        iterations = self._iterations()
        if iterations not in (0, self._averaged.iterations):
            self._averaged.take(self._current_average(), iterations)
        return self._averaged

    def inference_network(self) -> keras.Model:
        """The float32 network with the averaged weights, on one device."""
        return self.denoiser.network

    def set_average(self, weights: Sequence[np.ndarray]) -> None:
        """Draw, validate and export with these averaged weights until the next step of training."""
        self._averaged.take(weights, self._iterations())

    def get_weights(self) -> list[np.ndarray]:
        """The weights, then their averages, as NumPy arrays."""
        return [*super().get_weights(), *self.inference_network().get_weights()]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set what ``get_weights`` of a model of the same settings returned.

        Raises:
            InputError: the weights of another preset, image size or number of classes.
        """
        expected = [tuple(weight.shape) for weight in self.weights]
        averaged = [tuple(weight.shape) for weight in self._averaged.network.weights]
        if [np.shape(weight) for weight in weights] != expected + averaged:
            raise InputError(
                f"Weights: expected {len(expected + averaged)} arrays of a model with the settings "
                f"{self.settings.preset!r}, {self.image_size} pixels and {len(self.class_names)} "
                f"classes, received {len(weights)} arrays of other shapes; build the model as the "
                "one that they come from."
            )
        super().set_weights(weights[: len(expected)])
        self.set_average(weights[len(expected) :])

    def save_own_variables(self, store: Any) -> None:
        """What Keras does not save: averages, states of dropout, and the count of batches."""
        super().save_own_variables(store)
        for i, weight in enumerate(self.inference_network().get_weights()):
            store[f"average_{i}"] = weight
        for i, state in enumerate(self._dropout_states()):
            store[f"dropout_{i}"] = ops.convert_to_numpy(state)
        iterations = self._averaged.iterations
        counts = [-1 if iterations is None else iterations, self.batches_seen]
        store["counts"] = np.array(counts)

    def load_own_variables(self, store: Any) -> None:
        """Restore what ``save_own_variables`` stored."""
        averages = [store[f"average_{i}"] for i in range(len(self._averaged.network.weights))]
        iterations, self.batches_seen = (int(count) for count in store["counts"])
        if iterations >= 0:
            self._averaged.take([np.asarray(average) for average in averages], iterations)
        for i, state in enumerate(self._dropout_states()):
            state.assign(store[f"dropout_{i}"])

    def get_config(self) -> dict[str, Any]:
        """Everything that builds the same model, without its weights."""
        return {
            **super().get_config(),
            "kerasmed_version": __version__,
            "image_size": self.image_size,
            "class_names": list(self.class_names),
            "settings": self.settings.model_dump(),
            "symmetry": self.symmetry,
            "seed": self.seed,
            "pixels": None if self.pixels is None else asdict(self.pixels),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DiffusionModel":
        """The model that ``get_config`` describes.

        Raises:
            ModelFileError: another version of kerasmed wrote it, with other settings.
        """
        config = dict(config)
        version = config.pop("kerasmed_version", "unknown")
        try:
            return cls(**config)
        except (InputError, TypeError) as error:
            raise ModelFileError(
                f"The model was saved by kerasmed {version}, and this is {__version__}: {error} "
                "Load it with the version that saved it, or train again."
            ) from None

    def _iterations(self) -> int:
        """Steps that the optimiser has made; 0 without one."""
        return int(ops.convert_to_numpy(self.optimizer.iterations)) if self.compiled else 0

    def _current_average(self) -> list[np.ndarray]:
        # Under mixed_float16 the optimiser is inside Keras's loss scaling.
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        values: Any = getattr(optimizer, "averages", self.trainable_variables)
        return [
            ops.convert_to_numpy(value)
            for variable, value in zip(self.trainable_variables, values, strict=True)
            if AUGMENTATION_LAYER not in variable.path
        ]

    def _dropout_states(self) -> list[keras.Variable]:
        weights = {id(weight) for weight in self.network.weights}
        return [variable for variable in self.network.variables if id(variable) not in weights]

    def _check_ready(self, method: str) -> None:
        if not self.compiled:
            raise InputError(
                f"{method}: expected a compiled model, received one without optimiser and loss; "
                "call `compile()` first."
            )
        _ = self.pixel_range  # refuses a model that was not adapted

    def _check_trained(self, method: str) -> None:
        if self.denoiser.iterations is None:
            raise InputError(
                f"{method}: expected a trained model, received one with its first, random weights; "
                "call `fit` first, or load a model that was saved after it."
            )

    def _image_set(self, x: Any, y: Any) -> ImageSet:
        return as_image_set(x, y, self.image_size, self.class_names)

    def _validation_set(self, data: Any) -> ImageSet:
        return self._image_set(*(data if isinstance(data, tuple | list) else (data, None)))

    def _validation_batch(self, images: ImageSet) -> Batch:
        return validation_batch(images, self.pixel_range, self.settings, self.seed)

    def _batches(self, x: Any, settings: DiffusionConfig) -> Any:
        """What Keras trains on: noisy images, timesteps and labels, from a set or a stream."""
        common = self.pixel_range, settings, self.symmetry, self.seed, self.batches_seen
        if not isinstance(x, ImageSet):
            pairs = endless(x, self.image_size, self.class_names)
            return noisy_stream(pairs, len(self.class_names), *common)
        # One thread makes 4,000 images of 64 pixels per second.
        threads = min(4, cpu_cores()) if list_gpus() else 1
        shard = this_worker().index, len(this_worker().addresses)
        return NoisyBatches(x, *common, threads, shard)

    def _wanted(self, labels: Any, per_class: int | None) -> list[tuple[int, int]]:
        """Class and number within the class of each image to draw."""
        if (labels is None) == (per_class is None):
            raise InputError("sample: expected either labels or per_class, received both or none.")
        if labels is None:
            return [(c, i) for c in range(len(self.class_names)) for i in range(per_class or 0)]
        numbers, _ = check_labels(labels, len(labels), self.class_names)
        drawn: Counter[int] = Counter()
        wanted = []
        for label in numbers.tolist():
            wanted.append((label, drawn[label]))
            drawn[label] += 1
        return wanted

    def _recipe(
        self,
        settings: DiffusionConfig,
        steps_per_epoch: int,
        images: ImageSet | None,
        validation: ImageSet | None,
    ) -> Fingerprint:
        """Settings and images that must not change when a training resumes.

        Budget and previews may change, and so may the backend: TensorFlow exports what JAX trained.
        """
        sets = {"training images": images, "validation images": validation}
        return Fingerprint(
            {
                "seed": self.seed,
                "data": {"symmetry": self.symmetry, "image_size": self.image_size},
                "diffusion": settings.model_dump(exclude=settings.BUDGET | {"preview_every"}),
                "steps_per_epoch": steps_per_epoch,
                "runtime": {"precision": self.dtype_policy.name},
            },
            {name: "none" if each is None else each.data_hash for name, each in sets.items()},
        )


def load_diffusion_model(path: Path) -> DiffusionModel:
    """The saved model of a file, uncompiled.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    model = load_saved_model(path)
    if not isinstance(model, DiffusionModel):
        raise ModelFileError(
            f"{path}: expected a saved DiffusionModel, received a {type(model).__name__}; give "
            "the file of a diffusion model."
        )
    return model


class _CountBatches(keras.callbacks.Callback):
    """Counts the batches of a model over all trainings, which decide what is drawn next."""

    def __init__(self, steps_per_epoch: int):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.batches_seen += self.steps_per_epoch


def _settings_for(
    image_size: int, settings: DiffusionConfig | dict[str, Any] | None
) -> DiffusionConfig:
    if not isinstance(settings, DiffusionConfig):
        try:
            settings = DiffusionConfig(**(settings or {}))
        except ValidationError as error:
            raise InputError(f"Diffusion model: {describe_problems(error)}") from None
    try:
        settings.check_image_size(image_size)
    except ValueError as error:
        raise InputError(f"Diffusion model: {error}.") from None
    return settings
