"""Small sets and one tiny study for all tests."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import hypothesis
import numpy as np
import onnx
import portalocker
import pytest
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter

from kerasmed.cli.main import main
from kerasmed.data import entries
from kerasmed.data.image_file import ImageFile
from kerasmed.data.image_set import ImageSet
from kerasmed.data.phantoms import FAMILIES, draw_phantom
from kerasmed.files import sha256_of, write_json
from kerasmed.study.run_folder import RunFolder

# The same examples every time, so that no test fails by chance; `make test-all` draws others.
hypothesis.settings.register_profile(
    "default", max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("default"), max_examples=3000, derandomize=False
)
hypothesis.settings.load_profile("default")

TINY = {
    "name": "tiny",
    "data": {
        "phantoms": {"family": "ct", "per_class": 60},
        "image_size": 16,
        "symmetry": "mirror",
    },
    "split": {"train": 0.4, "test": 0.2},
    "diffusion": {
        "widths": [8, 16],
        "max_images": 32,
        "checkpoint_steps": 4,
        "batch_size": 4,
        "preview_every": 2,
        "warmup_steps": 2,
    },
    "sampling": {"steps": 3, "batch_size": 8},
    "classifiers": {
        "backbones": ["MobileNet"],
        "train_on": ["real", "synthetic", "both"],
        "weights": "none",
        "input_size": 32,
        "finetune_epochs": 3,
        "finetune_learning_rate": 0.003,
        "batch_size": 8,
    },
    "evaluation": {"bootstrap_samples": 100},
    "explain": {"images_per_class": 1, "num_samples": 30, "superpixels": 10},
}


def phantom_set(family: str = "ct", per_class: int = 10, size: int = 16) -> ImageSet:
    """Phantoms in memory."""
    names = tuple(sorted(FAMILIES[family]))
    drawn = [(label, i) for label in range(len(names)) for i in range(per_class)]
    images = [draw_phantom(family, names[label], i, size, 0)[0] for label, i in drawn]
    files = [ImageFile(Path(f"{names[c]}/{i}.png"), f"{c}-{i}", names[c]) for c, i in drawn]
    labels = np.array([label for label, _ in drawn], dtype=np.int32)
    return ImageSet(np.stack(images), labels, names, tuple(files))


def textures(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Smooth random pictures, no two alike: uint8 (count, size, size, 3)."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = gaussian_filter(noise, (0, 1.2, 1.2))
    grey = np.clip(128 + 50 * smooth / smooth.std(), 0, 255)
    return np.repeat(grey[..., None], 3, axis=3).astype(np.uint8)


def pair_batches(images: ImageSet):
    """Five batches of four images and their labels, as a ``PyDataset`` of Keras."""
    import keras

    class Pairs(keras.utils.PyDataset):
        num_batches = 5

        def __getitem__(self, index):
            rows = slice(4 * index, 4 * index + 4)
            return images.images[rows], images.labels[rows]

    return Pairs()


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A working directory of the tests' own, since some commands write there."""
    with chdir(tmp_path_factory.mktemp("here")):
        yield


@pytest.fixture
def phantoms() -> ImageSet:
    """Twenty chest phantoms of two classes, 16 pixels wide."""
    return phantom_set()


def no_levels(x, condition, settings):
    """Stands in for the levels of a denoiser, which take most of the time to build."""
    import keras

    x = x + keras.layers.Dense(x.shape[-1])(condition)[:, None, None, :]
    return keras.layers.Dropout(settings.dropout)(x) if settings.dropout else x


@pytest.fixture
def few_layers() -> Iterator[pytest.MonkeyPatch]:
    """Denoisers without their levels; ``undo`` of this brings them back."""
    from kerasmed.diffusion import unet

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "_down_and_up", no_levels)
        yield patch


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder of two class folders with twelve images each."""
    folder = tmp_path / "images"
    small = phantom_set(per_class=12)
    for image, file in zip(small.images, small.files, strict=True):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / file.path)
    return folder


@pytest.fixture
def decodes(monkeypatch) -> Counter:
    """Number of times that each file is decoded."""
    counts: Counter = Counter()
    read_pictures = entries.read_pictures

    def count(path, *arguments):
        counts[path] += 1
        return read_pictures(path, *arguments)

    monkeypatch.setattr(entries, "read_pictures", count)
    return counts


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The experiment file of the shared study."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of a whole study on tiny phantoms; read it, do not change it.

    It serves all test processes: the first that needs it makes it, and the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "tiny"
    with portalocker.Lock(shared / "tiny.lock", timeout=600):
        if not (folder / "report.html").exists():
            assert main(["study", str(tiny_config), "--out", str(folder)]) == 0
    before = {path: sha256_of(path) for path in folder.rglob("[!.]*") if path.is_file()}
    yield folder
    changed = [str(path) for path, mark in before.items() if sha256_of(path) != mark]
    assert not changed, "a test has changed the study of all tests"


@pytest.fixture
def run_copy(tiny_run, tmp_path):
    """A copy of the tiny study that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def accept_outputs(root: Path) -> None:
    """Record the results in a run folder as they are, as if its stages had written them so."""
    run = RunFolder(root)
    record = run.record()
    for entry in record["stages"].values():
        outputs = {name: sha256_of(root / name) for name in entry["outputs"]}
        entry["outputs"] = outputs
        for later in record["stages"].values():
            recorded = later["built_on"]["inputs"]
            recorded.update({name: outputs[name] for name in outputs if name in recorded})
    write_json(run.record_path, record)


@pytest.fixture
def model_path(tmp_path):
    """A hand-made classifier: probabilities from the mean of the red channel alone."""
    helper, kinds = onnx.helper, onnx.TensorProto
    scale = onnx.numpy_helper.from_array(np.float32([1 / 255]), "scale")
    axes = onnx.numpy_helper.from_array(np.int64([1, 2]), "axes")
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=kinds.FLOAT),
        helper.make_node("Mul", ["x", "scale"], ["y"]),
        helper.make_node("ReduceMean", ["y", "axes"], ["features"], keepdims=0),
        helper.make_node("Softmax", ["features"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["n", 4, 4, 3])],
        [
            helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("features", kinds.FLOAT, ["n", 3]),
        ],
        [scale, axes],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    own = {"kind": "classifier", "class_names": ["r", "g", "b"], "input_size": 4}
    helper.set_model_props(model, {f"kerasmed.{k}": json.dumps(v) for k, v in own.items()})
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path
