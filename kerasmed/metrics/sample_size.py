"""Minimum numbers of images and groups, and the reason for a figure that was not computed."""

from collections.abc import Callable
from typing import TypeVar

from kerasmed.errors import InputError
from kerasmed.result_types import NotComputed

Result = TypeVar("Result")

MINIMUM = 20
MINIMUM_GROUPS = 5


def require_images(
    figure: str, counts: dict[str, int], remedy: str = "add images or draw more"
) -> None:
    """Refuse to compute a figure from fewer than 20 images.

    Args:
        figure: Its name, for the message.
        counts: Number of images of each kind, by the name of the kind in the message.
        remedy: What the user can do.

    Raises:
        InputError: There are fewer; it names the first such kind.
    """
    for name, count in counts.items():
        if count < MINIMUM:
            raise InputError(
                f"{figure}: expected at least {MINIMUM} {name}, received {count}; {remedy}."
            )


def require_groups(figure: str, groups: dict[str, int]) -> None:
    """Refuse an interval over fewer than five groups, such as patients.

    Args:
        figure: Its name, for the message.
        groups: Number of groups of each kind, by the name of the kind in the message.

    Raises:
        InputError: There are fewer; it names the first such kind.
    """
    for name, count in groups.items():
        if count < MINIMUM_GROUPS:
            raise InputError(
                f"{figure}: expected images of at least {MINIMUM_GROUPS} groups, such as patients, "
                f"received {count} of {name}; add images of other groups."
            )


def computed_or_reason(compute: Callable[[], Result]) -> Result | NotComputed:
    """The result of ``compute``, or the message of its ``InputError`` as ``not_computed``."""
    try:
        return compute()
    except InputError as error:
        return {"not_computed": str(error)}
