"""The three data sets of arXiv:2412.16860: where they are published, and what they contain."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasmed.data.sources import count_class_folders
from kerasmed.errors import DataError


@dataclass(frozen=True)
class Dataset:
    """A published data set.

    Attributes:
        handle: owner and name on Kaggle.
        folder: folder of its class folders in the archive; "" for the top.
        counts: published number of images of each class.
        config: experiment file for it.
        licence: licence as its publishers state it.
        citation: reference to cite.
    """

    handle: str
    folder: str
    counts: dict[str, int]
    config: str
    licence: str
    citation: str

    @property
    def address(self) -> str:
        """Address of its page."""
        return f"https://www.kaggle.com/datasets/{self.handle}"


DATASETS: dict[str, Dataset] = {
    "brain-tumor-mri": Dataset(
        "masoudnickparvar/brain-tumor-mri-dataset",
        "Training",
        {"glioma": 1321, "meningioma": 1339, "notumor": 1595, "pituitary": 1457},
        "configs/brain_tumor_mri.yaml",
        "not confirmed; see its page",
        "Nickparvar, Brain Tumor MRI Dataset, Kaggle 2021, doi:10.34740/kaggle/dsv/2645886",
    ),
    "leukemia-all": Dataset(
        "mehradaria/leukemia",
        "Original",
        {"Benign": 504, "Early": 985, "Pre": 963, "Pro": 804},
        "configs/leukemia_all.yaml",
        "not confirmed; see its page",
        "Aria et al., ALL image dataset, Kaggle 2021, doi:10.34740/KAGGLE/DSV/2175623",
    ),
    "sarscov2-ct": Dataset(
        "plameneduardo/sarscov2-ctscan-dataset",
        "",
        {"COVID": 1252, "non-COVID": 1230},
        "configs/sarscov2_ct.yaml",
        "CC BY-NC-SA 4.0 by a third-party catalogue; see its page",
        "Soares et al., medRxiv 2020, doi:10.1101/2020.04.24.20078584",
    ),
}


def find_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        DataError: the name is unknown.
    """
    if name not in DATASETS:
        raise DataError(
            f"Unknown data set {name!r}: expected one of {', '.join(DATASETS)}; or use your "
            "own folder with --data, which needs no fetch."
        )
    return DATASETS[name]


def fetch(name: str, target: Path) -> Path:
    """Download a known set.

    Args:
        name: a key of DATASETS.
        target: folder that the archive is unpacked into.

    Returns:
        The folder that was written.

    Raises:
        DataError: there is no network or no access, or nothing was delivered. The message says how
            to download the set by hand.
    """
    dataset = find_dataset(name)
    by_hand = (
        f"download it from {dataset.address} in a browser, unpack it, and run "
        f"`kerasmed data fetch {name} --from DIR`"
    )
    import kagglehub

    try:
        kagglehub.dataset_download(dataset.handle, output_dir=str(target))
    except Exception as error:  # kagglehub raises what requests, urllib3 and Kaggle raise
        message = " ".join(str(error).split()).partition(" (Caused by")[0]
        reason = f"{type(error).__name__}: {message}"[:160]
        raise DataError(
            f"Cannot fetch {dataset.handle} from Kaggle ({reason}). Check the network; if it asks "
            f"for a login, put a token of your Kaggle account into ~/.kaggle/kaggle.json. "
            f"Or {by_hand}."
        ) from None
    return target


def verify(name: str, directory: Path) -> dict[str, Any]:
    """Compare a copy on disk with what was published.

    Args:
        name: a key of DATASETS.
        directory: the unpacked archive, or its folder of class folders.

    Returns:
        ``source``: the folder to give as ``data.source``; ``found`` and ``published``: number of
        images of each class; ``complete``: whether no class has fewer than published.

    Raises:
        DataError: the classes are not those of the set.
    """
    dataset = find_dataset(name)
    subfolder = directory / dataset.folder
    source = subfolder if subfolder.is_dir() else directory
    counts = count_class_folders(source)
    if set(counts) != set(dataset.counts):
        raise DataError(
            f"{source}: expected the class folders {sorted(dataset.counts)} of {name}, "
            f"received {sorted(counts)}; give the unpacked archive or the folder that holds them."
        )
    complete = all(counts[label] >= count for label, count in dataset.counts.items())
    return {"source": source, "found": counts, "published": dataset.counts, "complete": complete}
