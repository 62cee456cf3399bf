"""What a site is, and how it gets its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Site:
    """One place where a value is measured: one output of one equation, an input, a constant.

    Attributes:
      name: unique in its program and the same on every run: `Encoder/layer_0/attn/dot_general`.
      primitive: the JAX primitive's name; `input` or `const` for what is not an equation.
      output: which of the equation's outputs.
      shape, dtype: of the value in one execution of the site. Sizes that are symbolic, in a
        program that is exported (`jax.export.symbolic_shape`), are strings: `("n", 4)`.
      source: `file:line` of the user's own code, "" if unknown.
      operands: the names of the sites that feed it, inputs as `input/<path>` and captured
        constants as `const/<n>` (also where those are not sites themselves).
      by_operand: the same for each operand of the equation: none for a literal, several for what
        comes out of a cond or round a loop. Empty where it is not known (CSV, text).
      reads: the argument leaves (`input/<path>`) and captured constants (`const/<n>`) whose
        elements its operands hold, cast or moved as they may be (transposed, reshaped, sliced,
        looked up, concatenated), but not computed with. Of what a loop carries round, those that
        enter it. Empty where it is not known (CSV, text, files of older releases).
      backward: it belongs to a backward pass (`transpose(...)` is in its scope path).

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.exp(-x))(jnp.arange(3.0))
      >>> [(site.name, site.operands) for site in ranges.sites]
      [('neg', ('input/x',)), ('exp', ('neg',))]
      >>> dense = jr.ranges(lambda params, x: x @ params["kernel"].T, select="dot_general")
      >>> _, ranges = dense({"kernel": jnp.ones((2, 3))}, jnp.ones(3))
      >>> ranges.sites[0].operands, ranges.sites[0].reads
      (('input/x', 'transpose'), ('input/x', 'input/params/kernel'))
    """

    name: str
    primitive: str
    output: int
    shape: tuple[Any, ...]
    dtype: np.dtype
    source: str = ""
    operands: tuple[str, ...] = ()
    backward: bool = False
    by_operand: tuple[tuple[str, ...], ...] = ()
    reads: tuple[str, ...] = ()


class Names:
    """Makes names unique, in program order: `dot_general`, then `dot_general.1`."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._taken: set[str] = set()

    def claim(self, base: str) -> str:
        count = self._next.get(base, 0)
        name = f"{base}.{count}" if count else base
        while name in self._taken:  # a scope may itself be called `dot_general.1`
            count += 1
            name = f"{base}.{count}"
        self._next[base] = count + 1
        self._taken.add(name)
        return name


Select = None | str | Sequence[str] | Callable[[Site], bool]


def selector(select: Select) -> Callable[[Site], bool]:
    """The predicate that `select` stands for.

    A string selects a site if it is the site's primitive, or a glob (`*`, `?`) of its name or of
    the name's end after a slash: `Encoder/*` also finds `jit(apply)/Encoder/add`. Several
    strings select what any of them does.
    """
    if select is None:
        return lambda site: True
    if callable(select):
        return select
    patterns = (select,) if isinstance(select, str) else tuple(select)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"select takes a glob such as 'Encoder/*', several of them, or a callable "
                f"Site -> bool; got {pattern!r} of type {type(pattern).__name__}"
            )
    primitives = frozenset(patterns)
    globs = re.compile("|".join(f"(?:.*/)?{_glob(p)}" for p in patterns) or r"(?!)", re.DOTALL)
    return lambda site: site.primitive in primitives or globs.fullmatch(site.name) is not None


def _glob(pattern: str) -> str:
    # Not fnmatch: names hold brackets, `sort[1]`, which it reads as a character class.
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


class NothingSelectedError(ValueError):
    """Sites were to be selected, and none of those that there are was."""


def chosen(sites: Sequence[Site], select: Select) -> list[int]:
    """The indices of the sites that `select` selects; NothingSelectedError if there are none."""
    predicate = selector(select)
    found = [i for i, site in enumerate(sites) if predicate(site)]
    if sites and not found:
        raise NothingSelectedError(
            f"select={select!r} selects none of the {len(sites)} sites. Their primitives are "
            f"{_listing(dict.fromkeys(site.primitive for site in sites))}; their names "
            f"{_listing(site.name for site in sites)}"
        )
    return found


def _listing(names: Iterable[str], limit: int = 12) -> str:
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
