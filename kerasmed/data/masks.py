"""Pictures that mark regions of other pictures, which are no images to learn from.

A name raises the suspicion (another's with a suffix, or a folder called masks), and the pixels
decide (two values, or few).
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
# A word of its own: behind and before no letter, or where a capital begins the next word.
_IS_NAMED = re.compile(rf"(?:^|[^A-Za-z]|(?<=[a-z0-9)])(?=[A-Z]))(?i:{_WORD})(?![a-z])")
# Folders also have it inside a word, such as "lungmask" or "SegmentationClass".
_INSIDE = re.compile(r"mask|segmentation|ground[ _-]?truth|annotation", re.IGNORECASE)
# "x_mask", "x-seg2", "x.gt (1)", "xMask"
_SUFFIX = re.compile(rf"(?P<stem>.+?)(?:[ _.-]+|(?<=[a-z0-9)]))(?i:{_WORD})[ _.()-]*\d*\)?")
# What the names of an image and of its mask differ by.
_KIND = re.compile(
    rf"(?:(?<![a-z])(?:{_WORD}|images?|imgs?|photos?|pictures?)(?![a-z])|[ _.()-])+",
    re.IGNORECASE,
)
_LOOKED_AT = 8

# Different colours of a mask that only has a suffix.
_TWO = 2
# Of others, colours; or the shares of pixels that equal their neighbours, or are near white.
_FEW, _FLAT, _NEAR, _SHARE_NEAR = 16, 0.8, 24, 0.7


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why a file may be a mask.

    Attributes:
        named: whether the file's or its folder's name says so, and not just a suffix.
        image: the picture that it would be the mask of.
    """

    named: bool
    image: Path


def suspected_masks(
    paths: Sequence[Path], stems: Sequence[str], root: Path
) -> dict[Path, Suspicion]:
    """Files that may be masks by their names.

    Args:
        paths: all files of a set.
        stems: their names without the ending of the format.
        root: the folder of the set; names of folders above it say nothing.
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
    found = {}
    for path, stem in in_mask_folder:
        top = _top(path, root)
        if image := images.get((top, _key(stem))):
            found[path] = Suspicion(True, image)
        # A folder beside the classes, whose name alone says too little.
        elif is_mask_folder(top) and (image := anywhere.get(_key(stem))):
            found[path] = Suspicion(False, image)
    for others in in_folder.values():
        found |= _suspected_in(others)
    return found


def _top(path: Path, root: Path) -> str:
    """The class folder that a file is in."""
    return path.relative_to(root).parts[0] if path.is_relative_to(root) else ""


def _suspected_in(files: list[tuple[str, Path]]) -> dict[Path, Suspicion]:
    """Those of one folder, by their stems."""
    found: dict[Path, Suspicion] = {}
    others: dict[str, Path] = {}
    by_key: dict[str, Path] = {}
    for stem, path in files:
        if stem in others:  # the same name with another ending, either of which may be the mask
            found[path] = Suspicion(False, others[stem])
            found.setdefault(others[stem], Suspicion(False, path))
        others.setdefault(stem, path)
        if not _IS_NAMED.search(stem):
            by_key.setdefault(_key(stem), path)
    ordered = sorted(others)
    for stem, path in others.items():
        if _IS_NAMED.search(stem):
            image = by_key.get(_key(stem)) or _beside(stem, others, ordered)
            if image is not None:
                found[path] = Suspicion(True, image)
                continue
        # "x1a" and "x10" are names of their own.
        for end in range(len(stem) - 1, 0, -1):
            is_suffix = not stem[end].isalnum() and not stem[end + 1 :].isdecimal()
            if is_suffix and stem[:end] in others:
                found[path] = Suspicion(False, others[stem[:end]])
                break
    return found


def _beside(stem: str, others: dict[str, Path], ordered: list[str]) -> Path | None:
    """Another picture of the same, such as p1_t1 beside p1_seg."""
    match = _SUFFIX.fullmatch(stem)
    if match is None:
        return None
    start = match["stem"]
    at = bisect_left(ordered, start)
    for name in ordered[at : at + _LOOKED_AT]:
        rest = name.removeprefix(start)
        if rest != name and not rest[:1].isalnum() and not _IS_NAMED.search(name):
            return others[name]
    return None


def _key(stem: str) -> str:
    """What an image's name and its mask's have in common: "img_001" and "001_mask" have "001"."""
    copy = re.sub(r"[ _-]*\(?\d+\)?$", "", stem) if _SUFFIX.fullmatch(stem) else stem
    return _KIND.sub(" ", copy).strip().casefold()


def is_mask_folder(name: str) -> bool:
    """Whether a folder's name says that masks lie in it."""
    return _IS_NAMED.search(name) is not None or _INSIDE.search(name) is not None


def looks_like_mask(pictures: Iterable[Picture], suspicion: Suspicion) -> bool:
    """Whether the pictures of a suspected file hold as few values as a mask does."""
    return all(_is_plain(picture, suspicion.named) for picture in pictures)


def _is_plain(picture: Picture, named: bool) -> bool:
    """Whether a picture holds so few values, or such flat regions, as a mask does."""
    pixels = picture.values if picture.values is not None else np.asarray(picture.image)
    most = _FEW if named else _TWO
    if picture.values is not None:
        few = len(np.unique(pixels[::4, ::4])) <= most and len(np.unique(pixels)) <= most
    else:
        few = picture.image.getcolors(maxcolors=most) is not None
    if few or not named:
        return few
    # Of what is not background: regions of one value, or values near white, as JPEG and
    # interpolation leave them.
    grey = np.asarray(picture.image.convert("L")).astype(np.int16)
    levels = np.bincount(grey.ravel(), minlength=256)
    inside = grey != levels.argmax()
    equal = np.zeros(grey.shape, bool)
    equal[:, 1:] = grey[:, 1:] == grey[:, :-1]
    if equal[inside].mean() >= _FLAT:
        return True
    black, white = int(grey.min()), int(grey.max())
    inside = grey - black > _NEAR
    return bool(white - black > 4 * _NEAR and (white - grey[inside] <= _NEAR).mean() >= _SHARE_NEAR)
