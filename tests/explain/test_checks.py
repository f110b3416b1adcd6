"""Curves against a plain loop and closed forms; the region by hand; shuffled networks."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from scipy.special import softmax

from kerasmed.errors import InputError, ModelFileError
from kerasmed.explain.checks import (
    LOGITS,
    STEPS,
    compare_with_region,
    deletion_and_insertion,
    randomise_weights,
)
from kerasmed.explain.masks import fill_of

QUADRANTS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
IMAGES = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(40, 256, (4, 4, 3), dtype=np.uint8)


def _two(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def _curved(images: np.ndarray) -> np.ndarray:
    """A model that is not linear in what is shown of it."""
    means = images.reshape(len(images), -1).astype(np.float64).mean(axis=1) / 255
    corner = images[:, 0, 0].mean(axis=1) / 255
    return _two(means**2 * (0.4 + 0.6 * corner))


def _shown_fraction(images: np.ndarray) -> np.ndarray:
    return _two((images.max(axis=3) > 0).mean(axis=(1, 2)))


def _area(x: list[float], y: list[float]) -> float:
    return sum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


@pytest.mark.parametrize("hide", ["mean", 0, 255])
@pytest.mark.parametrize("label", [0, 1])
def test_curves_and_areas_agree_with_a_plain_loop(image, label, hide):
    segments = np.array([[0, 0, 0, 1], [0, 0, 2, 1], [2, 2, 2, 2], [3, 2, 2, 2]])
    weights, fill = np.array([0.1, 0.4, -0.3, 0.2]), fill_of(image, segments, hide)
    hidden, shown = image.copy(), fill.copy()
    pixels, deletion, insertion = [0.0], [_curved(hidden[None])], [_curved(shown[None])]
    for segment in (1, 3, 0, 2):
        inside = segments == segment
        hidden[inside], shown[inside] = fill[inside], image[inside]
        pixels.append(pixels[-1] + inside.mean())
        deletion.append(_curved(hidden[None]))
        insertion.append(_curved(shown[None]))
    deletion, insertion = (
        [probabilities[0, label] for probabilities in curve] for curve in (deletion, insertion)
    )

    result = deletion_and_insertion(image, segments, weights, label, _curved, hide, 0)

    np.testing.assert_allclose(result["curves"]["pixels"], pixels)
    np.testing.assert_allclose(result["curves"]["deletion"], deletion)
    np.testing.assert_allclose(result["curves"]["insertion"], insertion)
    assert result["deletion"] == pytest.approx(_area(pixels, deletion))
    assert result["insertion"] == pytest.approx(_area(pixels, insertion))


def test_curves_run_between_the_whole_image_and_nothing(image):
    curves = deletion_and_insertion(image, QUADRANTS, np.arange(4), 1, _curved, 0, 0)["curves"]

    whole, nothing = _curved(np.stack([image, np.zeros_like(image)]))[:, 1]
    assert (curves["pixels"][0], curves["pixels"][-1]) == (0, 1)
    assert (curves["deletion"][0], curves["deletion"][-1]) == pytest.approx((whole, nothing))
    assert (curves["insertion"][0], curves["insertion"][-1]) == pytest.approx((nothing, whole))


def test_areas_of_a_constant_model_are_its_probability(image):
    def constant(images):
        return np.tile(np.float32([0.7, 0.3]), (len(images), 1))

    result = deletion_and_insertion(image, QUADRANTS, np.arange(4), 1, constant, "mean", 0)

    for name in ("deletion", "insertion", "random_deletion", "random_insertion"):
        assert result[name] == pytest.approx(0.3)


def test_areas_of_what_is_shown_are_a_half_whatever_the_order(image):
    segments = np.array([[0, 0, 0, 1], [0, 0, 2, 1], [2, 2, 2, 2], [3, 2, 2, 2]])
    for order in ([4, 3, 2, 1], [1, 2, 3, 4]):
        result = deletion_and_insertion(image, segments, np.array(order), 1, _shown_fraction, 0, 0)

        for name in ("deletion", "insertion", "random_deletion", "random_insertion"):
            assert result[name] == pytest.approx(0.5)


def test_perfect_order_beats_random_ones_and_these_the_reversed():
    """Ten segments in a row whose contributions to the probability are known."""
    segments = np.arange(10)[None].repeat(2, axis=0)
    weights = np.random.default_rng(2).permutation(2.0 ** -np.arange(1, 11))
    image = np.full((2, 10, 3), 200, dtype=np.uint8)

    def predict(images):
        return _two((images[:, 0, :, 0] > 0) @ weights)

    perfect, reverse = (
        deletion_and_insertion(image, segments, sign * weights, 1, predict, 0, 0)
        for sign in (1, -1)
    )

    assert perfect["deletion"] < perfect["random_deletion"] < reverse["deletion"]
    assert perfect["insertion"] > perfect["random_insertion"] > reverse["insertion"]
    # Halves, quarters, ... fall away, so 2^-i is left after i of ten steps.
    left = [weights.sum() - sum(2.0**-k for k in range(1, i + 1)) for i in range(11)]
    np.testing.assert_allclose(perfect["curves"]["deletion"], left, atol=1e-12)


def test_equal_weights_keep_the_order_of_the_superpixels(image):
    curves, expected_curves = (
        deletion_and_insertion(image, QUADRANTS, np.array(weights), 1, _curved, 0, 0)["curves"]
        for weights in ([1, 1, 1, 1], [4, 3, 2, 1])
    )

    assert curves == expected_curves


def test_more_superpixels_than_steps_are_hidden_in_groups():
    segments = np.arange(8 * 8).reshape(8, 8)
    image = np.random.default_rng(0).integers(1, 256, (8, 8, 3), dtype=np.uint8)
    weights = np.random.default_rng(1).permutation(64)

    curves = deletion_and_insertion(image, segments, weights, 1, _shown_fraction, 0, 0)["curves"]

    assert len(curves["pixels"]) == STEPS + 1
    assert set(np.diff(curves["pixels"]) * 64) == {3, 4}  # 64 superpixels in 20 steps
    np.testing.assert_allclose(curves["insertion"], curves["pixels"])
    np.testing.assert_allclose(curves["deletion"], 1 - np.array(curves["pixels"]))


def test_one_superpixel_has_two_points(image):
    result = deletion_and_insertion(
        image, np.zeros((4, 4), dtype=int), np.array([0.3]), 1, _curved, 0, 0
    )

    whole = _curved(image[None])[0, 1]
    assert result["curves"]["deletion"] == pytest.approx([whole, 0])
    assert result["deletion"] == result["insertion"] == pytest.approx(whole / 2)


def test_seed_governs_the_random_orders_alone(image):
    first, second, other = (
        deletion_and_insertion(image, QUADRANTS, np.arange(4), 1, _curved, 0, seed)
        for seed in (0, 0, 1)
    )

    assert first == second
    assert first["curves"] == other["curves"]
    assert first["random_deletion"] != other["random_deletion"]


def test_bad_predictions_and_fills_are_refused(image):
    def logits(images):
        return np.full((len(images), 2), 4.0)

    with pytest.raises(InputError, match="apply a softmax to logits"):
        deletion_and_insertion(image, QUADRANTS, np.arange(4), 1, logits, 0, 0)
    with pytest.raises(InputError, match="received 'blur'"):
        deletion_and_insertion(image, QUADRANTS, np.arange(4), 1, _curved, "blur", 0)


@pytest.mark.parametrize(
    ("weights", "top", "pointing", "overlap"),
    [
        ([0.4, 0.3, 0.2, 0.1], 1, True, 4 / 6),  # 0 is all in the region of 6
        ([0.4, 0.3, 0.2, 0.1], 2, True, 6 / 8),  # 1 brings 2 of its 4 pixels
        ([0.3, 0.4, 0.2, 0.1], 1, False, 2 / 8),
        ([0.1, 0.2, 0.3, 0.4], 1, False, 0 / 10),
        ([0.4, -0.3, -0.2, -0.1], 4, True, 4 / 6),  # only what speaks for the class counts
        ([-0.1, -0.3, -0.2, -0.4], 4, True, 0 / 6),
        ([0.4, 0.3, 0.2, 0.1], 9, True, 6 / 16),
    ],
)
def test_region_by_hand(weights, top, pointing, overlap):
    """The region is the upper left quadrant and the far column of the upper right one."""
    region = np.zeros((4, 4), dtype=bool)
    region[:2, :2] = region[:2, 3] = True

    agreement = compare_with_region(np.array(weights), QUADRANTS, region, top)

    assert agreement == {"pointing_game": pointing, "intersection_over_union": overlap}


@pytest.mark.parametrize("in_hole", [True, False])
def test_middle_of_a_ring_is_a_pixel_of_the_ring(in_hole):
    segments = np.zeros((5, 5), dtype=int)
    segments[1:4, 1:4] = 1
    region = (segments == 1) == in_hole

    agreement = compare_with_region(np.array([0.9, 0.1]), segments, region, 1)

    assert agreement["pointing_game"] == (not in_hole)
    assert agreement["intersection_over_union"] == (0.0 if in_hole else 1.0)


@pytest.fixture
def network(tmp_path):
    """Two dense layers with biases, and arrays of other kinds that must stay."""
    rng, helper = np.random.default_rng(1), onnx.helper
    arrays = {
        "first": rng.standard_normal((12, 8)).astype(np.float32),
        "first_bias": rng.standard_normal(8).astype(np.float32),
        "second": rng.standard_normal((8, 3)).astype(np.float32),
        "scale": np.float32(0.5),
        "whole_numbers": np.arange(6).reshape(1, 6),
        "doubles": np.arange(6.0).reshape(2, 3),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "first_bias"], ["b"]),
        helper.make_node("Tanh", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "second"], ["d"]),
        helper.make_node("Mul", ["d", "scale"], ["y"]),
        helper.make_node("Softmax", ["y"], ["probabilities"]),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", kind, ["n", 12])],
        [helper.make_tensor_value_info("probabilities", kind, ["n", 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    helper.set_model_props(model, {"kerasmed.kind": '"classifier"', "kerasmed.seed": "3"})
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    return path


def _arrays(path):
    return {array.name: numpy_helper.to_array(array) for array in onnx.load(path).graph.initializer}


def _outputs(path, name="probabilities"):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([name], {"x": IMAGES})[0]


@pytest.fixture
def shuffled(network):
    path = network.with_name("shuffled.onnx")
    randomise_weights(network, path, 0)
    return path


@pytest.mark.parametrize("name", ["first", "second"])
def test_weights_are_the_old_ones_in_another_order(network, shuffled, name):
    before, after = _arrays(network)[name], _arrays(shuffled)[name]

    assert (after.shape, after.dtype) == (before.shape, np.float32)
    assert (after != before).mean() > 0.5
    np.testing.assert_array_equal(np.sort(after.ravel()), np.sort(before.ravel()))


@pytest.mark.parametrize("name", ["first_bias", "scale", "whole_numbers", "doubles"])
def test_other_arrays_stay(network, shuffled, name):
    np.testing.assert_array_equal(_arrays(shuffled)[name], _arrays(network)[name])


def test_graph_and_metadata_stay(network, shuffled):
    before, after = onnx.load(network), onnx.load(shuffled)

    assert after.metadata_props == before.metadata_props
    assert after.graph.node[:-1] == before.graph.node
    assert [array.name for array in after.graph.initializer] == list(_arrays(network))
    onnx.checker.check_model(after)


def test_outputs_change_and_still_depend_on_the_input(network, shuffled):
    before, after = _outputs(network), _outputs(shuffled)

    assert np.abs(after - before).max() > 0.1
    assert after.std(axis=0).min() > 0.01


def test_what_goes_into_the_softmax_is_an_output(shuffled):
    logits = _outputs(shuffled, LOGITS)

    np.testing.assert_allclose(softmax(logits, axis=1), _outputs(shuffled), rtol=1e-5)


def test_network_without_a_softmax_is_refused(network):
    model = onnx.load(network)
    model.graph.node[-1].op_type = "Relu"
    onnx.save(model, network)

    with pytest.raises(
        ModelFileError, match="expected probabilities from a softmax, received Relu"
    ):
        randomise_weights(network, network.with_name("shuffled.onnx"), 0)


def test_seed_governs_the_order(network, shuffled):
    again, other = (network.with_name(name) for name in ("again.onnx", "other.onnx"))
    randomise_weights(network, again, 0)
    randomise_weights(network, other, 1)

    assert again.read_bytes() == shuffled.read_bytes()
    assert (_arrays(other)["first"] != _arrays(shuffled)["first"]).any()


def test_source_is_left_as_it_was(network):
    before = network.read_bytes()
    randomise_weights(network, network.with_name("shuffled.onnx"), 0)

    assert network.read_bytes() == before


def test_nothing_is_left_of_a_failure(network, monkeypatch):
    def full(*_):
        raise OSError("no room")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OSError, match="no room"):
        randomise_weights(network, network.with_name("shuffled.onnx"), 0)

    assert [path.name for path in network.parent.iterdir()] == ["network.onnx"]


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        randomise_weights(tmp_path / "nowhere.onnx", tmp_path / "shuffled.onnx", 0)


def test_the_order_of_arrays_in_the_file_changes_nothing(network, shuffled):
    model = onnx.load(network)
    arrays = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(arrays)
    reordered, target = network.with_name("reordered.onnx"), network.with_name("again.onnx")
    onnx.save(model, reordered)
    randomise_weights(reordered, target, 0)
    for name, values in _arrays(shuffled).items():
        np.testing.assert_array_equal(_arrays(target)[name], values)
