"""Fonts for the names in figures, which can use any script."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from matplotlib import font_manager, rc_context, rcParams

from kerasmed.progress import say

# Categories of characters that only modify others: joiners, marks, variants of emoji.
_UNDRAWN = ("Cf", "Mn")
_SHOWN = 10


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Within the block, matplotlib uses an installed font for each character of the texts.

    Its own font comes first. A message names characters that no font has; they become boxes.

    Args:
        texts: texts that the figures will show.
    """
    families, missing = _find_families(set("".join(texts)))
    if missing:
        shown = " ".join(sorted(missing)[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} others" if len(missing) > _SHOWN else ""
        say(
            f"Figures: no installed font has {shown}{more}, so they are drawn as boxes; install a "
            "font that has them, such as Noto Sans, and run `kerasmed report` again."
        )
    fonts = [*rcParams["font.family"], *families]
    with rc_context({"font.family": fonts}), warnings.catch_warnings():
        # Matplotlib would repeat that message for each character of each figure.
        for message in ("Glyph .* missing from font", "Matplotlib currently does not support"):
            warnings.filterwarnings("ignore", message, UserWarning)
        yield


def _find_families(characters: set[str]) -> tuple[list[str], set[str]]:
    """Families with characters that matplotlib's own font lacks, and the characters left over."""
    own = font_manager.findfont(font_manager.FontProperties())
    missing = {
        character for character in characters if unicodedata.category(character) not in _UNDRAWN
    }
    missing -= _drawn_by(own, missing)
    families: list[str] = []
    if missing:
        _add_new_fonts()
    for entry in sorted(font_manager.fontManager.ttflist, key=_preference):
        if not missing:
            break
        # Matplotlib's font of last resort has a box for every character.
        if entry.name in families or entry.name.startswith("Last Resort"):
            continue
        if drawn := _drawn_by(entry.fname, missing):
            families.append(entry.name)
            missing -= drawn
    return families, missing


def _drawn_by(path: str, characters: set[str]) -> set[str]:
    try:
        glyphs = font_manager.get_font(path).get_charmap()
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return set()
    return {character for character in characters if ord(character) in glyphs}


def _preference(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str]:
    """Sort key: plain sans-serif fonts first."""
    plain = entry.style == "normal" and entry.weight in (400, "normal", "regular")
    return not plain, not entry.name.startswith("Noto Sans"), "Sans" not in entry.name, entry.name


def _add_new_fonts() -> None:
    """Add fonts that were installed after matplotlib listed them."""
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        with suppress(OSError, RuntimeError):  # as in _drawn_by
            font_manager.fontManager.addfont(path)
