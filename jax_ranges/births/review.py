"""The review: what is decided about births when an iteration, or the program, is over.

By then the states of MinMax of all sites are there. From these it follows whether an operand of
a contraction held a NaN; how far a birth got (see `first.RANKS`): which operations that use it,
and those that use these, are not finite either; and what the ranges of the operands were.

All of it is about a few numbers a site, and happens only if anything was born.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import compat, keys
from jax_ranges.births.checks import Check
from jax_ranges.births.first import LEFT, MASKED, MOVED, OPERANDS, First, never
from jax_ranges.births.inquiry import Question, is_node
from jax_ranges.births.statistic import KINDS, NAN, Births
from jax_ranges.births.watch import Watch, key_ends
from jax_ranges.derive import Chain
from jax_ranges.packing import Block, Group, group_of
from jax_ranges.plan import Frame, Planner, Source
from jax_ranges.stats import Extrema, MinMax, Statistic, of_rank


@dataclass(frozen=True, eq=False)
class Pool:
    """The states of MinMax of some sources, one after another, and behind them one of nothing.

    Attributes:
      places: for each group of the block the positions taken from it.
      index: where each source is.
      infinities: for each the top above (or at) which there is a NaN (an infinity).
      ends: for each watch and each source, the keys beyond which values are beyond the format.
      word: the dtype of keys.
    """

    places: tuple[tuple[Group, tuple[int, ...]], ...]
    index: Mapping[Source, int]
    infinities: np.ndarray
    ends: np.ndarray
    word: np.dtype

    @property
    def nothing(self) -> int:
        return len(self.index)

    def of(self, block: Block) -> Extrema:
        """The states in a block."""
        rows = [[leaf[np.array(at)] for leaf in block.states[g]] for g, at in self.places]
        last = never(1, 0, self.word == np.int64)
        rows.append([leaf[0, :1] for leaf in last.seen])
        leaves = zip(*rows, strict=True)
        return Extrema(*(jnp.concatenate([x.astype(self.word) for x in leaf]) for leaf in leaves))


@dataclass(frozen=True, eq=False)
class Review:
    """See above. Rows are the births' sources, nodes these and the other sites of the nest.

    Attributes:
      stat: the statistic; `group`: where its states are.
      own: `[nodes, n]`, the places in the pool that say what a node is.
      roots: `[nodes, n]`, for what is derived, the rows that it is derived by way of: an infinity
        may be born there that `own` does not show.
      unknown: `[2, nodes]`, what is known of a node without them: that it has a NaN, that it is
        not finite. True, too, of those of which nothing is known.
      whole: `[rows]`, those that go by whole arrays; `held`: `[rows, n]`, these arrays.
      holds: `[2, rows]`, what constants among the operands hold.
      kept: `[rows, OPERANDS]`, of what a birth keeps the state.
      edges: `[2, n]`, from a node to one that uses it.
      exits: `[nodes]`, those that are used outside, or in the next iteration.
    """

    stat: Births
    group: Group
    pool: Pool
    own: np.ndarray
    roots: np.ndarray
    unknown: np.ndarray
    whole: np.ndarray
    held: np.ndarray
    holds: np.ndarray
    kept: np.ndarray
    edges: np.ndarray
    exits: np.ndarray

    def __call__(self, block: Block) -> Block:
        leaves = block.states[self.group]
        if isinstance(leaves[0], np.ndarray):  # constants: no equation can make anything
            return block
        groups = dict.fromkeys((self.group, *(group for group, _ in self.pool.places)))
        # As bits, which have no derivatives: jet has no rule for cond, and needs none for these.
        needed = Block({g: list(map(_bits, block.states[g])) for g in groups})
        with compat.keeping_64_bits() if self.pool.word == np.int64 else contextlib.nullcontext():
            reviewed = lax.cond(
                jnp.any(needed.states[self.group][0] > 0),
                self._reviewed,
                lambda block: [jnp.asarray(leaf) for leaf in block.states[self.group]],
                needed,
            )
        return Block({**block.states, self.group: reviewed})

    def signature(self) -> Hashable:
        arrays = (self.own, self.roots, self.unknown, self.whole, self.held, self.holds, self.kept)
        arrays += (self.edges, self.exits, self.pool.infinities)
        shapes = tuple((array.shape, array.tobytes()) for array in arrays)
        return self.stat, self.group, self.pool.places, shapes

    def _reviewed(self, block: Block) -> list[Any]:
        state = First(*block.states[self.group])
        extrema = self.pool.of(block)
        tops = [extrema.top > self.pool.infinities, extrema.top >= self.pool.infinities]
        flags = jnp.stack(tops)  # [2, the pool]
        count = jnp.where(self._inherited(flags, extrema), 0, state.count)
        happened = (count > 0)[..., None]
        rank = self._ranks(flags, state.count)
        kept = [leaf[self.kept][:, None, :] for leaf in extrema]
        first = of_rank(np.arange(state.when.shape[-1]) == 0, state.when.ndim)
        return [
            count,
            jnp.where(happened & first, rank[..., None], 0).astype(state.when.dtype),
            *(jnp.where(happened, new, old) for new, old in zip(kept, state.seen, strict=True)),
        ]

    def _inherited(self, flags: Any, extrema: Extrema) -> Any:
        """`[rows, kinds]`: whether what is there may come from an operand that holds it too."""
        nan, bad = jnp.any(flags[:, self.held], -1) | self.holds
        columns = [nan, bad, bad]
        for watch, ends in zip(self.stat.watches, self.pool.ends, strict=True):
            beyond = watch.is_beyond(extrema.min, extrema.max, ends)
            here = jnp.any(beyond[self.held], -1)
            columns.append(here if watch.kind == "saturated" else jnp.zeros_like(here))
        return jnp.stack(columns, -1) & self.whole[:, None]

    def _ranks(self, flags: Any, count: Any) -> Any:
        """`[rows, kinds]`. A NaN stays one, so it is in NaNs only that it gets anywhere."""
        here = jnp.any(flags[:, self.own], -1) | self.unknown
        rows = count.shape[0]
        born = jnp.stack([count[:, NAN] > 0, jnp.any(count[:, : len(KINDS)] > 0, -1)])
        here |= jnp.any(jnp.pad(born, ((0, 0), (0, 1)))[:, self.roots], -1)
        left = self._exits | self._used(self._leaving(here))
        rank = jnp.where(left, LEFT, jnp.where(self._used(here), MOVED, MASKED))[:, :rows]
        others = [jnp.zeros_like(rank[0])] * len(self.stat.watches)
        return jnp.stack([rank[0], rank[1], rank[1], *others], -1)

    def _leaving(self, here: Any) -> Any:
        """Which nodes that have it pass it on until it is outside."""

        def body(reached: tuple[Any, Any]) -> tuple[Any, Any]:
            now, _ = reached
            return here & (self._exits | self._used(now)), now

        def goes_on(reached: tuple[Any, Any]) -> Any:
            return jnp.any(reached[0] != reached[1])

        start = here & self._exits
        return lax.while_loop(goes_on, body, (start, start ^ True))[0]

    @property
    def _exits(self) -> np.ndarray:
        """The same for NaN and for what is not finite."""
        return of_rank(self.exits, 2)

    def _used(self, there: Any) -> Any:
        """`[2, nodes]`: whether a node is used by one of those."""
        source, target = self.edges
        return jnp.zeros_like(there).at[:, source].max(there[:, target])


def attach(
    frame: Frame,
    planner: Planner,
    stats: tuple[Statistic, ...],
    questions: Mapping[int, Question],
    around: int | None = None,
) -> None:
    """Give a planned frame, and the bodies of loops in it, their reviews.

    around: the nest of the frame that it is in.
    """
    if frame.nest != around:
        frame.review = _review(frame, planner, stats, questions)
    for equation in frame.equations:
        for inner in equation.frames:
            attach(inner, planner, stats, questions, frame.nest)


def _review(
    frame: Frame,
    planner: Planner,
    stats: tuple[Statistic, ...],
    questions: Mapping[int, Question],
) -> Review | None:
    """None if nothing can be born in it."""
    stat = next(stat for stat in stats if isinstance(stat, Births))
    k = stats.index(stat)
    site_of = {question.source: i for i, question in questions.items()}
    own = [s for s in frame.sources if s.nest == frame.nest and k in s.wanted]
    rows = [site_of[source] for source in own]
    if all(questions[i].check is Check.NEVER for i in rows):
        return None
    here = [i for i, made in enumerate(planner.made) if made.nest == frame.nest]
    nodes = [*rows, *(i for i in here if is_node(planner, i) and i not in set(rows))]
    pool = _pool(frame, stats, stat.watches)
    held = [_held(pool, questions[i]) for i in rows]
    known = [_known(pool, planner, i) for i in nodes]
    edges, exits = _edges(frame, planner, nodes)
    kept = [_kept(pool, questions[i]) for i in rows]
    return Review(
        stat=stat,
        group=group_of(stats, k, own[0].form),
        pool=pool,
        own=_padded([places for places, _ in known], pool.nothing),
        roots=_padded(_roots(planner, rows, nodes), len(rows)),
        unknown=np.array([flags for _, flags in known], bool).reshape(-1, 2).T,
        whole=np.array([questions[i].check is Check.WHOLE for i in rows]),
        held=_padded([places for places, _ in held], pool.nothing),
        holds=np.array([flags for _, flags in held], bool).reshape(-1, 2).T,
        kept=np.array(kept, np.int32).reshape(-1, OPERANDS),
        edges=edges,
        exits=exits,
    )


def _pool(frame: Frame, stats: tuple[Statistic, ...], watches: Sequence[Watch]) -> Pool:
    """Of all sources of a frame (those of stacked loops in it aside) that are not known."""
    k = next(k for k, stat in enumerate(stats) if isinstance(stat, MinMax))
    places: dict[Group, list[int]] = {}
    sources: dict[Group, list[Source]] = {}
    filled: dict[Group, int] = {}
    for source in frame.sources:
        if k not in source.wanted:
            continue
        group = group_of(stats, k, source.form, source.lead[len(frame.lead) :])
        position = filled[group] = filled.get(group, -1) + 1
        if source.known is None and not group.lead:
            places.setdefault(group, []).append(position)
            sources.setdefault(group, []).append(source)
    order = [source for group in places for source in sources[group]]
    wide = any(source.wide for source in order)
    dtypes = [keys.real_dtype(source.dtype) for source in order]
    return Pool(
        places=tuple((group, tuple(at)) for group, at in places.items()),
        index={source: n for n, source in enumerate(order)},
        infinities=_array([_infinity(dtype) for dtype in dtypes], wide),
        ends=np.array(
            [np.array([*(key_ends(w.limits, d) for d in dtypes), (0, 0)]).T for w in watches]
        ),
        word=np.dtype(np.int64 if wide else np.int32),
    )


def _array(numbers: Sequence[int], wide: bool) -> np.ndarray:
    """And one that nothing reaches, for the state of nothing."""
    word = np.dtype(np.int64 if wide else np.int32)
    return np.array([*numbers, np.iinfo(word).max], word)


def _infinity(dtype: np.dtype) -> int:
    if keys.is_float(dtype):
        return keys.infinity(dtype)
    return int(np.iinfo(keys.key_dtype(dtype)).max)


def _held(pool: Pool, question: Question) -> tuple[list[int], list[bool]]:
    """Where the operands are that are asked as a whole, and what constants among them hold."""
    parts = [part for operand in question.operands for part in operand.parts or ()]
    if question.check is not Check.WHOLE:
        return [], [False, False]
    places = [pool.index[part.source] for part in parts if part.source in pool.index]
    flags = [_flags(part.source) for part in parts if part.known is not None]
    return places, [any(flag) for flag in zip(*flags, strict=True)] or [False, False]


def _flags(source: Source) -> tuple[bool, bool]:
    """Whether what is known of a source has a NaN, and whether it is not finite."""
    assert source.known is not None
    top, infinity = int(source.known().top), _infinity(keys.real_dtype(source.dtype))
    return top > infinity, top >= infinity


def _known(pool: Pool, planner: Planner, i: int) -> tuple[list[int], list[bool]]:
    """Where it is said what a node is, and what is known of it without."""
    known = planner.values[i].known
    assert known is not None
    sources = [planner.sources[chain.source] for chain in known.expr]
    flags = [
        _flags(s) if s.known is not None else (True, True) for s in sources if s not in pool.index
    ]
    return [pool.index[s] for s in sources if s in pool.index], [
        any(flag) for flag in zip(*flags, strict=True)
    ] or [False, False]


def _roots(planner: Planner, rows: Sequence[int], nodes: Sequence[int]) -> list[list[int]]:
    """For each node itself, and what it is derived by way of, if these are rows."""
    number = {i: n for n, i in enumerate(rows)}
    place = {planner.sites[i].name: i for i in nodes}
    found: dict[int, set[int]] = {}
    for i in sorted(nodes):  # in program order: what a node is made of comes before it
        found[i] = {number[i]} if i in number else set()
        if _is_derived(planner, i):
            for name in planner.sites[i].operands:
                found[i] |= found.get(place.get(name, -1), set())
    return [sorted(found[i]) for i in nodes]


def _is_derived(planner: Planner, i: int) -> bool:
    value = planner.values[i]
    assert value.known is not None and value.source is not None
    is_own = value.known.expr == (Chain(value.source.index),)
    return not is_own or planner.sites[i].primitive == "output"


def _kept(pool: Pool, question: Question) -> list[int]:
    kept = [pool.nothing] * OPERANDS
    for operand in question.operands:
        for part in operand.parts or ():
            if part.snapshot is not None and part.source in pool.index:
                kept[part.snapshot] = pool.index[part.source]
    return kept


def _edges(frame: Frame, planner: Planner, nodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """From each node to those that use it, and which nodes are used outside."""
    sites, number = planner.sites, {planner.sites[i].name: n for n, i in enumerate(nodes)}
    exits = [sites[i].primitive == "output" or sites[i].name in frame.exits for i in nodes]
    edges = []
    inside = {i: n for n, i in enumerate(nodes)}
    for i, site in enumerate(sites):
        for source in (number[name] for name in site.operands if name in number):
            if i in inside:
                edges.append((source, inside[i]))
            elif planner.made[i].nest != frame.nest:
                exits[source] = True
    return np.array(edges, np.int32).reshape(-1, 2).T, np.array(exits, bool)


def _padded(rows: Sequence[Sequence[int]], filling: int) -> np.ndarray:
    width = max(map(len, rows), default=0)
    return np.array([[*row, *[filling] * (width - len(row))] for row in rows], np.int32).reshape(
        len(rows), width
    )


def _bits(x: Any) -> Any:
    return lax.bitcast_convert_type(x, x.dtype)
