"""Features by ONNX networks of other programs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from kerasmed.errors import ModelFileError
from kerasmed.inference.extractor import OnnxExtractor

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def write(path, nodes, input_type, input_shape, outputs) -> OnnxExtractor:
    """A network from the input ``x`` to outputs of given names and ranks."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", input_type, input_shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in outputs.items()
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=opset), path)
    return OnnxExtractor(path)


def test_float_network_gets_normalised_images_of_its_size(tmp_path):
    extractor = write(
        tmp_path / "x.onnx",
        [helper.make_node("Identity", ["x"], ["map"])],
        TensorProto.FLOAT, ["batch", 3, 16, 16], {"map": 4},
    )  # fmt: skip

    features = extractor.features(IMAGES)

    enlarged = np.stack(
        [np.asarray(Image.fromarray(i).resize((16, 16), Image.Resampling.BICUBIC)) for i in IMAGES]
    )
    expected = ((enlarged / 255 - MEAN) / DEVIATION).mean(axis=(1, 2))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_open_size_is_224_for_floats_and_that_of_the_images_for_bytes(tmp_path):
    floats = write(
        tmp_path / "f.onnx",
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Cast", ["shape"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Constant", [], ["axes"], value_ints=[0]),
            helper.make_node("Unsqueeze", ["numbers", "axes"], ["rows"]),
        ],
        TensorProto.FLOAT, [None, 3, None, None], {"rows": 2},
    )  # fmt: skip
    assert floats.features(IMAGES[:1])[0].tolist() == [1, 3, 224, 224]

    plain = write(
        tmp_path / "b.onnx",
        [
            helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["features"], axes=[1, 2], keepdims=0),
            helper.make_node("ReduceMax", ["numbers"], ["other"], axes=[1, 2], keepdims=0),
        ],
        TensorProto.UINT8, [None, None, None, 3], {"other": 2, "features": 2},
    )  # fmt: skip
    np.testing.assert_allclose(plain.features(IMAGES), IMAGES.mean(axis=(1, 2)), rtol=1e-5)


def test_map_of_bytes_has_its_channels_last(tmp_path):
    extractor = write(
        tmp_path / "x.onnx",
        [helper.make_node("Cast", ["x"], ["map"], to=TensorProto.FLOAT)],
        TensorProto.UINT8, [None, None, None, 3], {"map": 4},
    )  # fmt: skip
    np.testing.assert_allclose(extractor.features(IMAGES), IMAGES.mean(axis=(1, 2)), rtol=1e-5)


def test_first_of_a_sequence_of_tokens_counts(tmp_path):
    extractor = write(
        tmp_path / "x.onnx",
        [
            helper.make_node("Constant", [], ["shape"], value_ints=[0, 3, 64]),
            helper.make_node("Reshape", ["x", "shape"], ["channels"]),
            helper.make_node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
        ],
        TensorProto.FLOAT, [None, 3, 8, 8], {"tokens": 3},
    )  # fmt: skip

    expected = (IMAGES[:, 0, 0] / 255 - MEAN) / DEVIATION
    np.testing.assert_allclose(extractor.features(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_other_inputs_and_missing_files_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"expected one input of images.*received"):
        write(
            tmp_path / "x.onnx",
            [helper.make_node("Identity", ["x"], ["y"])],
            TensorProto.FLOAT, [None, 10], {"y": 2},
        )  # fmt: skip
    with pytest.raises(ModelFileError, match="No model file"):
        OnnxExtractor(tmp_path / "missing.onnx")
