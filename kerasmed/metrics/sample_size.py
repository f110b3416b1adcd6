"""Figures that need a number of images, and what stands in their place where there are too few."""

from collections.abc import Callable
from typing import Any

from kerasmed.errors import InputError

MINIMUM = 20
MINIMUM_GROUPS = 5


def require_enough(
    figure: str, counts: dict[str, int], remedy: str = "add images or draw more"
) -> None:
    """Refuse to compute a figure from fewer than 20 images.

    Args:
        figure: its name.
        counts: number of each kind, by what the message is to call them.
        remedy: what to do about it.

    Raises:
        InputError: naming the first kind of which there are fewer.
    """
    for name, count in counts.items():
        if count < MINIMUM:
            raise InputError(
                f"{figure}: expected at least {MINIMUM} {name}, received {count}; {remedy}."
            )


def require_groups(figure: str, groups: dict[str, int]) -> None:
    """Refuse an interval over fewer than five groups, such as patients.

    Args:
        figure: its name.
        groups: number of each kind, by what the message is to call them.

    Raises:
        InputError: naming the first kind of which there are fewer.
    """
    for name, count in groups.items():
        if count < MINIMUM_GROUPS:
            raise InputError(
                f"{figure}: expected images of at least {MINIMUM_GROUPS} groups, such as patients, "
                f"received {count} of {name}; add images of others."
            )


def or_reason(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was computed, or ``not_computed`` with the reason why not."""
    try:
        return compute()
    except InputError as error:
        return {"not_computed": str(error)}
