"""ONNX to ONNX: float16, and int8 within a limit on lost accuracy. Needs no Keras."""

from collections.abc import Collection, Iterator
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.qdq_loss_debug import (
    collect_activations,
    compute_activation_error,
    create_activation_matching,
    modify_model_output_intermediate_tensors,
)
from onnxruntime.quantization.quant_utils import add_pre_process_metadata
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from kerasmed.errors import ModelFileError
from kerasmed.export.sidecar import Int8Check
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.metrics.jackknife import Figure, mean_figure

# Accuracy that int8 may lose against float32.
MAX_LOSS = 0.02

_HEAD = ("GlobalAveragePool", "ReduceMean", "Flatten", "MatMul", "Gemm")
_CALIBRATION_BATCH = 16
# All activations of these images are held in memory, in float32 and in int8.
_RANKING_IMAGES = 4


def to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with float16 weights and arithmetic, and float32 outputs.

    Enlargement, means and softmax stay in float32: sums over a whole image exceed float16's range.
    """
    inside = {name for names in _layers(proto.graph).values() for name in names}
    blocked = [
        node.name for node in proto.graph.node if node.name not in inside or "Pool" in node.op_type
    ]
    half = convert_float_to_float16(proto, keep_io_types=True, node_block_list=blocked)
    # The converter of onnxruntime 1.26 appends its casts at the end of the graph.
    sorted_model = OnnxModel(half)
    sorted_model.topological_sort()
    return sorted_model.model


def greatest_activation(source: Path, images: np.ndarray) -> float:
    """Greatest absolute activation, on a few images, of the layers that ``to_float16`` converts.

    It is computed from float32: a CPU runs float16 files in float32 and shows no overflow.

    Args:
        source: a float32 classifier file.
        images: uint8.
    """
    graph = onnx.load(source).graph
    inside = {name for names in _layers(graph).values() for name in names}
    names = {name for node in graph.node if node.name in inside for name in node.output}
    with TemporaryDirectory() as folder:
        activations = _observed(source, images, Path(folder))
    maxima = [
        np.abs(batch).max() for name in names & activations.keys() for batch in activations[name]
    ]
    return float(max(maxima))


def _observed(path: Path, images: np.ndarray, folder: Path) -> dict[str, list[np.ndarray]]:
    """Every activation of a file on a few images, by name."""
    observed = folder / path.name
    modify_model_output_intermediate_tensors(path, observed)
    return collect_activations(str(observed), _Batches(images[:_RANKING_IMAGES]))


def to_int8(
    source: Path, calibration: np.ndarray, target: Path, float_layers: Collection[str] = ()
) -> None:
    """Convert a classifier file to 8-bit weights, scaled by channel, and 8-bit activations.

    Args:
        source: a float32 classifier file.
        calibration: uint8 images that set the ranges of activations.
        target: path of the int8 file.
        float_layers: convolutions that stay in float32, with the nodes that follow them.
    """
    proto = onnx.load(source)
    layers = _layers(proto.graph)
    add_pre_process_metadata(proto)  # otherwise the quantiser advises to preprocess the model
    # The quantiser leaves files in the working directory.
    with TemporaryDirectory() as folder, chdir(folder):
        quantize_static(
            proto,
            "int8.onnx",
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[
                name for layer in layers.keys() - set(float_layers) for name in layers[layer]
            ],
        )
        quantized = onnx.load("int8.onnx")
    onnx.helper.set_model_props(
        quantized, {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    )
    onnx.save(quantized, target)


class GateImages(NamedTuple):
    """Images on which int8 is compared with float32.

    Attributes:
        images: uint8 (n, size, size, 3).
        labels: int (n,), class indices.
        groups: (n,), equal for images of one group.
        role: name of their role.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    role: str


def quantize_gated(
    source: Path, calibration: np.ndarray, gate: GateImages, target: Path
) -> dict[str, Any]:
    """Write the int8 version of a classifier with as few float32 layers as its accuracy needs.

    Quantisation is static, with weights scaled by channel. A version passes if it loses less than
    MAX_LOSS of accuracy, at 95% over groups of images, corrected for the number of versions that
    may be tried. If not, the layers with the lowest ratio of signal to quantisation noise stay in
    float32: one, two, four and so on. Where even a version without any loss could not pass, since
    there are too few images, one passes that loses nothing on them.

    Args:
        source: a float32 classifier file.
        calibration: uint8 images that set the ranges of activations.
        gate: images on which the accuracy is measured, and from which the network has not learned.
        target: path of the int8 file.

    Returns:
        ``float_layers``, names of convolutions; ``int8_check``, see ``Int8Check``;
        ``calibration_images``, their number.

    Raises:
        ModelFileError: too much accuracy is lost even with half of the layers in float32.
    """
    layers = _layers(onnx.load(source).graph)
    before = _correct(source, gate)
    ranked, kept = list(layers), 0
    numbers = _numbers_of_float_layers(len(layers) // 2)
    level = 1 - 0.05 / len(numbers)
    is_provable = _loss(before, before, gate.groups).quantile(level) <= MAX_LOSS
    for kept in numbers:
        to_int8(source, calibration, target, ranked[:kept])
        after = _correct(target, gate)
        loss = _loss(before, after, gate.groups)
        most = loss.quantile(level)
        if most <= MAX_LOSS or (not is_provable and loss.value <= 0):
            check: Int8Check = {
                "role": gate.role,
                "images": len(before),
                "accuracy": {"fp32": float(before.mean()), "int8": float(after.mean())},
                "greatest_loss": most,
                "is_proven": most <= MAX_LOSS,
            }
            return {
                "float_layers": sorted(ranked[:kept]),
                "int8_check": check,
                "calibration_images": len(calibration),
            }
        if not kept:
            ranked = _most_sensitive_first(source, target, calibration, layers)
    raise ModelFileError(
        f"{source.name}: expected int8 to lose less than {100 * MAX_LOSS:.0f} points of accuracy, "
        f"at 95% over groups, received a loss of {100 * loss.value:.1f} points, up to "
        f"{100 * most:.1f}, on {len(before)} images of the role {gate.role} with {kept} of "
        f"{len(layers)} layers in float32; use fp32 or fp16."
    )


def _numbers_of_float_layers(most: int) -> list[int]:
    """0, 1, 2, 4 and so on, up to ``most``."""
    numbers = [0]
    while numbers[-1] < most:
        numbers.append(min(most, max(1, 2 * numbers[-1])))
    return numbers


def _loss(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> Figure:
    """Accuracy lost on the same images; its interval is that of one group more either way.

    Where both files agree on all images, groups do not vary, and yet the next one may (Bonett and
    Price, Statistical Methods in Medical Research 15, 2006).
    """
    _, group_of_image = np.unique(groups, return_inverse=True)
    return mean_figure(before - after, {"images": group_of_image}, added=(1, -1))


def _layers(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Nodes of the backbone, grouped by the convolution that they start with.

    Nodes before the first convolution (enlargement, preprocessing) belong to no group, nor does the
    head from the last pooling on.
    """
    layers: dict[str, list[str]] = {}
    convolutions = [i for i, node in enumerate(graph.node) if node.op_type == "Conv"]
    if not convolutions:
        raise ModelFileError(
            "Precision: expected a network with convolutions, received one without; use fp32."
        )
    for i, node in enumerate(graph.node):
        if node.op_type in _HEAD and i > convolutions[-1]:
            break
        if node.op_type == "Conv":
            layers[node.name] = []
        if layers:
            layers[next(reversed(layers))].append(node.name)
    return layers


class _Batches(CalibrationDataReader):
    def __init__(self, images: np.ndarray):
        self._batches: Iterator[np.ndarray] = (
            images[start : start + _CALIBRATION_BATCH]
            for start in range(0, len(images), _CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _correct(path: Path, gate: GateImages) -> np.ndarray:
    """1 where a file is right about an image, else 0: float (n,)."""
    predicted = OnnxClassifier(path, provider="cpu").predict(gate.images).argmax(axis=1)
    return (predicted == gate.labels).astype(float)


def _most_sensitive_first(
    source: Path, quantized: Path, calibration: np.ndarray, layers: dict[str, list[str]]
) -> list[str]:
    """Layers, those with the most quantisation noise on their outputs first."""
    with TemporaryDirectory() as folder:
        activations = [_observed(path, calibration, Path(folder)) for path in (source, quantized)]
    errors = compute_activation_error(create_activation_matching(activations[1], activations[0]))
    outputs = {node.name: node.output for node in onnx.load(source).graph.node}

    def decibels(layer: str) -> float:
        names = (name for node in layers[layer] for name in outputs[node])
        return min((errors[name]["qdq_err"] for name in names if name in errors), default=np.inf)

    return sorted(layers, key=decibels)
