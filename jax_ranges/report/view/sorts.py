"""Sorts: in which order sites are shown. Nothing here draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jax_ranges.report.order import order
from jax_ranges.report.rows import Row
from jax_ranges.report.view.model import Model

Key = tuple[int, Any]


@dataclass(frozen=True)
class Sort:
    """One way to sort.

    Attributes:
      says: what it puts first.
      key: of the site with an index: its group and its place there. Groups stay in order when
        the sort is reversed, so that what has no numbers is last either way.
    """

    says: str
    key: Callable[[Model, int], Key]


def sorted_sites(model: Model, sites: Sequence[int], sort: str, reverse: bool) -> list[int]:
    """Indices in the order of that name; equal ones stay as they are."""
    key = SORTS[sort].key
    keyed = [(key(model, i), i) for i in sites]
    keyed.sort(key=lambda each: each[0][1], reverse=reverse)
    keyed.sort(key=lambda each: each[0][0])
    return [i for _, i in keyed]


def sorts_of(model: Model) -> dict[str, Sort]:
    """Those that there are: scores only in a comparison."""
    return {name: sort for name, sort in SORTS.items() if name != "score" or model.compared}


# -- the sorts --------------------------------------------------------------------------------


def _in_program(model: Model, i: int) -> Key:
    del model
    return 0, i


def _by_score(model: Model, i: int) -> Key:
    change = model.entries[i].change
    return 0, -change.score if change else 0.0


def _of_report(name: str) -> Callable[[Model, int], Key]:
    """An order of `jr.report` whose keys are pairs already."""
    key = order(name).key
    return lambda model, i: key(model.rows[i])


def _of_row(value: Callable[[Row], Any]) -> Callable[[Model, int], Key]:
    return lambda model, i: (0, value(model.rows[i]))


def _of_number(value: Callable[[Row], Any]) -> Callable[[Model, int], Key]:
    def key(model: Model, i: int) -> Key:
        found = value(model.rows[i])
        return (1, 0) if found is None else (0, found)

    return key


SORTS = {
    "program": Sort("program order", _in_program),
    "name": Sort("by name", _of_row(order("name").key)),
    "largest": Sort("largest magnitude first", _of_report("amax")),
    "widest": Sort("widest first", _of_report("width")),
    "trouble": Sort("NaN and inf first", _of_row(order("nan").key)),
    "min": Sort("least min first", _of_number(lambda row: row.min)),
    "max": Sort("largest max first", _of_number(lambda row: None if row.max is None else -row.max)),
    "type": Sort("by dtype and shape", _of_row(lambda row: (row.dtype, row.shape))),
    "score": Sort("what moved most first", _by_score),
}
