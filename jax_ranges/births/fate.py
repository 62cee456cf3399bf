"""What became of a birth: which operations passed it on, and whether it reached an output."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from jax_ranges.births.first import LEFT, MOVED
from jax_ranges.births.genealogy import Found
from jax_ranges.births.watch import Watch


@dataclass(frozen=True)
class Fate:
    """What became of a birth.

    Attributes:
      name: "escaped", "propagated" or "masked".
      path: the sites on the shortest way to an output; else those that it did reach.
      outputs: the outputs it reached.
    """

    name: str
    path: tuple[str, ...]
    outputs: tuple[str, ...]


def fate_of(found: Found, name: str, kind: str, rank: int, watch: Watch | None) -> Fate:
    """Of a birth at the site `name`.

    Two sources say so. In the iteration in which it was born, its rank: what was seen then, of
    every operation. Beyond, the ranges of the whole run: what has no NaN (or no infinity) in all
    of it cannot have had this one.
    """
    if kind == "flushed":  # a zero, or nearly: nothing tells it from others
        return Fate("propagated", (), ())
    came = _reached(found, name, _holds(found, kind, watch))
    outputs = tuple(site for site in came if found.ranges.site(site).primitive == "output")
    others = tuple(site for site in came if site not in outputs)
    if rank == LEFT and outputs:
        return Fate("escaped", _way(came, name, outputs[0]), outputs)
    if others and rank <= MOVED:
        return Fate("propagated", others, ())
    return Fate("masked", (), ())


def _holds(found: Found, kind: str, watch: Watch | None) -> Callable[[str], bool]:
    if watch is None:
        return lambda site: found.has(site, kind)
    return lambda site: found.is_beyond(site, watch)


def _reached(found: Found, start: str, holds: Callable[[str], bool]) -> dict[str, str]:
    """The sites on ways of sites that hold it, nearest first, and for each the one before it."""
    came: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        site = waiting.popleft()
        for user in found.users.get(site, ()):
            if user not in came and user != start and holds(user):
                came[user] = site
                waiting.append(user)
    return came


def _way(came: dict[str, str], start: str, end: str) -> tuple[str, ...]:
    way = []
    site = came[end]
    while site != start:
        way.append(site)
        site = came[site]
    return tuple(reversed(way))
