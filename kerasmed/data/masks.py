"""Finds masks: pictures that mark regions of other pictures and are not training images.

A name raises the suspicion: that of another picture with a suffix, or a folder called masks. The
pixels decide: a mask has two values, or few.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasmed.data.picture import Picture

_WORD = (
    r"(?:masks?|masken?|segs?|segmentations?|segmented|labels?|labelmaps?|gts?|ground[ _-]?truths?|"
    r"annotations?|annots?|rois?|contours?|manual|outlines?|lesions?|superpixels?)"
)
# A whole word: next to no letters, or where a capital begins the next word.
_IS_NAMED = re.compile(rf"(?:^|[^A-Za-z]|(?<=[a-z0-9)])(?=[A-Z]))(?i:{_WORD})(?![a-z])")
# Names of folders may have it inside a word, such as "lungmask" or "SegmentationClass".
_INSIDE = re.compile(r"mask|segmentation|ground[ _-]?truth|annotation", re.IGNORECASE)
# "x_mask", "x-seg2", "x.gt (1)", "xMask"
_SUFFIX = re.compile(rf"(?P<stem>.+?)(?:[ _.-]+|(?<=[a-z0-9)]))(?i:{_WORD})[ _.()-]*\d*\)?")
# Words and signs by which the names of an image and of its mask differ.
_KIND = re.compile(
    rf"(?:(?<![a-z])(?:{_WORD}|images?|imgs?|photos?|pictures?)(?![a-z])|[ _.()-])+",
    re.IGNORECASE,
)
# How many names that follow a mask's stem alphabetically are searched for its image.
_NAMES_SEARCHED = 8

# Most colours of a mask whose name only has a suffix.
_TWO = 2
# A mask whose name says so has at most 16 colours; or 80% of its foreground pixels equal their
# neighbours, or 70% are within 24 levels of white.
_FEW, _FLAT, _NEAR, _FRACTION_NEAR = 16, 0.8, 24, 0.7


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a file may be a mask.

    Attributes:
        named: whether the name of the file or its folder says so; else it just has a suffix.
        image: the picture that it may be the mask of.
    """

    named: bool
    image: Path


def suspected_masks(
    paths: Sequence[Path], stems: Sequence[str], root: Path
) -> dict[Path, Suspicion]:
    """Files that may be masks, judging by their names.

    Args:
        paths: all files of a set.
        stems: their names without the suffix of the format.
        root: the folder of the set; names of folders above it are ignored.
    """
    in_folder: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    images: dict[tuple[str, str], Path] = {}
    anywhere: dict[str, Path] = {}
    in_mask_folder: list[tuple[Path, str]] = []
    mask_folders = {
        folder
        for folder in {path.parent for path in paths}
        if folder.is_relative_to(root) and any(map(is_mask_folder, folder.relative_to(root).parts))
    }
    for path, stem in zip(paths, stems, strict=True):
        if path.parent in mask_folders:
            in_mask_folder.append((path, stem))
        else:
            in_folder[path.parent].append((stem, path))
            images.setdefault((_top(path, root), _key(stem)), path)
            anywhere.setdefault(_key(stem), path)
    suspicions = {}
    for path, stem in in_mask_folder:
        top = _top(path, root)
        if image := images.get((top, _key(stem))):
            suspicions[path] = Suspicion(True, image)
        # A mask folder next to the classes: its name is weaker evidence.
        elif is_mask_folder(top) and (image := anywhere.get(_key(stem))):
            suspicions[path] = Suspicion(False, image)
    for files in in_folder.values():
        suspicions |= _suspected_in(files)
    return suspicions


def _top(path: Path, root: Path) -> str:
    """The class folder that a file is in."""
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else ""


def _suspected_in(files: list[tuple[str, Path]]) -> dict[Path, Suspicion]:
    """The files of one folder that may be masks, from pairs of stem and path."""
    suspicions: dict[Path, Suspicion] = {}
    by_stem: dict[str, Path] = {}
    by_key: dict[str, Path] = {}
    for stem, path in files:
        if stem in by_stem:  # the same name with another suffix: either may be the mask
            suspicions[path] = Suspicion(False, by_stem[stem])
            suspicions.setdefault(by_stem[stem], Suspicion(False, path))
        by_stem.setdefault(stem, path)
        if not _IS_NAMED.search(stem):
            by_key.setdefault(_key(stem), path)
    ordered = sorted(by_stem)
    for stem, path in by_stem.items():
        if _IS_NAMED.search(stem):
            image = by_key.get(_key(stem)) or _with_same_start(stem, by_stem, ordered)
            if image is not None:
                suspicions[path] = Suspicion(True, image)
                continue
        # A suffix begins with a sign and is not a number: not "x1a" or "x_10" of "x1" or "x".
        for end in range(len(stem) - 1, 0, -1):
            is_suffix = not stem[end].isalnum() and not stem[end + 1 :].isdecimal()
            if is_suffix and stem[:end] in by_stem:
                suspicions[path] = Suspicion(False, by_stem[stem[:end]])
                break
    return suspicions


def _with_same_start(stem: str, by_stem: dict[str, Path], ordered: list[str]) -> Path | None:
    """The image whose name differs from a mask's in its last word, such as p1_t1 for p1_seg."""
    match = _SUFFIX.fullmatch(stem)
    if match is None:
        return None
    start = match["stem"]
    first = bisect_left(ordered, start)
    for name in ordered[first : first + _NAMES_SEARCHED]:
        rest = name.removeprefix(start)
        if rest != name and not rest[:1].isalnum() and not _IS_NAMED.search(name):
            return by_stem[name]
    return None


def _key(stem: str) -> str:
    """What the names of an image and its mask have in common: "001" of "img_001", "001_mask"."""
    without_number = re.sub(r"[ _-]*\(?\d+\)?$", "", stem) if _SUFFIX.fullmatch(stem) else stem
    return _KIND.sub(" ", without_number).strip().casefold()


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that it contains masks."""
    return _IS_NAMED.search(name) is not None or _INSIDE.search(name) is not None


def looks_like_mask(pictures: Iterable[Picture], suspicion: Suspicion) -> bool:
    """Whether the pictures of a suspected file hold as few values as a mask does."""
    return all(_is_plain(picture, suspicion.named) for picture in pictures)


def _is_plain(picture: Picture, named: bool) -> bool:
    """Whether a picture has as few values, or regions as flat, as a mask."""
    pixels = picture.values if picture.values is not None else np.asarray(picture.image)
    most = _FEW if named else _TWO
    if picture.values is not None:
        has_few = len(np.unique(pixels[::4, ::4])) <= most and len(np.unique(pixels)) <= most
    else:
        has_few = picture.image.getcolors(maxcolors=most) is not None
    if has_few or not named:
        return has_few
    # JPEG and interpolation add values to a mask. Outside the background it still has regions of
    # one value, or values near white.
    grey = np.asarray(picture.image.convert("L")).astype(np.int16)
    counts = np.bincount(grey.ravel(), minlength=256)
    inside = grey != counts.argmax()
    equal = np.zeros(grey.shape, bool)
    equal[:, 1:] = grey[:, 1:] == grey[:, :-1]
    if equal[inside].mean() >= _FLAT:
        return True
    black, white = int(grey.min()), int(grey.max())
    inside = grey - black > _NEAR
    is_near_white = white - grey[inside] <= _NEAR
    return bool(white - black > 4 * _NEAR and is_near_white.mean() >= _FRACTION_NEAR)
