"""What `kerasmed init` takes from the machine and from the number of images."""

from pathlib import Path

import numpy as np
import pytest
from conftest import textures

from kerasmed.study import init as module
from kerasmed.study.config import load_config


@pytest.fixture
def archive(tmp_path):
    """600 small images of two classes."""
    path = tmp_path / "scans.npz"
    pixels = np.ascontiguousarray(textures(600, 0, 28)[..., 0])
    np.savez(path, train_images=pixels, train_labels=np.arange(600) % 2)
    return path


def hours(lines: list[str]) -> float:
    return float(lines[-1].removeprefix("Duration: roughly ").partition(" ")[0])


@pytest.mark.parametrize("has_gpu", [True, False])
def test_few_images_get_the_preset_cpu(archive, tmp_path, monkeypatch, has_gpu):
    monkeypatch.setattr(module, "has_cuda_driver", lambda: has_gpu)

    module.init(archive, tmp_path / "new.yaml")

    config = load_config(tmp_path / "new.yaml")
    assert (config.diffusion.preset, config.split.train) == ("cpu", 0.6)


def test_many_images_need_a_smaller_fraction_and_a_gpu_a_larger_network(
    archive, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(module, "_MANY", 600)
    monkeypatch.setattr(module, "_IMAGES_FOR_SMALL", 100)

    module.init(archive, tmp_path / "new.yaml")

    config = load_config(tmp_path / "new.yaml")
    assert (config.diffusion.preset, config.split.train) == ("small", 0.2)


def test_duration_falls_with_the_cores_but_not_below_the_training(archive, tmp_path, monkeypatch):
    durations = []
    for cores in (1, 2, 64):
        monkeypatch.setattr(module, "cpu_cores", lambda cores=cores: cores)
        durations.append(hours(module.init(archive, tmp_path / f"{cores}.yaml")))

    # 324 and 972 images, 3 CNNs, 10 epochs at 40 a second, draws and 5 minutes: 0.37 hours.
    assert durations == [1.7, 1.4, 1.0]


def test_default_path_is_a_name_for_a_study():
    assert module.default_path(Path("a/my scans")) == Path("my_scans.yaml")
    assert module.default_path(Path("/")) == Path("study.yaml")
    assert module.default_path(Path("写真")) == Path("study.yaml")
