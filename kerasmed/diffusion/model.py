"""The diffusion model: a Keras model that learns to remove noise and then draws images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.batches import Batch, NoisyImages, validation_batch
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.denoising_model import DenoisingModel
from kerasmed.diffusion.generate import generate_images
from kerasmed.diffusion.presets import PRESETS
from kerasmed.diffusion.solvers import DEFAULT_STEPS, SOLVERS, sampling_timesteps
from kerasmed.diffusion.unet import build_denoiser
from kerasmed.errors import InputError
from kerasmed.random_streams import Purpose
from kerasmed.runtime.backend import load_saved_model


@keras.saving.register_keras_serializable("kerasmed")
class DiffusionModel(DenoisingModel):
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

    KIND = "Diffusion model"
    FILE = "denoiser"
    LEARNS_FROM = "image"
    SETTINGS: ClassVar[type[DiffusionConfig]] = DiffusionConfig
    WEIGHTS = Purpose.DENOISER_WEIGHTS

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

    def _build_network(self, is_trained: bool) -> keras.Model:
        augmented = is_trained and self.settings.augment > 0
        return build_denoiser(self.image_size, len(self.class_names), self.settings, augmented)

    def _drawn(self, settings: DiffusionConfig) -> NoisyImages:
        return NoisyImages(len(self.class_names), self.pixel_range, settings, self.symmetry)

    def _validation_batch(self, images: ImageSet) -> Batch:
        return validation_batch(images, self.pixel_range, self.settings, self.seed)

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
            InputError: the model has not been trained; labels out of range; unknown solver; a
                negative seed or a batch without images; neither or both of ``labels`` and
                ``per_class``.
        """
        self._check_trained("sample")
        self._check_drawing(seed, batch_size)
        wanted = self._wanted(labels, per_class)
        if solver not in SOLVERS:
            raise InputError(f"solver: expected one of {', '.join(SOLVERS)}, received {solver!r}.")
        if guidance_scale != 1.0 and not self.settings.label_dropout:
            raise InputError(
                "guidance_scale: expected 1 for a model that was trained with label_dropout 0, "
                f"received {guidance_scale}."
            )
        timesteps = sampling_timesteps(DEFAULT_STEPS[solver] if steps is None else steps)
        drawn = generate_images(
            self.denoiser(), self.pixel_range, wanted, len(self.class_names), self.image_size,
            seed, solver, timesteps, guidance_scale, batch_size,
        )  # fmt: skip
        numbers = np.array([label for label, _ in wanted])
        return self._drawn_set("Sampling", verbose, drawn, numbers)

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


def load_diffusion_model(path: Path) -> DiffusionModel:
    """The saved model of a file, uncompiled.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    return load_saved_model(path, DiffusionModel)
