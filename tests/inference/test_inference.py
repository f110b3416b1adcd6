import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from kerasmed.errors import DataError, InputError, MachineError, ModelFileError
from kerasmed.inference import classifier as inference
from kerasmed.inference import session
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.metadata import FORMAT
from kerasmed.inference.session import open_session
from kerasmed.runtime import hardware
from kerasmed.runtime.hardware import CoreLimits

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), dtype=np.uint8)


def test_outputs_are_those_of_the_graph(model_path):
    engine = OnnxClassifier(model_path)
    means = IMAGES.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(engine.features(IMAGES), means, atol=1e-6)
    expected = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(engine.predict(IMAGES), expected, atol=1e-6)
    assert engine.class_names == ["r", "g", "b"]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_results_do_not_depend_on_batch_size(model_path, batch_size):
    probabilities = OnnxClassifier(model_path, batch_size=batch_size).predict(IMAGES)
    np.testing.assert_allclose(probabilities, OnnxClassifier(model_path).predict(IMAGES), atol=1e-7)


def test_plain_onnxruntime_is_enough(model_path):
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["kerasmed.class_names"])
    (probabilities,) = session.run(["probabilities"], {"images": IMAGES})
    assert names == ["r", "g", "b"]
    np.testing.assert_allclose(probabilities, OnnxClassifier(model_path).predict(IMAGES), atol=1e-7)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (IMAGES / np.float32(255), r"received float32 \(7, 4, 4, 3\)"),
        (IMAGES.transpose(0, 3, 1, 2), r"received uint8 \(7, 3, 4, 4\)"),
        (IMAGES[..., 0], r"received uint8 \(7, 4, 4\)"),
        (IMAGES[:0], "received an empty batch"),
        (IMAGES[:, :2, :2], r"received \(7, 2, 2, 3\)"),
        ([[1]], "expected paths or uint8 arrays, received list"),
        (7, "received int; put a single one into a list"),
        ("slice.png", "received str; put a single one into a list"),
        ([], "at least one image or path, received none"),
        ([IMAGES[0], IMAGES[0][:2]], r"received \(1, 2, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(model_path, images, received):
    with pytest.raises(InputError, match=received):
        OnnxClassifier(model_path).predict(images)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match="No model file at"):
        OnnxClassifier(tmp_path / "nowhere.onnx")


def test_file_that_is_not_onnx_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match=r"text\.onnx is not a model that onnxruntime"):
        OnnxClassifier(path)


def test_foreign_onnx_is_refused(model_path):
    model = onnx.load(model_path)
    del model.metadata_props[:]
    onnx.save(model, model_path)
    with pytest.raises(ModelFileError, match="ONNX but not a kerasmed classifier"):
        OnnxClassifier(model_path)


def test_classifier_is_not_taken_for_a_denoiser(model_path):
    with pytest.raises(ModelFileError, match="not a kerasmed denoiser"):
        OnnxDenoiser(model_path)


def test_unknown_provider_is_refused(model_path):
    with pytest.raises(InputError, match=r"one of auto, cpu, cuda, .*; received 'tpu'"):
        OnnxClassifier(model_path, provider="tpu")


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("cuda", "onnxruntime-gpu with the CUDA 12 libraries"),
        ("tensorrt", "TensorRT"),
        ("openvino", "onnxruntime-openvino in place of"),
        ("coreml", "on macOS"),
    ],
)
def test_provider_that_does_not_run_is_an_error_not_a_quiet_cpu(
    model_path, monkeypatch, provider, remedy
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        MachineError, match=f"expected {provider}, but onnxruntime runs CPU.*{remedy}"
    ):
        OnnxClassifier(model_path, provider=provider)


def test_auto_takes_the_cpu_where_there_is_no_driver(model_path, monkeypatch, caplog):
    monkeypatch.setattr(session, "has_cuda_driver", lambda: False)
    with caplog.at_level("INFO", "kerasmed"):
        assert OnnxClassifier(model_path).provider == "CPUExecutionProvider"
    assert "model.onnx runs on CPUExecutionProvider" in caplog.text


def test_no_paths_and_unreadable_paths_are_refused(model_path, tmp_path):
    engine = OnnxClassifier(model_path)
    with pytest.raises(InputError, match="at least one image or path"):
        engine.read([])
    with pytest.raises(DataError, match=r"nowhere\.png"):
        engine.read([tmp_path / "nowhere.png"])


def _saved(folder, images=IMAGES):
    paths = []
    for i, image in enumerate(images):
        paths.append(folder / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def test_arrays_iterators_and_paths_give_the_same_in_the_same_order(model_path, tmp_path):
    engine, paths = OnnxClassifier(model_path, batch_size=3), _saved(tmp_path)
    expected = engine.outputs(IMAGES)
    for images in (iter(IMAGES), paths, (str(path) for path in paths), [paths[0], *IMAGES[1:]]):
        outputs = engine.outputs(images)
        for name, values in expected.items():
            np.testing.assert_array_equal(outputs[name], values)


def test_images_are_taken_as_they_are_wanted(model_path):
    taken = []

    def endless():
        while True:
            taken.append(0)
            yield IMAGES[0]

    batches = OnnxClassifier(model_path, threads=2, batch_size=2).stream(endless())
    assert len(next(batches)["probabilities"]) == 2
    next(batches)
    batches.close()
    assert len(taken) <= 2 * (2 + 2)  # two threads have a batch each, one waits, one was given


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (CoreLimits(8, 8, omp_threads=3), 3),
        (CoreLimits(8, 8, quota=2.5), 3),
        (CoreLimits(8, 2), 2),
        (CoreLimits(8, 8), 0),  # onnxruntime's own choice
    ],
)
def test_limits_of_the_machine_hold_for_a_session(model_path, monkeypatch, limits, expected):
    monkeypatch.setattr("kerasmed.runtime.hardware.core_limits", lambda: limits)
    for threads, number in ((None, expected), (2, 2)):
        session, _ = open_session(model_path, "cpu", threads)
        assert session.get_session_options().intra_op_num_threads == number


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_neither_values_nor_order(model_path, threads):
    images = np.random.default_rng(1).integers(0, 256, (41, 4, 4, 3), dtype=np.uint8)
    expected = np.concatenate([OnnxClassifier(model_path).predict(i[None]) for i in images])
    probabilities = OnnxClassifier(model_path, threads=threads, batch_size=2).predict(images)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_each_core_runs_batches_of_its_own_where_there_are_several(model_path):
    engine = OnnxClassifier(model_path, threads=3, batch_size=2)
    engine.predict(IMAGES[:2])
    assert engine._session_for_many is None
    engine.predict(IMAGES)
    assert engine._session_for_many.get_session_options().intra_op_num_threads == 1


def test_error_of_an_iterator_comes_through(model_path, tmp_path):
    paths = _saved(tmp_path)
    paths[4].write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Cannot read .*4\.png"):
        OnnxClassifier(model_path, batch_size=2).predict(paths)


@pytest.mark.parametrize(
    ("batch_size", "images", "expected"),
    [("auto", 1, [1]), ("auto", 3, [4]), ("auto", 11, [8, 4]), (4, 1, [4]), (4, 7, [4, 4])],
)
def test_last_batch_is_padded(model_path, batch_size, images, expected):
    engine = OnnxClassifier(model_path, provider="cpu", threads=1, batch_size=batch_size)
    session, ran = engine._session, []

    class Spy:
        get_outputs = session.get_outputs

        def run(self, names, feeds):
            ran.append(len(feeds["images"]))
            return session.run(names, feeds)

    engine._session = Spy()
    assert len(engine.predict(np.resize(IMAGES, (images, 4, 4, 3)))) == images
    assert ran == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, 'expected "auto" or 1 or more, received 0'),
        ({"batch_size": "Auto"}, "expected \"auto\" or 1 or more, received 'Auto'"),
        ({"threads": -1}, "Threads: expected 1 or more, or None for all, received -1"),
        ({"precision": "int8"}, "received 'int8'; for the int8 file give its path"),
    ],
)
def test_options_that_mean_nothing_are_refused(model_path, options, message):
    with pytest.raises(InputError, match=message):
        OnnxClassifier(model_path, **options)


def test_outputs_that_are_not_there_are_refused(model_path):
    with pytest.raises(InputError, match=r"expected some of .*, received \['logits'\]"):
        OnnxClassifier(model_path).outputs(IMAGES, ("logits",))


def test_closed_model_says_so(model_path):
    with OnnxClassifier(model_path) as engine:
        engine.predict(IMAGES)
    with pytest.raises(InputError, match=r"model\.onnx was closed .*; open it again"):
        engine.predict(IMAGES)
    engine.__exit__()


def test_file_that_was_replaced_does_not_answer_in_part(model_path, tmp_path, monkeypatch):
    engine = OnnxClassifier(model_path, threads=2, batch_size=2)
    warm = OnnxClassifier(model_path, threads=2, batch_size=2)
    warm.warm_up()
    expected = warm.predict(IMAGES)
    model_path.write_bytes(model_path.read_bytes() + b"")  # the same bytes at another time
    with pytest.raises(ModelFileError, match="has changed since it was opened"):
        engine.predict(IMAGES)
    np.testing.assert_allclose(engine.predict(IMAGES[:1]), expected[:1], atol=1e-6)
    # What is warm has opened all that it needs.
    np.testing.assert_array_equal(warm.predict(IMAGES), expected)


def test_path_is_that_of_the_folder_in_which_it_was_opened(model_path, tmp_path, monkeypatch):
    monkeypatch.chdir(model_path.parent)
    engine = OnnxClassifier(model_path.name, threads=2, batch_size=2)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(engine.predict(IMAGES)) == len(IMAGES)


def test_several_threads_may_share_one_engine(model_path):
    with OnnxClassifier(model_path, batch_size=2) as engine, ThreadPoolExecutor(4) as pool:
        engine.warm_up()
        expected = engine.predict(IMAGES)
        for probabilities in pool.map(engine.predict, [IMAGES] * 20):
            np.testing.assert_array_equal(probabilities, expected)


@pytest.mark.parametrize(
    ("flags", "running", "expected"),
    [
        ("fpu avx512_vnni", "cpu", "model.int8.onnx"),
        ("fpu", "cpu", "model.onnx"),
        ("fpu avx512_vnni", "cuda", "model.fp16.onnx"),
        ("fpu avx512_vnni", "coreml", "model.onnx"),
    ],
)
def test_precision_suits_what_runs(model_path, monkeypatch, flags, running, expected):
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": flags})
    really = inference.open_session
    name = inference.PROVIDERS[running].name
    monkeypatch.setattr(inference, "open_session", lambda path, *_: (really(path, "cpu")[0], name))
    for suffix in (".int8", ".fp16"):
        _write_precision(model_path, suffix)
    assert OnnxClassifier(model_path, precision="auto").path.name == expected
    assert OnnxClassifier(model_path).path == model_path


def test_precision_of_another_training_is_not_taken(model_path, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": "avx_vnni"})
    int8_path = _write_precision(model_path, ".int8")
    assert OnnxClassifier(model_path, precision="auto").path == int8_path
    _set_metadata(model_path, seed=5)  # exported again, so the int8 file is out of date
    assert OnnxClassifier(model_path, precision="auto").path == model_path
    assert "was not made from model.onnx and is ignored" in caplog.text


def test_driver_without_a_working_cuda_means_the_cpu_and_prints_nothing(
    model_path, monkeypatch, capfd
):
    monkeypatch.setattr(session, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": "avx512_vnni"})
    for suffix in (".int8", ".fp16"):
        _write_precision(model_path, suffix)
    engine = OnnxClassifier(model_path, precision="auto")
    if engine.provider != "CPUExecutionProvider":
        pytest.skip("CUDA works here")
    assert engine.path.name == "model.int8.onnx"
    assert capfd.readouterr().out == ""


def test_precision_without_a_file_is_not_taken(model_path, monkeypatch):
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": "avx_vnni"})
    assert OnnxClassifier(model_path, precision="auto").path == model_path


def _write_precision(path, suffix):
    """As a file of another precision, made from this one."""
    other_path = Path(shutil.copyfile(path, path.with_suffix(f"{suffix}.onnx")))
    _set_metadata(other_path, float32_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return other_path


def _set_metadata(path, **changes):
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    metadata |= {f"kerasmed.{key}": json.dumps(value) for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value != "null"}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def test_file_of_a_later_kerasmed_is_refused(model_path):
    _set_metadata(model_path, format=FORMAT + 1, kerasmed_version="9.0")
    with pytest.raises(ModelFileError, match=r"is of kerasmed 9\.0: .* update kerasmed"):
        OnnxClassifier(model_path)


def test_missing_metadata_is_named(model_path):
    _set_metadata(model_path, class_names=None)
    with pytest.raises(
        ModelFileError, match="received none that can be used for class_names; export it again"
    ):
        OnnxClassifier(model_path)


@pytest.mark.parametrize(
    "metadata",
    [
        {"class_names": "abc"}, {"class_names": ["a", "b"]}, {"class_names": [1, 2, 3]},
        {"input_size": "4"}, {"input_size": 5}, {"input_size": 0}, {"format": "2"},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_does_not_fit_the_graph_is_refused(model_path, metadata):
    _set_metadata(model_path, **metadata)
    with pytest.raises(ModelFileError, match=r"expected .*received"):
        OnnxClassifier(model_path)


def test_truncated_file_is_refused(model_path):
    model_path.write_bytes(model_path.read_bytes()[:-50])
    with pytest.raises(ModelFileError, match="is not a model that onnxruntime"):
        OnnxClassifier(model_path)


def test_weights_outside_the_folder_are_refused(model_path, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    model = onnx.load(model_path)
    (tmp_path / "secret.bin").write_bytes(np.float32([1 / 255]).tobytes())
    tensor = next(array for array in model.graph.initializer if array.name == "scale")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    (inside / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="is not a model that onnxruntime"):
        OnnxClassifier(inside / "model.onnx")
