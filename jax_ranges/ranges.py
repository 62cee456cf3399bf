"""`Ranges`: what was seen at the sites of a program. A mapping, and a pytree."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat
from jax_ranges.derive import Chain, apply
from jax_ranges.keys import common_dtype
from jax_ranges.packing import Block, Group, Layout, Slot, group_of, join
from jax_ranges.range import Range
from jax_ranges.site import Select, Site, chosen
from jax_ranges.stats import Extrema, Form, MinMax, Statistic


class UnknownSiteError(KeyError):
    """No site of that name.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.tanh)(jnp.ones(3))
      >>> ranges["tahn"]
      Traceback (most recent call last):
      ...
      jax_ranges.ranges.UnknownSiteError: no site 'tahn'; the nearest are 'tanh'
    """

    def __str__(self) -> str:  # KeyError would show the message's repr
        return str(self.args[0])


@jax.tree_util.register_pytree_node_class
class Ranges(Mapping[str, Range]):
    """The ranges of a program's sites, by name, in program order.

    A pytree of a handful of arrays that goes through jit, scan, cond, vmap and device_put, and a
    mapping from site names to `Range`s. Ranges of two runs, batches or hosts merge with `|`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(lambda x: jnp.abs(x) - 1)
      >>> _, first = f(jnp.array([0.5, 1.0]))
      >>> _, second = f(jnp.array([-0.25, 3.0]))
      >>> list(first)
      ['abs', 'sub']
      >>> (first | second)["abs"]
      Range(min=0.25, max=3.0, nan=False)
      >>> first["ab"]
      Traceback (most recent call last):
      ...
      jax_ranges.ranges.UnknownSiteError: no site 'ab'; the nearest are 'abs'
    """

    def __init__(self, block: Block, layout: Layout):
        self._arrays = [leaf for group in layout.groups for leaf in block.states[group]]
        self._layout = layout
        self._cache: dict[Any, Any] = {}

    # -- pytree ---------------------------------------------------------------------------

    def tree_flatten(self) -> tuple[Any, Layout]:
        """For `jax.tree`: the packed arrays, and what is static."""
        return self._arrays, self._layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, arrays: Any) -> Ranges:
        """For `jax.tree`: the inverse of `tree_flatten`."""
        self = object.__new__(cls)
        self._arrays, self._layout, self._cache = list(arrays), layout, {}
        return self

    # -- mapping --------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in program order: inner programs at the place of their equation."""
        return self._layout.sites

    @property
    def layout(self) -> Layout:
        """Where the packed arrays hold what."""
        return self._layout

    @property
    def stats(self) -> tuple[Statistic, ...]:
        """The statistics that were taken."""
        return self._layout.stats

    def __iter__(self) -> Iterator[str]:
        return (site.name for site in self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.index

    def __getitem__(self, name: str) -> Range:
        return self._range(self._find(name))

    def _find(self, name: str) -> int:
        index = self._layout.index.get(name)
        if index is None:
            near = nearest(name, list(self))
            hint = "; the nearest are " + ", ".join(map(repr, near)) if near else ""
            raise UnknownSiteError(f"no site {name!r}{hint}")
        return index

    def site(self, name: str) -> Site:
        """The site of that name; UnknownSiteError if there is none.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(jnp.exp)(jnp.zeros((2, 3)))
          >>> ranges.site("exp").shape
          (2, 3)
        """
        return self.sites[self._find(name)]

    def _range(self, index: int) -> Range:
        k = self._statistic(lambda stat: isinstance(stat, MinMax), "MinMax()")
        site = self.sites[index]
        self._check_taken(k, index)
        chains = self._layout.places[k][index]
        return functools.reduce(Range.merge, [self._image(chain, site) for chain in chains])

    def _image(self, chain: Chain, site: Site) -> Range:
        """The range of one chain's result."""
        dtype = chain.steps[0].dtype if chain.steps else site.dtype
        group, position = chain.source
        lo, hi, nan = (part[..., position] for part in self._decoded(group, dtype))
        xp = jnp if compat.is_traced(lo) else np
        lo, hi = apply(chain, lo, hi, xp)
        return Range(lo, hi, nan) if xp is jnp else Range(lo[()], hi[()], nan[()])

    def _decoded(self, group: int, dtype: np.dtype) -> tuple[Any, Any, Any]:
        """min, max and nan of a whole group, read as those of values of `dtype`."""
        found = self._cache.get((group, dtype))
        if found is None:
            state = self._group_state(group)
            traced = compat.is_traced(state.min)
            found = MinMax().read(state, dtype, jnp if traced else np)
            if not traced:
                self._cache[group, dtype] = found
        return found

    def _group_state(self, group: int) -> Any:
        kind = self._layout.groups[group]
        first = sum(len(g.leaves) for g in self._layout.groups[:group])
        leaves = self._arrays[first : first + len(kind.leaves)]
        return kind.treedef.unflatten(
            [leaf if compat.is_traced(leaf) else np.asarray(leaf) for leaf in leaves]
        )

    def state_at(self, slot: Slot) -> Any:
        """The state that lies there, with any leading axes."""
        group = self._layout.groups[slot.group]
        leaves = jax.tree.leaves(self._group_state(slot.group))
        rows = [
            array[(..., slot.position, *[slice(None)] * len(leaf.shape))]
            for array, leaf in zip(leaves, group.leaves, strict=True)
        ]
        return group.treedef.unflatten(rows)

    def _statistic(self, wanted: Callable[[Statistic], bool], what: str) -> int:
        for k, stat in enumerate(self.stats):
            if wanted(stat):
                return k
        raise ValueError(f"{what} was not among the statistics taken: {self.stats}")

    def state(self, name: str, stat: Statistic) -> Any:
        """The state of a statistic other than `MinMax` at a site, as `stat.measure` makes it.

        Shapes are those of the statistic, with the leading axes of vmap and stacked loops.
        Ranges, which may be derived, are read as `ranges[name]`.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> @jax.jit
          ... def mean(x):
          ...     _, ranges = jr.ranges(jnp.exp, stats=jr.Moments())(x)
          ...     return ranges.state("exp", jr.Moments()).mean  # here, `of` would be too early
          >>> mean(jnp.zeros(3)).shape
          ()
        """
        k = self._statistic(lambda own: own == stat, repr(stat))
        index = self._find(name)
        self._check_taken(k, index)
        (chain,) = self._layout.places[k][index]
        return self.state_at(chain.source)

    def of(self, name: str, stat: Statistic | type[Statistic]) -> Any:
        """What a statistic says of a site, in a readable form: `jr.Histogram` its edges and counts.

        `stat` is one of those taken, or the class of one. Not for traced ranges (inside jit),
        which have no values to be read.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(jnp.exp, stats=(jr.MinMax(), jr.Health()))(jnp.arange(3.0))
          >>> ranges.of("exp", jr.Health).positive
          3
        """
        own, site = self._taken(stat), self.sites[self._find(name)]
        if isinstance(own, MinMax):
            return self[name]
        state = self.state(name, own)
        if any(map(compat.is_traced, jax.tree.leaves(state))):
            raise ValueError(
                f"these ranges are traced (inside jit, vmap or grad) and {own!r} has no values "
                f"yet: read them outside, or use .state({name!r}, ...) here"
            )
        return own.read_state(state, site.dtype)

    def _taken(self, stat: Statistic | type[Statistic]) -> Statistic:
        """That statistic among those taken, or the first of that class."""
        if isinstance(stat, type):
            k = self._statistic(lambda own: type(own) is stat, f"{stat.__name__}(...)")
        else:
            k = self._statistic(lambda own: own == stat, repr(stat))
        return self.stats[k]

    def has(self, name: str, stat: Statistic) -> bool:
        """Whether a statistic was taken at a site.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> f = jr.ranges(lambda x: -jnp.exp(x), stats={"exp": jr.Health(), "*": jr.MinMax()})
          >>> _, ranges = f(jnp.ones(3))
          >>> [name for name in ranges if ranges.has(name, jr.Health())]
          ['exp']
        """
        index = self._find(name)
        return stat in self.stats and bool(self._layout.places[self.stats.index(stat)][index])

    def _check_taken(self, k: int, index: int) -> None:
        if not self._layout.places[k][index]:
            raise ValueError(
                f"{self.stats[k]!r} was not taken at {self.sites[index].name!r}: it comes from "
                f"ranges without it that were merged with these, or stats= chose other sites"
            )

    def leads(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """For each site the trip counts of the stacked loops around it."""
        groups = self._layout.groups
        for of_stat in self._layout.places:
            for site, chains in zip(self.sites, of_stat, strict=True):
                if chains:
                    yield site.name, groups[chains[0].source.group].lead

    # -- for other programs ---------------------------------------------------------------

    def scalars(self, prefix: str = "") -> dict[str, float]:
        """Flat numbers by name, for loggers: wandb, TensorBoard, clu, aim, mlflow.

        `<prefix><site>/min`, `/max` and `/nan` (0 or 1), and the single numbers that other
        statistics say (`<site>/Moments.mean`). Leading axes are merged; sites that were not
        observed are left out. Floats are float64, which holds all integers up to 2**53.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(jnp.square)(jnp.array([1.0, 3.0]))
          >>> ranges.scalars("ranges/")
          {'ranges/square/min': 1.0, 'ranges/square/max': 9.0, 'ranges/square/nan': 0.0}
        """
        from jax_ranges.flat import scalars

        return scalars(self, prefix)

    def to_dataframe(self, library: str | None = None) -> Any:
        """A data frame with a row a site, of pandas or polars, whichever is installed.

        Columns: name, primitive, output, shape, dtype, source, backward, reads (the arguments, see
        `jr.Site`, as one text); min, max (None where no number was seen), nan, observed; and the
        single numbers that other statistics say (`Moments.mean`). Leading axes are merged.

        Raises:
          ModuleNotFoundError: neither is installed, or not the one that `library` asks for.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> import importlib.util
          >>> _, ranges = jr.ranges(jnp.exp)(jnp.zeros(3))
          >>> if importlib.util.find_spec("pandas"):
          ...     assert list(ranges.to_dataframe("pandas")["max"]) == [1.0]
        """
        from jax_ranges.flat import to_dataframe

        return to_dataframe(self, library)

    # -- merging, selecting, reducing -----------------------------------------------------

    def block(self) -> Block:
        """The packed states."""
        arrays = iter(self._arrays)
        return Block({g: [next(arrays) for _ in g.leaves] for g in self._layout.groups})

    def merge(self, other: Ranges) -> Ranges:
        """What was seen in either, by site name; sites that are in one only are kept.

        Associative and commutative; of ranges also idempotent. Programs that differ are merged
        site by site; ValueError if a site is stacked over a loop in one of them only.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, a = jr.ranges(jnp.sin)(jnp.zeros(3))
          >>> _, b = jr.ranges(lambda x: jnp.sin(x) + 1)(jnp.ones(3))
          >>> a.merge(b)["sin"].max, list(a.merge(b))
          (np.float32(0.84147096), ['sin', 'add'])
        """
        if not isinstance(other, Ranges):
            raise TypeError(f"ranges merge with ranges; got {type(other).__name__}")
        if self._layout == other._layout:
            stats = self._layout.stats
            with compat.own(), compat.keeping_64_bits((*self._arrays, *other._arrays)):
                return Ranges(self.block().merge(other.block(), stats), self._layout)
        with compat.own(), compat.keeping_64_bits():  # a site of two dtypes may need them
            return _merge_by_name(self, other)

    def __or__(self, other: Ranges) -> Ranges:
        return self.merge(other) if isinstance(other, Ranges) else NotImplemented

    def select(self, select: Select) -> Ranges:
        """Only the sites that `select` (see `jr.ranges`) selects; ValueError if there is none.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(lambda x: jnp.exp(-x) * 2)(jnp.ones(3))
          >>> list(ranges.select(["exp", "mul"]))
          ['exp', 'mul']
          >>> list(ranges.select(lambda site: site.primitive.startswith("n")))
          ['neg']
        """
        picked = chosen(self.sites, select)
        layout = replace(
            self._layout,
            sites=tuple(self.sites[i] for i in picked),
            places=tuple(tuple(p[i] for i in picked) for p in self._layout.places),
        )
        return Ranges(self.block(), layout)

    def reduce(self, mask: Any = None) -> Ranges:
        """Merge the leading axes: the examples of vmap, the iterations of stacked loops.

        mask: booleans of the shape of the leading axes, or of the first of them; what it leaves
          out (padding) does not count. Sites without leading axes stay as they are.

        Example:
          >>> import jax, jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jax.vmap(jr.ranges(jnp.square))(jnp.array([1.0, 2.0, 30.0]))
          >>> ranges.reduce(mask=jnp.array([True, True, False]))["square"]
          Range(min=1.0, max=4.0, nan=False)
        """
        with compat.own(), compat.keeping_64_bits(self._arrays):
            return self._reduced(mask)

    def _reduced(self, mask: Any) -> Ranges:
        blocks, moved, filled = [], {}, {}
        for g, (group, leaves) in enumerate(self.block().states.items()):
            stat = self.stats[group.stat]
            axes = leaves[0].ndim - 1 - len(group.leaves[0].shape)
            state = group.treedef.unflatten([jnp.asarray(leaf) for leaf in leaves])
            if mask is not None and axes:
                state = _masked(group, state, axes, mask)
            flat = replace(group, lead=())
            none = 0 in leaves[0].shape[:axes]  # a loop of no trips, vmap over no examples
            reduced = (
                _unobserved(group, leaves[0].shape[axes]) if none else stat.reduce(state, axes)
            )
            blocks.append(Block({flat: jax.tree.leaves(reduced)}))
            moved[g] = (flat, filled.get(flat, 0))
            filled[flat] = filled.get(flat, 0) + leaves[0].shape[axes]
        groups = tuple(filled)

        def move(slot: Slot) -> Slot:
            flat, offset = moved[slot.group]
            return Slot(groups.index(flat), slot.position + offset)

        places = tuple(
            tuple(tuple(c._replace(source=move(c.source)) for c in chains) for chains in of_stat)
            for of_stat in self._layout.places
        )
        return Ranges(join(blocks), replace(self._layout, groups=groups, places=places))

    # -- showing and keeping --------------------------------------------------------------

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write to a file, atomically; `jr.load` reads it back.

        The ending chooses the format: `.json`, which holds everything, `.csv`, which holds all
        ranges exactly, or (`.txt`, `.minmax`, none) the text lines of Caffe2's
        OutputMinMaxNetObserver, whose numbers are float32. What is left out is said in a
        LossWarning (see `jax_ranges.files`, and `save` there for what is raised).

        Example:
          >>> import pathlib, tempfile
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(lambda x: -jnp.exp(x))(jnp.zeros(3))
          >>> file = pathlib.Path(tempfile.mkdtemp(), "ranges.txt")
          >>> ranges.save(file)
          >>> print(file.read_text(), end="")
          0 exp 0 exp 1 1
          1 neg 0 neg -1 -1
        """
        from jax_ranges.files import save

        save(self, file)

    def to_html(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        before: Ranges | str | os.PathLike[str] | None = None,
        formats: Sequence[Any] | None = None,
        title: str = "Numeric ranges",
    ) -> str | None:
        """One HTML page that opens in any browser, offline, and holds all that it shows.

        A tree of scopes, a table that sorts, searches and filters, the limits of number formats
        over every range, and where they were taken the counts of `jr.Exponents()` as a heat map
        and the iterations of stacked loops as plots.

        Args:
          file: where to write it; the file is whole at every moment, old or new.
          before: older ranges, or a file of them: the page also shows what moved since then.
          formats: whose limits are drawn (see `jax_ranges.formats`), the one to judge by first;
            float8_e4m3fn, float8_e5m2, float16, bfloat16 and int8 if None.
          title: of the page.

        Returns:
          The text of the page if no file is given.

        Raises:
          ValueError: there are no values (inside jit), no MinMax was taken, or there is no such
            format.
          OSError: the file cannot be written.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, ranges = jr.ranges(jnp.exp)(jnp.arange(9.0))
          >>> ranges.to_html(title="A tiny model")[:15]
          '<!doctype html>'
        """
        from jax_ranges.files.atomic import write_atomically
        from jax_ranges.report.page import DEFAULT_FORMATS, page

        text = page(self, before, DEFAULT_FORMATS if formats is None else formats, title)
        if file is None:
            return text
        write_atomically(Path(file), text)
        return None

    def __repr__(self) -> str:
        from jax_ranges.report.tables import summary

        return summary(self)

    def __rich__(self) -> Any:
        from jax_ranges.report.tables import ranges_table

        return ranges_table(self)

    def _repr_html_(self) -> str:
        from jax_ranges.report.html import ranges_html

        return ranges_html(self)


def _masked(group: Group, state: Any, axes: int, mask: Any) -> Any:
    """The identity where `mask` is False."""
    mask = jnp.asarray(mask)
    leaves = jax.tree.leaves(state)
    lead = leaves[0].shape[:axes]
    if mask.dtype != bool or mask.shape != lead[: mask.ndim]:
        raise ValueError(
            f"the mask must be boolean, of the shape of the leading axes {lead} or of the first "
            f"of them; got {mask.dtype} of shape {mask.shape}"
        )
    kept = [
        jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim)), leaf, empty.array())
        for leaf, empty in zip(leaves, group.leaves, strict=True)
    ]
    return group.treedef.unflatten(kept)


def _unobserved(group: Group, rows: int) -> list[Any]:
    """The identity, in so many rows."""
    return [jnp.broadcast_to(leaf.array(), (rows, *leaf.shape)) for leaf in group.leaves]


# -- ranges put together site by site ---------------------------------------------------------

States = dict[Statistic, Any]


def from_states(sites: Sequence[Site], states: Sequence[States]) -> Ranges:
    """Ranges in which each site has states of its own (nothing derived), with any leading axes."""
    stats = tuple(dict.fromkeys(stat for of_site in states for stat in of_site))
    groups: dict[Group, int] = {}
    blocks, places = [], []
    for k, stat in enumerate(stats):
        of_stat = []
        for site, of_site in zip(sites, states, strict=True):
            chains: tuple[Chain, ...] = ()
            if stat in of_site:
                group, leaves = _as_rows(stats, k, site, of_site[stat])
                position = groups.get(group, 0)
                groups[group] = position + 1
                blocks.append(Block({group: leaves}))
                chains = (Chain((group, position)),)
            of_stat.append(chains)
        places.append(of_stat)
    order = {group: g for g, group in enumerate(groups)}
    placed = tuple(
        tuple(
            tuple(c._replace(source=Slot(order[c.source[0]], c.source[1])) for c in chains)
            for chains in of_stat
        )
        for of_stat in places
    )
    return Ranges(join(blocks), Layout(stats, tuple(sites), tuple(groups), placed))


def _as_rows(
    stats: tuple[Statistic, ...], k: int, site: Site, state: Any
) -> tuple[Group, list[Any]]:
    group = group_of(stats, k, Form(site.dtype, site.shape))
    leaves = jax.tree.leaves(state)
    lead = leaves[0].shape[: leaves[0].ndim - len(group.leaves[0].shape)]
    if leaves[0].shape[len(lead) :] != group.leaves[0].shape:
        # Merged of sites of several shapes: it is what a site without any axes would have.
        group = group_of(stats, k, Form(site.dtype))
    rows = [leaf[(slice(None),) * len(lead) + (None,)] for leaf in leaves]
    return replace(group, lead=lead), rows


def states_of(ranges: Ranges) -> dict[str, tuple[Site, States]]:
    """For each site all its states; those of MinMax with derivations carried out."""
    return {
        site.name: (
            site,
            {
                stat: _state_of(ranges, site, stat)
                for stat in ranges.stats
                if ranges.has(site.name, stat)
            },
        )
        for site in ranges.sites
    }


def _state_of(ranges: Ranges, site: Site, stat: Statistic) -> Any:
    if not isinstance(stat, MinMax):
        return ranges.state(site.name, stat)
    return _extrema(ranges[site.name], site.dtype)


def _extrema(found: Range, dtype: np.dtype) -> Extrema:
    """A range as a state of MinMax at a site of this dtype."""
    xp = jnp if compat.is_traced(found.min) else np
    return MinMax().state(found.min, found.max, found.nan, dtype, xp)


def _merge_by_name(a: Ranges, b: Ranges) -> Ranges:
    sites, states = [], []
    mine, others = states_of(a), states_of(b)
    for name in dict.fromkeys((*mine, *others)):
        site, of_site = mine.get(name) or others[name]
        if name in mine and name in others:
            site, of_site = _merged_site(mine[name], others[name])
        sites.append(site)
        states.append(of_site)
    return from_states(sites, states)


def _merged_site(a: tuple[Site, States], b: tuple[Site, States]) -> tuple[Site, States]:
    (site, mine), (other, others) = a, b
    dtype = site.dtype if site.dtype == other.dtype else common_dtype(site.dtype, other.dtype)
    states = dict(mine)
    for stat, state in others.items():
        if stat not in mine:
            states[stat] = state
            continue
        own = mine[stat]
        leads = [_lead(stat, s, of) for s, of in ((own, site), (state, other))]
        if leads[0] != leads[1]:
            raise ValueError(
                f"site {site.name!r} has ranges of shape {leads[0]} in one and {leads[1]} in the "
                f"other (stacked loops, or vmap); merge their .reduce() instead"
            )
        if site.dtype != other.dtype:
            own = stat.convert(own, site.dtype, dtype)
            state = stat.convert(state, other.dtype, dtype)
        alike = _shapes(own) == _shapes(state)
        states[stat] = (
            stat.merge(own, state) if alike else stat.merge_unlike(own, state, len(leads[0]))
        )
    return replace(site, dtype=dtype), states


def _lead(stat: Statistic, state: Any, site: Site) -> tuple[int, ...]:
    """The leading axes of a site's state: those of vmap and stacked loops."""
    first = jax.tree.leaves(state)[0]
    own = jax.tree.leaves(stat.identity_for(site.dtype, site.shape))[0]
    return first.shape[: first.ndim - np.ndim(own)]


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(state)]


def nearest(name: str, names: Sequence[str]) -> list[str]:
    ends = [n for n in names if n.endswith("/" + name) or n.rpartition("/")[2] == name]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return list(dict.fromkeys([*ends[:3], *close]))[:5]
