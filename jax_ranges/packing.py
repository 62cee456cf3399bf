"""Packing: the states of many sites in a few arrays.

A program with 300 sites must not return 900 scalars: hundreds of tiny outputs cost more than
the reductions that fill them. States of the same kind (statistic, leaf shapes and dtypes, loop
axes) form a `Group` and lie next to each other along one axis of its arrays. A `Block` holds
some groups' arrays, a `Layout` knows in which group, and where in it, each site's state is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges.derive import Chain
from jax_ranges.site import Site
from jax_ranges.stats import Form, State, Statistic, is_known


class Leaf(NamedTuple):
    """One array of a statistic's identity, as a hashable value: one element if all are equal."""

    shape: tuple[int, ...]
    dtype: np.dtype
    value: bytes

    @classmethod
    def of(cls, array: Any) -> Leaf:
        array = np.asarray(array)
        first = array.ravel()[:1]
        same = bool(array.size) and bool((array == first).all())
        return cls(array.shape, array.dtype, (first if same else array).tobytes())

    def array(self) -> np.ndarray:
        value = np.frombuffer(self.value, self.dtype)
        if value.size == 1:
            return np.broadcast_to(value[0], self.shape)
        return value.reshape(self.shape)


@dataclass(frozen=True)
class Group:
    """The kind of states that are packed together.

    They have the same identity, whose arrays are `leaves`. A leaf of the packed state has the
    shape `[*lead, n, *shape]`: the trip counts of stacked loops, the number of sites, and the
    shape that the leaf has for one site.
    """

    stat: int
    lead: tuple[int, ...]
    treedef: Any
    leaves: tuple[Leaf, ...]

    @property
    def axis(self) -> int:
        """The axis of sites, counted from the front while tracing."""
        return len(self.lead)


def group_of(
    stats: tuple[Statistic, ...],
    stat: int,
    form: Form,
    lead: tuple[int, ...] = (),
) -> Group:
    """The group of a statistic (by its index) at sites of such a form, in stacked loops `lead`."""
    if not stats[stat].contextual:
        depends = type(stats[stat]).identity_for is not Statistic.identity_for
        form = Form(form.dtype, form.shape if depends else ())
    return _group_of(stats, stat, form, lead)


@functools.lru_cache(maxsize=1024)
def _group_of(stats: tuple[Statistic, ...], stat: int, form: Form, lead: tuple[int, ...]) -> Group:
    leaves, treedef = jax.tree.flatten(stats[stat].identity_in(form))
    return Group(stat, lead, treedef, tuple(map(Leaf.of, leaves)))


@jax.tree_util.register_pytree_node_class
class Block:
    """The packed states of some sites: for each group, the leaves of its state."""

    def __init__(self, states: dict[Group, list[Any]]):
        self.states = states

    def tree_flatten(self) -> tuple[Any, Any]:
        return tuple(self.states.values()), tuple(self.states)

    @classmethod
    def tree_unflatten(cls, groups: Any, states: Any) -> Block:
        return cls(dict(zip(groups, states, strict=True)))

    def merge(self, other: Block, stats: Sequence[Statistic]) -> Block:
        """What was seen in either; both hold the same groups."""
        return Block(
            {
                group: jax.tree.leaves(
                    stats[group.stat].merge(
                        group.treedef.unflatten(mine), group.treedef.unflatten(other.states[group])
                    )
                )
                for group, mine in self.states.items()
            }
        )

    def map(self, change: Callable[[Statistic, State], State], stats: Sequence[Statistic]) -> Block:
        return Block(
            {
                group: jax.tree.leaves(change(stats[group.stat], group.treedef.unflatten(leaves)))
                for group, leaves in self.states.items()
            }
        )

    def stacked(self, trips: int) -> Block:
        """The same arrays, read as those of a loop that stacked them: one more leading axis."""
        return Block(
            {replace(g, lead=(trips, *g.lead)): leaves for g, leaves in self.states.items()}
        )


def nothing(group: Group, count: int) -> Block:
    """The states of `count` sites at which no value was seen, as numpy arrays.

    Those of loops whose trip counts are symbolic are arrays of the program.
    """
    shape = (*group.lead, count)
    xp = np if is_known(shape) else jnp
    return Block({group: [xp.broadcast_to(x.array(), (*shape, *x.shape)) for x in group.leaves]})


def join(blocks: Iterable[Block]) -> Block:
    """Blocks after one another; the sites of a group keep their order."""
    parts: dict[Group, list[list[Any]]] = {}
    for block in blocks:
        for group, leaves in block.states.items():
            parts.setdefault(group, []).append(leaves)
    return Block(
        {
            group: [_concatenate(leaf, group.axis) for leaf in zip(*states, strict=True)]
            for group, states in parts.items()
        }
    )


def _concatenate(arrays: Sequence[Any], axis: int) -> Any:
    if len(arrays) == 1:
        return arrays[0]
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np.concatenate(arrays, axis)
    return jnp.concatenate(arrays, axis)


class Slot(NamedTuple):
    """Where a state lies: the index of its group, and the position along the group's axis."""

    group: int
    position: int


@dataclass(frozen=True, eq=False)
class Layout:
    """The static half of a `Ranges`: which sites, and where the packed arrays hold their states.

    `places[k][i]` says how the state of statistic k at site i is had: for most a single chain
    without steps (it is the state in that slot), for derived ranges what `derive.Chain` means,
    with slots in the place of sources.
    """

    stats: tuple[Statistic, ...]
    sites: tuple[Site, ...]
    groups: tuple[Group, ...]
    places: tuple[tuple[tuple[Chain, ...], ...], ...]

    @functools.cached_property
    def index(self) -> dict[str, int]:
        return {site.name: i for i, site in enumerate(self.sites)}

    # A layout is the static part of a pytree: compared at every call of a jitted function that
    # takes or returns ranges. So identity first, and the hash only once.

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return (self.stats, self.sites, self.groups, self.places)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Layout) or self._hash != other._hash:
            return False
        return self._key == other._key
