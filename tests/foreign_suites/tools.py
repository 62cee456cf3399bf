"""The tools, as what a foreign test's functions are run through."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import jax

import jax_ranges as jr
from jax_ranges.site import NothingSelectedError
from jax_ranges.transform import Options

from .outputs import Exit, check_outputs, check_ranges, exits_of, nonfinite_leaves

Function = Callable[..., Any]

# Changes no value: float64 holds those of all formats. A recipe without rules would be taken for
# a mistake.
NO_CHANGE = {"*": "float64"}


class Tool(Protocol):
    """A transformation of functions, and what can be checked when such a function has run."""

    def __call__(self, fun: Function) -> Function:
        """A function that returns what `fun` does, and what the tool found (a pytree)."""
        ...

    def check(self, arguments: Any, out: Any, found: Any) -> None:
        """AssertionError if that cannot be true. The arguments may be deleted (donated)."""
        ...


class RangesTool:
    """`jr.ranges`: an output is compared with the range of the site that makes it."""

    def __init__(self) -> None:
        self._exits: dict[int, tuple[Any, list[Exit | None]]] = {}

    def __call__(self, fun: Function) -> Function:
        measured = jr.ranges(fun)

        def run(*args: Any, **kwargs: Any) -> tuple[Any, jr.Ranges]:
            out, ranges = measured(*args, **kwargs)
            # Equal layouts may be those of different programs, so it is found by its identity.
            self._exits[id(ranges.layout)] = ranges.layout, exits_of(LATEST.frame)
            return out, ranges

        return run

    def check(self, arguments: Any, out: Any, found: jr.Ranges) -> None:
        check_ranges(found)
        if id(found.layout) in self._exits:
            check_outputs(found, self._exits[id(found.layout)][1], out)


class NonfiniteTool:
    """`jr.find_nonfinite`: where nothing was born, finite arguments make finite outputs."""

    def __call__(self, fun: Function) -> Function:
        return jr.find_nonfinite(fun)

    def check(self, arguments: Any, out: Any, found: Any) -> None:
        text = str(found)
        if not found.births and not any(nonfinite_leaves(arguments)):
            for leaf in nonfinite_leaves(out):
                raise AssertionError(f"{leaf} was born unseen: {text}")


class SimulateTool:
    """`jr.simulate` with a recipe that changes nothing, gradients included."""

    def __call__(self, fun: Function) -> Function:
        simulated = jr.simulate(fun, NO_CHANGE, straight_through=True)

        def run(*args: Any, **kwargs: Any) -> tuple[Any, None]:
            with warnings.catch_warnings():
                # There may be no float in it.
                warnings.filterwarnings("ignore", message="the recipe's rule for")
                try:
                    return simulated(*args, **kwargs), None
                except NothingSelectedError:
                    return fun(*args, **kwargs), None

        return run

    def check(self, arguments: Any, out: Any, found: None) -> None:
        """Nothing: the test itself compares the outputs."""


# `jr.Net` is none of these: it is called from outside, and keeps what it found.
NET = "net"
TRACED: dict[str, Callable[[], Tool]] = {
    "ranges": RangesTool,
    "nonfinite": NonfiniteTool,
    "simulate": SimulateTool,
}
TOOLS = ("ranges", NET, "nonfinite", "simulate")


class Latest(threading.local):
    """The frame of the plan that this thread made last."""

    frame: Any = None


LATEST = Latest()


def remember_plans() -> None:
    """From now on `LATEST` knows. No public name says which site makes which output."""
    make = Options.plan

    @functools.wraps(make)
    def plan(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        LATEST.frame = made.frame
        return made

    Options.plan = plan


def is_concrete(tree: Any) -> bool:
    """Whether nothing in a pytree is traced."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))
