"""The three data sets of arXiv:2412.16860: where they are published, and what they must hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasmed.data.sources import count_class_folders
from kerasmed.errors import DataError


@dataclass(frozen=True)
class KnownSet:
    """A published data set.

    Attributes:
        handle: owner and name on Kaggle.
        folder: where its class folders lie in the archive; "" at the top.
        counts: images of each class, as published.
        config: the experiment file that is made for it.
        licence: as stated by its publishers.
        citation: what to cite.
    """

    handle: str
    folder: str
    counts: dict[str, int]
    config: str
    licence: str
    citation: str

    @property
    def address(self) -> str:
        """Its page."""
        return f"https://www.kaggle.com/datasets/{self.handle}"


KNOWN: dict[str, KnownSet] = {
    "brain-tumor-mri": KnownSet(
        "masoudnickparvar/brain-tumor-mri-dataset",
        "Training",
        {"glioma": 1321, "meningioma": 1339, "notumor": 1595, "pituitary": 1457},
        "configs/brain_tumor_mri.yaml",
        "not confirmed; see its page",
        "Nickparvar, Brain Tumor MRI Dataset, Kaggle 2021, doi:10.34740/kaggle/dsv/2645886",
    ),
    "leukemia-all": KnownSet(
        "mehradaria/leukemia",
        "Original",
        {"Benign": 504, "Early": 985, "Pre": 963, "Pro": 804},
        "configs/leukemia_all.yaml",
        "not confirmed; see its page",
        "Aria et al., ALL image dataset, Kaggle 2021, doi:10.34740/KAGGLE/DSV/2175623",
    ),
    "sarscov2-ct": KnownSet(
        "plameneduardo/sarscov2-ctscan-dataset",
        "",
        {"COVID": 1252, "non-COVID": 1230},
        "configs/sarscov2_ct.yaml",
        "CC BY-NC-SA 4.0 by a third-party catalogue; see its page",
        "Soares et al., medRxiv 2020, doi:10.1101/2020.04.24.20078584",
    ),
}


def find_known(name: str) -> KnownSet:
    """The table's entry of that name.

    Raises:
        DataError: there is none.
    """
    if name not in KNOWN:
        raise DataError(
            f"Unknown data set {name!r}: expected one of {', '.join(KNOWN)}; a folder of your own "
            "needs no fetching, give it as --data."
        )
    return KNOWN[name]


def fetch(name: str, target: Path) -> Path:
    """Download a known set.

    Args:
        name: a key of KNOWN.
        target: folder that the archive is unpacked into.

    Returns:
        The folder that was written.

    Raises:
        DataError: no network, no access, or nothing was delivered; with what to do by hand.
    """
    known = find_known(name)
    by_hand = (
        f"download it from {known.address} in a browser, unpack it, and run "
        f"`kerasmed data fetch {name} --from DIR`"
    )
    import kagglehub

    try:
        kagglehub.dataset_download(known.handle, output_dir=str(target))
    except Exception as error:  # kagglehub lets through what requests, urllib3 and Kaggle raise
        told = " ".join(str(error).split()).partition(" (Caused by")[0]
        reason = f"{type(error).__name__}: {told}"[:160]
        raise DataError(
            f"Cannot fetch {known.handle} from Kaggle ({reason}). Check the network; if it asks "
            f"for a login, put a token of your Kaggle account into ~/.kaggle/kaggle.json. "
            f"Or {by_hand}."
        ) from None
    return target


def verify(name: str, directory: Path) -> dict[str, Any]:
    """Compare a copy on disk with what was published.

    Args:
        name: a key of KNOWN.
        directory: the unpacked archive, or its folder of class folders.

    Returns:
        ``source``: the folder to give as ``data.source``; ``found`` and ``published``: images of
        each class; ``complete``: whether no class has fewer than published.

    Raises:
        DataError: the classes are not those of the set.
    """
    known = find_known(name)
    inside = directory / known.folder
    source = inside if inside.is_dir() else directory
    found = count_class_folders(source)
    if set(found) != set(known.counts):
        raise DataError(
            f"{source}: expected the class folders {sorted(known.counts)} of {name}, "
            f"received {sorted(found)}; give the unpacked archive or the folder that holds them."
        )
    complete = all(found[label] >= count for label, count in known.counts.items())
    return {"source": source, "found": found, "published": known.counts, "complete": complete}
