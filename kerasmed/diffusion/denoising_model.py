"""What the diffusion model and the upscaler have in common: how they are trained and averaged."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops
from pydantic import ValidationError

from kerasmed.data.arrays import check_labels, check_pixels
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import endless
from kerasmed.data.marks import SYNTHETIC
from kerasmed.diffusion.averaged import AveragedDenoiser
from kerasmed.diffusion.batches import Batch, Drawn, NoisyBatches, noisy_stream
from kerasmed.diffusion.checkpoints import Checkpoints
from kerasmed.diffusion.config import TrainingConfig
from kerasmed.diffusion.cost import forward_flops
from kerasmed.diffusion.optimizer import EmaAdamW, EmaMuon
from kerasmed.diffusion.unet import AUGMENTATION_LAYER
from kerasmed.diffusion.validation import Validation, validation_losses
from kerasmed.errors import InputError
from kerasmed.fingerprint import Fingerprint
from kerasmed.image_model import CountBatches, ImageModel, check_batch_size
from kerasmed.inference.pixels import PixelRange
from kerasmed.parallel import devices
from kerasmed.parallel.workers import check_agreed, this_worker
from kerasmed.progress import ignore, progress_if
from kerasmed.random_streams import Purpose, initial_weights
from kerasmed.runtime.backend import list_gpus, precision_policy
from kerasmed.runtime.hardware import cpu_cores
from kerasmed.settings import describe_problems


class DenoisingModel(ImageModel):
    """A Keras model that learns to predict clean images from noisy ones.

    A subclass names its kind and settings, builds its network, and draws batches from images.

    Args:
        image_size: height and width of the images.
        class_names: names of the classes, sorted.
        settings: network and recipe; a dict of their keys, or their defaults if None.
        symmetry: "none", "mirror" or "dihedral".
        seed: seed of the weights, the order of images, and all noise.
        pixels: mean of each channel and scale of the images, as ``adapt`` finds them.
        **kwargs: ``name`` and ``dtype``.
    """

    KIND: ClassVar[str]
    # What a study calls the network, and its files.
    FILE: ClassVar[str]
    LEARNS_FROM: ClassVar[str]
    SETTINGS: ClassVar[type[TrainingConfig]]
    WEIGHTS: ClassVar[Purpose]

    def __init__(
        self,
        image_size: int,
        class_names: Sequence[str],
        settings: Any = None,
        symmetry: str = "none",
        seed: int = 0,
        pixels: PixelRange | dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_size, class_names, symmetry, seed, **kwargs)
        self.settings = self._settings_for(image_size, settings)
        if isinstance(pixels, dict):
            pixels = PixelRange(tuple(pixels["mean"]), pixels["scale"])
        self.pixels = pixels
        with (
            precision_policy(self.dtype_policy.name),
            initial_weights(seed, self.WEIGHTS),
        ):
            self.network = self._build_network(is_trained=True)
            self._averaged = AveragedDenoiser(lambda: self._build_network(is_trained=False))
        self.built = True

    def _build_network(self, is_trained: bool) -> keras.Model:
        """The network, to be trained or to be averaged."""
        raise NotImplementedError

    def _drawn(self, settings: Any) -> Drawn:
        """How batches are drawn from images."""
        raise NotImplementedError

    def _validation_batch(self, images: ImageSet) -> Batch:
        """A fixed batch to validate on."""
        raise NotImplementedError

    def forward_flops(self) -> int:
        """Arithmetic of a forward pass over one image or crop, as a step sees it."""
        return forward_flops(self.network)

    def _drawn_set(
        self,
        title: str,
        verbose: str | int,
        drawn: Iterable[tuple[int, int, np.ndarray]],
        labels: np.ndarray,
    ) -> ImageSet:
        """Images of these labels as they are drawn, marked as synthetic."""
        images = np.empty((len(labels), self.image_size, self.image_size, 3), np.uint8)
        with progress_if(verbose, title, len(labels), "images") as advance:
            for row, (_, _, image) in enumerate(drawn):
                images[row] = image
                advance(1, "")
        drawn_set = ImageSet.from_arrays(images, labels, self.class_names)
        files = tuple(replace(file, notes=(SYNTHETIC,)) for file in drawn_set.files)
        return replace(drawn_set, files=files)

    @staticmethod
    def _check_drawing(seed: int, batch_size: int) -> None:
        check_batch_size(batch_size)
        if seed < 0:
            raise InputError(f"seed: expected 0 or more, received {seed}.")

    @classmethod
    def _settings_for(cls, image_size: int, settings: Any) -> Any:
        if not isinstance(settings, cls.SETTINGS):
            try:
                settings = cls.SETTINGS(**(settings or {}))
            except ValidationError as error:
                raise InputError(f"{cls.KIND}: {describe_problems(error)}") from None
        try:
            settings.check_image_size(image_size)
        except ValueError as error:
            raise InputError(f"{cls.KIND}: {error}.") from None
        return settings

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
            optimizer: if None, that of the settings, with warm-up and a moving average of the
                weights. Of another one ``sample`` uses the weights themselves. (An average that
                Keras keeps by ``use_ema`` replaces the weights when ``fit`` ends.)
            loss: squared error if None. It compares clean and predicted images in the network's
                units; ``fit`` weights each image by its timestep (min-SNR, arXiv:2303.09556).
            **kwargs: as for ``keras.Model.compile``.
        """
        settings = self.settings
        if optimizer is None:
            optimizer = {"adamw": EmaAdamW, "muon": EmaMuon}[settings.optimizer](
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
        if history.epoch and not hasattr(self.inner_optimizer(), "average_of"):
            self._averaged.iterations = 0  # Keras's `use_ema` has changed the weights at the end
        return history

    def evaluate(self, x: Any, y: Any = None, verbose: str | int = 0) -> dict[str, float]:
        """The weighted loss of the averaged weights, at the same noise every time.

        Args:
            x, y: as for ``validation_data`` of ``fit``; at most 256 images count.
            verbose: 0 shows no progress.

        Returns:
            ``loss``, and by quarters of the timesteps ``loss_t0_249`` (little noise) to
            ``loss_t750_999``.

        Raises:
            InputError: as for ``fit``; or the model has not been trained.
        """
        self._check_compiled("evaluate")
        self._check_trained("evaluate")
        batch = self._validation_batch(self._image_set(x, y))
        with progress_if(verbose, "Evaluating", len(batch[1]), "noisy images") as advance:
            return self.validation_losses(batch, advance)

    def validation_losses(
        self, batch: Batch, advance: Callable[[float, str], None] = ignore
    ) -> dict[str, float]:
        """As ``evaluate``, on a batch of noisy images; see ``diffusion.batches``."""
        with devices.on_one_device():
            loss = keras.losses.get(self.loss)
            return validation_losses(self.denoiser(), batch, getattr(loss, "call", loss), advance)

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
        average_of = getattr(self.inner_optimizer(), "average_of", lambda weight: weight)
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

    def _batches(self, x: Any, settings: TrainingConfig) -> Any:
        """What Keras trains on: noisy images, timesteps and labels, from a set or a stream."""
        common = self._drawn(settings), self.seed, self.batches_seen
        if not isinstance(x, ImageSet):
            pairs = endless(x, self.image_size, self.class_names)
            return noisy_stream(pairs, *common)
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
        settings: TrainingConfig,
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
                settings.SECTION: settings.model_dump(exclude=settings.BUDGET | {"preview_every"}),
                "steps_per_epoch": steps_per_epoch,
                "runtime": {"precision": self.dtype_policy.name},
            },
            {name: getattr(image_set, "data_hash", "unknown") for name, image_set in sets.items()},
        )
