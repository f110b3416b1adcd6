"""The JSON file next to an exported CNN; the ONNX file holds the same as metadata."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from kerasmed.data.config import Formats
from kerasmed.export.config import Precision
from kerasmed.result_types import NotNegative, Sha256, Signed, Whole
from kerasmed.settings import Count, Rate, UnitInterval


class Parity(TypedDict):
    """Greatest differences from the outputs of the network that a file was made from."""

    probabilities: NotNegative
    """Of the probabilities."""
    features: NotNegative
    """Of the features, relative to the largest one."""


class Int8Accuracy(TypedDict):
    """Accuracy before and after the conversion to int8."""

    fp32: UnitInterval
    """Of the float32 file."""
    int8: UnitInterval
    """Of the int8 file."""


class Int8Check(TypedDict):
    """How an int8 file was compared with the float32 file."""

    role: str
    """Role of the images: ``reserve``, or ``validation`` for a CNN that learned from reserve."""
    images: Count
    """Number of images."""
    accuracy: Int8Accuracy
    """Accuracy on them."""
    greatest_loss: Signed
    """Upper end of the 95% interval of the accuracy lost, corrected for the versions tried."""
    is_proven: bool
    """Whether that is below 0.02. If not, there were too few images to prove it, and none of them
    was lost."""


class FileMetadata(TypedDict):
    """What the export knows of a CNN's file."""

    kerasmed_version: str
    """Version that wrote the file."""
    format: Count
    """Format of this metadata."""
    kind: Literal["classifier"]
    """A CNN, not a denoiser."""
    input_size: Count
    """Height and width in pixels that images must have."""
    resize_filter: str
    """How images were reduced to that size for the training."""
    temperature: Rate
    """Divides the logits before the softmax, inside the file."""
    opset: Count
    """Version of ONNX's operators."""
    precision: Precision
    """Number format of weights and arithmetic."""
    class_names: list[str]
    """Names of the classes, in the order of the probabilities."""
    backbone: str
    """Name of the network."""
    weights: str
    """The weights it began with: "imagenet", "none" or the name of a file."""
    formats: Formats
    """How image files were read: the settings of ``data`` that differ from the defaults."""
    parity: Parity
    """Differences from Keras (float32), or from the float32 file."""
    transposes: Whole
    """Transposes that onnxruntime cannot remove."""
    float32_sha256: NotRequired[Sha256]
    """fp16 and int8: hash of the float32 file it was made from."""
    float_layers: NotRequired[list[str]]
    """int8: convolutions that stay in float32."""
    int8_check: NotRequired[Int8Check]
    """int8: accuracy before and after."""
    calibration_images: NotRequired[Count]
    """int8: number of training images that set the ranges of activations."""
    sha256: Sha256
    """Hash of the ONNX file."""
