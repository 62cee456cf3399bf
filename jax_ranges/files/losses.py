"""What a file does not hold of the ranges that were written to it, and saying so."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jax_ranges.stats import Statistic

_BETWEEN = ("jax_ranges", "weakref", "contextlib")
"""Modules whose lines are not the user's: ours, and those that call what is ours."""


class LossWarning(UserWarning):
    """A file does not hold all that was written to it: see `jax_ranges.files`.

    Example:
      >>> import pathlib, tempfile, warnings
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.files import LossWarning
      >>> _, ranges = jr.ranges(jnp.log)(jnp.zeros(2))
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("ignore", LossWarning)
      ...     ranges.save(pathlib.Path(tempfile.mkdtemp(), "r.txt"))  # -inf as -3.4028235e+38
    """


class Loss(NamedTuple):
    """Something that a file does not hold: what kind of thing, and in words, with how many."""

    kind: str
    what: str


def left_out(stats: Iterable[Statistic]) -> tuple[Loss, ...]:
    """The loss of these statistics."""
    names = ", ".join(map(repr, stats))
    return (Loss("statistics", f"what {names} took"),) if names else ()


def at_sites(what: str, names: Sequence[str]) -> str:
    """The words for something at these sites, of which the first ones are named."""
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{what} ({len(names)} site{'s' * (len(names) > 1)}: {shown})"


def message_of(file: object, losses: Sequence[Loss]) -> str:
    """What is said of a file."""
    said = f"{file}: the ranges are written, but not {'; nor '.join(loss.what for loss in losses)}"
    is_json = str(file).lower().endswith(".json")
    return said if is_json else f"{said}. A .json file holds all of it"


def warn_of(file: object, losses: Sequence[Loss]) -> None:
    """Warn of the losses, if there are any, at the line that the user wrote."""
    if losses:
        warnings.warn(message_of(file, losses), LossWarning, stacklevel=_users_level())


def _users_level() -> int:
    """The `stacklevel` of the user's line for the function that calls this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _is_between(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    return level


def _is_between(module: str) -> bool:
    return module.partition(".")[0] in _BETWEEN
