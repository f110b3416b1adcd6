"""Reads two habits of these docstrings that Griffe does not know.

It shows ``Example:`` as code only if that says ``Examples:``. And it takes ``x, y: images and
labels.`` for one argument with a strange name.
"""

import re
from typing import Any

import griffe

# Several names, and their common text with its further lines.
_SEVERAL = re.compile(r"^ {4}(\w+(?:, \w+)+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


class Examples(griffe.Extension):
    """Rewrites both before a docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
            obj.docstring.value = _SEVERAL.sub(_one_each, text)


def _one_each(entry: re.Match[str]) -> str:
    names, text = entry.groups()
    return "\n".join(f"    {name}: {text}" for name in names.split(", "))
