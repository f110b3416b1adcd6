"""The upscaler: a Keras model that draws an image four times as wide as a given one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from kerasmed.data.arrays import check_pixels
from kerasmed.data.image_set import ImageSet
from kerasmed.data.inputs import as_image_set
from kerasmed.diffusion.batches import Batch
from kerasmed.diffusion.config import FACTOR, UpscalerConfig
from kerasmed.diffusion.cost import forward_flops
from kerasmed.diffusion.crops import NoisyCrops, validation_crops
from kerasmed.diffusion.denoising_model import DenoisingModel
from kerasmed.diffusion.enlarge import enlarge, padded, reduce_images
from kerasmed.diffusion.unet import build_upscaler, reach
from kerasmed.diffusion.upscale import (
    DEFAULT_STEPS,
    in_tiles,
    upscale_images,
    upscaling_timesteps,
)
from kerasmed.errors import InputError
from kerasmed.inference.pixels import DetailRange, PixelRange
from kerasmed.random_streams import Purpose
from kerasmed.runtime.backend import load_saved_model

# Standard deviation of detail in the network's units.
_DEVIATION = 0.5
# Images from which the range of detail is found.
_ADAPTED_TO = 256
TILE_SIZE = 512


@keras.saving.register_keras_serializable("kerasmed")
class Upscaler(DenoisingModel):
    """A class-conditional diffusion model from an image to one four times as wide.

    It is the second stage of a cascade (Ho et al., arXiv:2106.15282; Saharia et al.,
    arXiv:2104.07636): a ``DiffusionModel`` draws images of 64 pixels, and this gives them the
    detail of 256. It is a ``keras.Model`` that learns from crops of the full-size images; ``fit``
    reduces them as ``ImageSet`` does, and draws crops and noise. It is made of convolutions only,
    so ``upscale`` runs it on whole images.

    Args:
        image_size: height and width of the large images.
        class_names: names of the classes, sorted.
        settings: network and recipe, see ``UpscalerConfig``; a dict of its keys, or its defaults if
            None.
        symmetry: flips and turns that leave an image a valid image of its class: "none", "mirror"
            (left to right) or "dihedral" (all eight).
        seed: seed of the weights, the order of images, the crops, and all noise.
        pixels: mean of each channel and scale of the images, as ``adapt`` finds them.
        detail_scale: grey levels in one unit of detail, as ``adapt`` finds them.
        **kwargs: ``name`` and ``dtype``, a dtype policy such as "mixed_bfloat16".

    Raises:
        InputError: unknown settings, or an image size that the network cannot halve.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 10)
        >>> upscaler = km.Upscaler.from_images(images, widths=[8], crop_size=16, batch_size=4)
        >>> upscaler.compile()
        >>> history = upscaler.fit(images, validation_data=images, epochs=2, verbose=0)
        >>> upscaler.upscale(upscaler.reduce(images), steps=2, verbose=0)
        ImageSet(20 images of 64 x 64 pixels: benign 10, malignant 10)
        >>> upscaler.save("upscaler.keras")
        >>> loaded = km.load_model("upscaler.keras")
    """

    KIND = "Upscaler"
    FILE = "upscaler"
    LEARNS_FROM = "crop"
    SETTINGS: ClassVar[type[UpscalerConfig]] = UpscalerConfig
    WEIGHTS = Purpose.UPSCALER_WEIGHTS

    def __init__(
        self,
        image_size: int,
        class_names: Sequence[str],
        settings: UpscalerConfig | dict[str, Any] | None = None,
        symmetry: str = "none",
        seed: int = 0,
        pixels: PixelRange | dict[str, Any] | None = None,
        detail_scale: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_size, class_names, settings, symmetry, seed, pixels, **kwargs)
        self.detail_scale = detail_scale

    @classmethod
    def from_images(
        cls,
        images: ImageSet,
        symmetry: str = "none",
        seed: int = 0,
        dtype: Any = None,
        **settings: Any,
    ) -> "Upscaler":
        """An untrained model for these images.

        Args:
            images: what it will learn from, at full size; gives size, classes and pixel ranges.
            symmetry, seed, dtype: see the class.
            **settings: keys of ``UpscalerConfig``.

        Raises:
            InputError: an unknown setting, or images of a size that does not fit.
        """
        model = cls(images.image_size, images.class_names, settings, symmetry, seed, dtype=dtype)
        model.adapt(images)
        return model

    @property
    def base_size(self) -> int:
        """Height and width of the small images."""
        return self.image_size // FACTOR

    def adapt(self, images: ImageSet | np.ndarray) -> None:
        """Set the pixel ranges that suit these images, as a preprocessing layer of Keras does.

        Args:
            images: an ``ImageSet``, or uint8 (n, size, size, 3), at full size.
        """
        super().adapt(images)
        pixels = images.images if isinstance(images, ImageSet) else check_pixels(images)
        rows = np.linspace(0, len(pixels) - 1, min(len(pixels), _ADAPTED_TO)).round().astype(int)
        squares = 0.0
        for row in rows:
            image = np.asarray(pixels[row])
            squares += np.square(image - enlarge(padded(reduce_images(image[None])[0]))).mean()
        deviation = np.sqrt(squares / len(rows))
        self.detail_scale = max(1.0, float(deviation)) / _DEVIATION

    @property
    def ranges(self) -> DetailRange:
        """The pixel ranges that ``adapt`` found; ``InputError`` before it."""
        pixels = self.pixel_range
        assert self.detail_scale is not None
        return DetailRange(pixels, self.detail_scale)

    def _build_network(self, is_trained: bool) -> keras.Model:
        return build_upscaler(len(self.class_names), self.settings)

    def forward_flops(self) -> int:
        """Arithmetic of a forward pass over one crop."""
        size = self.settings.crop_size
        edges = {"noisy_images": size, "base_images": size // FACTOR}
        shapes: list[tuple[int, ...]] = [
            (1, edges[tensor.name], edges[tensor.name], 3) if tensor.name in edges else (1,)
            for tensor in self.network.inputs
        ]
        return forward_flops(self.network, shapes)

    def _drawn(self, settings: UpscalerConfig) -> NoisyCrops:
        return NoisyCrops(self.ranges, settings, self.symmetry)

    def _validation_batch(self, images: ImageSet) -> Batch:
        return validation_crops(images, self._drawn(self.settings), self.seed)

    def reduce(self, images: ImageSet) -> ImageSet:
        """Full-size images at a quarter of their size, by the filter that reads all real images.

        Raises:
            InputError: images of another size or other classes than the model's.
        """
        small = reduce_images(self._image_set(images).images)
        return ImageSet.from_arrays(small, images.labels, images.class_names)

    def upscale(
        self,
        images: ImageSet | np.ndarray,
        labels: Sequence[int] | Sequence[str] | np.ndarray | None = None,
        seed: int = 0,
        steps: int | None = None,
        base_noise: float = 0.0,
        batch_size: int = 4,
        tile_size: int = TILE_SIZE,
        verbose: str | int = "auto",
    ) -> ImageSet:
        """Draw an image four times as wide for each small one.

        Image ``i`` of a class depends on the seed only, not on the batch size or the other images.

        Args:
            images: an ``ImageSet`` or uint8 (n, size / 4, size / 4, 3).
            labels: class of each image of an array, by number or name.
            seed: seed of the set, 0 or more.
            steps: evaluations of the network for an image, 1 to 1000; DEFAULT_STEPS if None.
            base_noise: deviation of noise added to the small images, at most that of the settings.
                It hides faults of drawn images; real ones need none.
            batch_size: images drawn at once.
            tile_size: the network sees no more than a tile of this width and its surroundings at
                once, which bounds the memory.
            verbose: 0 shows no progress.

        Raises:
            InputError: the model has not been trained; images of another size or other classes;
                labels out of range; too much noise; a negative seed or a batch without images.
        """
        self._check_trained("upscale")
        self._check_drawing(seed, batch_size)
        small = self._small_set(images, labels)
        if not 0 <= base_noise <= self.settings.base_noise:
            raise InputError(
                f"base_noise: expected 0 to {self.settings.base_noise}, the maximum in training, "
                f"received {base_noise}."
            )
        network = in_tiles(self.denoiser(), tile_size, reach(self.settings), self.settings.stride)
        drawn = upscale_images(
            network, self.ranges, small.images, self._wanted(small.labels, None), seed,
            upscaling_timesteps(DEFAULT_STEPS if steps is None else steps), base_noise, batch_size,
        )  # fmt: skip
        return self._drawn_set("Upscaling", verbose, drawn, small.labels)

    def export(self, filepath: str | Path, **metadata: Any) -> dict[str, Any]:
        """Write the averaged network as ONNX, checked against Keras; ``OnnxUpscaler`` runs it.

        Args:
            filepath: path of the file, such as "upscaler.onnx".
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
        from kerasmed.export.denoisers import export_upscaler

        own = {
            "class_names": list(self.class_names),
            "image_size": self.image_size,
            "base_size": self.base_size,
            "stride": self.settings.stride,
            "reach": reach(self.settings),
            "greatest_base_noise": self.settings.base_noise,
        }
        network = self.inference_network()
        return export_upscaler(network, self.ranges, {**own, **metadata}, Path(filepath))

    def save_own_variables(self, store: Any) -> None:
        """What Keras does not save: the average, the ranges, and the state of the training."""
        super().save_own_variables(store)
        if self.detail_scale is not None:
            store["detail_scale"] = np.array(self.detail_scale)

    def load_own_variables(self, store: Any) -> None:
        """Restore what ``save_own_variables`` stored."""
        super().load_own_variables(store)
        stored = set(store.keys())
        if "detail_scale" in stored:
            self.detail_scale = float(np.array(store["detail_scale"]))

    def get_config(self) -> dict[str, Any]:
        """Everything that builds the same model, without its weights."""
        return {**super().get_config(), "detail_scale": self.detail_scale}

    def _small_set(self, images: Any, labels: Any) -> ImageSet:
        return as_image_set(images, labels, self.base_size, self.class_names)


def load_upscaler(path: Path) -> Upscaler:
    """The saved model of a file, uncompiled.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    return load_saved_model(path, Upscaler)
