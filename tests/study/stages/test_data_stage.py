"""The data stage reads every file once, unless its grey range has to be found first."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.study.config import Config
from kerasmed.study.inputs import load_images
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.data import split_data


def write_set(folder: Path, dtype: type) -> None:
    """Twenty random images of each of two classes."""
    rng = np.random.default_rng(0)
    most = 256 if dtype is np.uint8 else 3000
    for i in range(40):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, most, (32, 32)).astype(dtype)).save(path)


@pytest.mark.parametrize(
    ("dtype", "settings", "times"),
    [(np.uint8, {}, 1), (np.uint16, {}, 2), (np.uint16, {"grey_range": [0, 3000]}, 1)],
)
def test_files_are_decoded_again_only_to_find_their_range(
    tmp_path, decodes, dtype, settings, times
):
    write_set(tmp_path / "set", dtype)
    data = {"source": tmp_path / "set", "image_size": 32, **settings}
    config = Config.model_validate({"name": "x", "data": data})
    run = RunFolder(tmp_path / "run")

    result = split_data(config, run)

    assert set(decodes.values()) == {times}
    assert len(decodes) == 40
    assert (result["grey_range"] is None) == (times == 1)
    images = load_images(config, run, result["grey_range"] and tuple(result["grey_range"]))
    assert set(decodes.values()) == {times}
    assert images.data_hash == result["data_hash"]
