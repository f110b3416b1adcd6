"""The published sets: copies on disk against their numbers, and what a failed fetch tells."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from kerasmed.data.datasets import DATASETS, fetch, find_dataset, verify
from kerasmed.errors import DataError
from kerasmed.study.config import load_config

ROOT = Path(__file__).parents[2]


def make_copy(folder: Path, counts: dict[str, int]) -> Path:
    """Class folders with as many files; what they hold is never looked at."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.jpg").touch()
    return folder


def few(name: str, count: int = 3) -> dict[str, int]:
    return dict.fromkeys(DATASETS[name].counts, count)


@pytest.fixture
def small(monkeypatch):
    """The leukaemia set, as if three images of each class had been published."""
    entry = DATASETS["leukemia-all"]
    monkeypatch.setitem(DATASETS, "leukemia-all", type(entry)(**vars(entry) | {"counts": SMALL}))
    return "leukemia-all"


SMALL = {"Benign": 3, "Early": 3, "Pre": 3, "Pro": 3}


def test_totals_are_those_that_the_publishers_give():
    totals = {name: sum(entry.counts.values()) for name, entry in DATASETS.items()}

    assert totals == {"brain-tumor-mri": 5712, "leukemia-all": 3256, "sarscov2-ct": 2482}


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_has_an_experiment_that_loads(name):
    entry = DATASETS[name]

    config = load_config(ROOT / entry.config)

    assert config.data.source == Path("data") / name / entry.folder  # as `fetch` unpacks it
    assert entry.address == f"https://www.kaggle.com/datasets/{entry.handle}"
    assert entry.licence
    assert entry.citation


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="'mnist': expected one of brain-tumor-mri, leukemia-all"):
        find_dataset("mnist")


def test_complete_copy_is_verified(small, tmp_path):
    result = verify(small, make_copy(tmp_path / "copy", SMALL))

    assert result == {
        "source": tmp_path / "copy",
        "found": SMALL,
        "published": SMALL,
        "complete": True,
    }


def test_copy_with_more_images_is_complete(small, tmp_path):
    assert verify(small, make_copy(tmp_path, SMALL | {"Pro": 5}))["complete"]


def test_copy_with_fewer_images_of_one_class_is_not_complete(small, tmp_path):
    result = verify(small, make_copy(tmp_path, SMALL | {"Pro": 2, "Pre": 9}))

    assert not result["complete"]
    assert result["found"] == {"Benign": 3, "Early": 3, "Pre": 9, "Pro": 2}


def test_unpacked_archive_is_looked_into(small, tmp_path):
    make_copy(tmp_path / "Segmented", few(small))
    make_copy(tmp_path / "Original", SMALL)

    result = verify(small, tmp_path)

    assert result["source"] == tmp_path / "Original"
    assert result["complete"]


@pytest.mark.parametrize(
    "counts", [{"Benign": 3, "Early": 3, "Pre": 3}, SMALL | {"Later": 3}, {"cats": 1, "dogs": 1}]
)
def test_other_classes_are_refused(small, tmp_path, counts):
    make_copy(tmp_path, counts)

    with pytest.raises(DataError) as caught:
        verify(small, tmp_path)

    assert f"{tmp_path}: expected the class folders {sorted(SMALL)} of leukemia-all" in (
        str(caught.value)
    )
    assert f"received {sorted(counts)}" in str(caught.value)


def test_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"Nothing at {tmp_path / 'no'}"):
        verify("sarscov2-ct", tmp_path / "no")


def no_network(handle: str, **options) -> str:
    raise ConnectionError(
        "HTTPSConnectionPool(host='www.kaggle.com', port=443):\nMax retries exceeded with url: /api"
    )


@pytest.mark.parametrize("name", DATASETS)
def test_fetch_without_network_says_what_to_do_by_hand(monkeypatch, tmp_path, name):
    monkeypatch.setattr("kagglehub.dataset_download", no_network)

    with pytest.raises(DataError) as caught:
        fetch(name, tmp_path / name)

    message = str(caught.value)
    assert f"Cannot fetch {DATASETS[name].handle} from Kaggle" in message
    assert "Max retries exceeded" in message
    assert f"download it from {DATASETS[name].address} in a browser" in message
    assert f"`kerasmed data fetch {name} --from DIR`" in message
    assert "~/.kaggle/kaggle.json" in message
    assert "\n" not in message
    assert len(message) < 700


def test_reason_without_words_is_told_by_its_kind(monkeypatch, tmp_path):
    def refuse(handle: str, **options) -> str:
        raise TimeoutError

    monkeypatch.setattr("kagglehub.dataset_download", refuse)

    with pytest.raises(DataError, match="TimeoutError"):
        fetch("sarscov2-ct", tmp_path)


def test_fetch_unpacks_into_the_folder_that_was_named(monkeypatch, tmp_path):
    asked = []

    def download(handle: str, **options) -> str:
        asked.append(SimpleNamespace(handle=handle, **options))
        make_copy(Path(options["output_dir"]) / "Original", few("leukemia-all"))
        return options["output_dir"]

    monkeypatch.setattr("kagglehub.dataset_download", download)

    folder = fetch("leukemia-all", tmp_path / "here")

    assert folder == tmp_path / "here"
    assert asked == [
        SimpleNamespace(handle="mehradaria/leukemia", output_dir=str(tmp_path / "here"))
    ]
    assert verify("leukemia-all", folder)["found"] == few("leukemia-all")
