"""The cards' templates, with the filters that they use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kerasmed.audit.tables import points_text, trained_on
from kerasmed.audit.worth import worth_sentence
from kerasmed.data.entries import folder_name
from kerasmed.text import text_for_markdown


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A card in Markdown, or its front matter in YAML.

    Args:
        template: name of a file in this folder.
        values: see ``facts_of``.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.globals |= {"trained_on": trained_on, "worth_sentence": worth_sentence}
    environment.filters["text"] = text_for_markdown
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["folder_name"] = folder_name
    environment.filters["points"] = points_text
    return environment.get_template(template).render(values)
