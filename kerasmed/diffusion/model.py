"""The diffusion model: a Keras model that learns to remove noise and then draws images."""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from pydantic import ValidationError

from kerasmed.data.arrays import check_labels, check_pixels
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import endless
from kerasmed.data.marks import SYNTHETIC
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
from kerasmed.errors import InputError
from kerasmed.fingerprint import Fingerprint
from kerasmed.image_model import CountBatches, ImageModel
from kerasmed.inference.pixels import PixelRange
from kerasmed.parallel import devices
from kerasmed.parallel.workers import check_agreed, this_worker
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, initial_weights
from kerasmed.runtime.backend import list_gpus, load_saved_model, precision_policy
from kerasmed.runtime.hardware import cpu_cores
from kerasmed.settings import describe_problems


@keras.saving.register_keras_serializable("kerasmed")
class DiffusionModel(ImageModel):
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
        super().__init__(image_size, class_names, symmetry, seed, **kwargs)
        self.settings = _settings_for(image_size, settings)
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
        self.denoiser()  # takes the average of the optimiser so far
        super().compile(optimizer, loss, **kwargs)
        self.optimizer.build(self.trainable_variables)
        self._averaged.network.jit_compile = self.jit_compile  # otherwise `predict` would choose
        self._averaged.iterations = 0  # of this optimiser

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_data: Any = None,
        validation_freq: int | list[int] = 1,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
    ) -> keras.callbacks.History:
        """Train on images and labels; see ``keras.Model.fit``.

        What is drawn for a step depends on the seed and on how many steps were trained before. So
        training in several calls, or saving and loading in between, equals one call. Over a stream
        that holds only if each call ends at the end of a pass, and the stream repeats itself.

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
        self._check_compiled("fit")
        images, steps_per_epoch = self._training_set(x, y, batch_size, steps_per_epoch)
        settings = self.settings
        if batch_size is not None:
            settings = settings.model_copy(update={"batch_size": batch_size})
        validation = self._validation_set(validation_data)
        own: list[keras.callbacks.Callback] = [CountBatches(steps_per_epoch)]
        if validation is not None:
            own.append(Validation(self._validation_batch(validation), validation_freq))
        callbacks = list(callbacks or ())
        recipe = self._recipe(settings, steps_per_epoch, images, validation)
        check_agreed(recipe)
        self.denoiser()  # of a loaded model, before its optimiser makes another step
        self.stop_training = False
        for checkpoints in callbacks:
            if isinstance(checkpoints, Checkpoints):
                resumed = checkpoints.resume(self, recipe)
                if resumed is not None:
                    self.batches_seen = resumed
                    initial_epoch = resumed // steps_per_epoch
        history = devices.fit(
            self,
            self._batches(images, settings),
            [*own, *callbacks],
            steps_per_epoch,
            initial_epoch,
            initial_epoch if self.stop_training else epochs,  # resumed at its end
            verbose,
        )
        if history.epoch and not hasattr(self._inner_optimizer(), "average_of"):
            self._averaged.iterations = 0  # Keras's `use_ema` has changed the weights at the end
        return history

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
        self._check_compiled("evaluate")
        self._check_trained("evaluate")
        return self.validation_losses(self._validation_batch(self._image_set(x, y)))

    def validation_losses(self, batch: Batch) -> dict[str, float]:
        """As ``evaluate``, on a batch of noisy images; see ``diffusion.batches``."""
        with devices.on_one_device():
            loss = keras.losses.get(self.loss)
            return validation_losses(self.denoiser(), batch, getattr(loss, "call", loss))

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
            steps: evaluations of the network for an image, 1 to 1000. If None, as many as the
                solver needs to draw every scale at its true strength, see ``DEFAULT_STEPS``.
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
            self.denoiser(), self.pixel_range, wanted, len(self.class_names), self.image_size,
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
        drawn_set = ImageSet.from_arrays(images, numbers, self.class_names)
        return replace(drawn_set, notes={SYNTHETIC: len(images)})

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
        self._check_exports()
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

    def denoiser(self) -> AveragedDenoiser:
        """The averaged network as a function on arrays, ``denoiser(x_t, timesteps, labels)``."""
        iterations = self._iterations()
        if self._averaged.iterations is None:
            self._averaged.iterations = iterations
        elif iterations not in (0, self._averaged.iterations):
            self._averaged.take(self._current_average(), iterations)
        return self._averaged

    def inference_network(self) -> keras.Model:
        """The float32 network with the averaged weights, on one device."""
        return self.denoiser().network

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
        own = [tuple(weight.shape) for weight in self.weights]
        averaged = [tuple(weight.shape) for weight in self._averaged.network.weights]
        self._check_shapes(weights, own + averaged)
        super().set_weights(weights[: len(own)])
        self.set_average(weights[len(own) :])

    def save_own_variables(self, store: Any) -> None:
        """What Keras does not save: the average, the pixel range, and the state of the training."""
        super().save_own_variables(store)
        if self.denoiser().is_taken:
            for i, weight in enumerate(self._averaged.network.get_weights()):
                store[f"average_{i}"] = weight
        if self.pixels is not None:
            store["pixels"] = np.array([*self.pixels.mean, self.pixels.scale])

    def load_own_variables(self, store: Any) -> None:
        """Restore what ``save_own_variables`` stored."""
        super().load_own_variables(store)
        stored = set(store.keys())
        self._averaged.is_taken, self._averaged.iterations = "average_0" in stored, None
        if self._averaged.is_taken:
            count = len(self._averaged.network.weights)
            self._averaged.take([np.array(store[f"average_{i}"]) for i in range(count)], None)
        if "pixels" in stored:
            *mean, scale = np.array(store["pixels"]).tolist()
            self.pixels = PixelRange(tuple(mean), scale)

    def get_config(self) -> dict[str, Any]:
        """Everything that builds the same model, without its weights."""
        return {
            **super().get_config(),
            "settings": self.settings.model_dump(),
            "pixels": None if self.pixels is None else asdict(self.pixels),
        }

    def _iterations(self) -> int:
        """Steps that the optimiser has made; 0 without one."""
        return int(ops.convert_to_numpy(self.optimizer.iterations)) if self.compiled else 0

    def _current_average(self) -> list[np.ndarray]:
        average_of = getattr(self._inner_optimizer(), "average_of", lambda weight: weight)
        return [
            ops.convert_to_numpy(average_of(weight))
            for weight in self.network.weights
            if AUGMENTATION_LAYER not in weight.path
        ]

    def _check_trained(self, method: str) -> None:
        if not self.denoiser().is_taken:
            raise InputError(
                f"{method}: expected a trained model, received one with its first, random weights; "
                "call `fit` first, or load a model that was saved after it."
            )

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
        if (labels is None) == (per_class is None) or (per_class is not None and per_class < 1):
            raise InputError(
                "sample: expected either labels, or per_class of 1 or more, received labels "
                f"{labels} and per_class {per_class}."
            )
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
        images: Any,
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
            {name: getattr(image_set, "data_hash", "unknown") for name, image_set in sets.items()},
        )


def load_diffusion_model(path: Path) -> DiffusionModel:
    """The saved model of a file, uncompiled.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    return load_saved_model(path, DiffusionModel)


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
