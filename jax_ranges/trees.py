"""Pytrees as functions are given them, which is more than JAX flattens, hashes or traces.

A function that is not jitted may be called with anything: with a dictionary whose keys have no
order (members of an Enum), with a dataclass that cannot be hashed, with numpy arrays of dtypes
that JAX does not have. What of it is an array is traced; all else reaches the function as it is.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pickle
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import DictKey

# -- dictionaries whose keys have no order -----------------------------------------------------


@jax.tree_util.register_pytree_with_keys_class
class Unsorted(dict[Any, Any]):
    """A dictionary in the order in which it was filled; JAX sorts the keys of others.

    Attributes:
      factory: what makes the values of missing keys, of a `defaultdict`; None of a `dict`.
    """

    factory: Any = None

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """For `jax.tree`: the values with their keys, and what is static."""
        return tuple((DictKey(key), x) for key, x in self.items()), (self.factory, tuple(self))

    @classmethod
    def tree_unflatten(cls, aux: Any, values: Any) -> Unsorted:
        """For `jax.tree`: the inverse of `tree_flatten_with_keys`."""
        factory, keys = aux
        made = cls(zip(keys, values, strict=True))
        made.factory = factory
        return made

    def plain(self) -> dict[Any, Any]:
        """The dictionary that it stands for."""
        items = {key: given_tree(x) for key, x in self.items()}
        return items if self.factory is None else collections.defaultdict(self.factory, items)


UNSORTED = (ValueError, TypeError)
"""What JAX raises for a dictionary whose keys cannot be sorted: the latter for a defaultdict."""


def flat_tree(tree: Any) -> Any:
    """A tree that JAX can flatten: the same, or one with `Unsorted` dictionaries in it."""
    try:
        jax.tree.structure(tree)
    except UNSORTED:
        return _ordered(tree)
    return tree


def given_tree(tree: Any) -> Any:
    """The inverse of `flat_tree`; the same tree where there is nothing to do."""
    if not any(map(_is_ordered, jax.tree.leaves(tree, is_leaf=_is_ordered))):
        return tree
    return jax.tree.map(lambda x: x.plain() if _is_ordered(x) else x, tree, is_leaf=_is_ordered)


def _ordered(tree: Any) -> Any:
    def replaced(value: Any) -> Any:
        if not _is_unsortable(value):
            return value
        keys, values = tuple(value), map(_ordered, value.values())
        return Unsorted.tree_unflatten((getattr(value, "default_factory", None), keys), values)

    return jax.tree.map(replaced, tree, is_leaf=_is_unsortable)


def _is_ordered(value: Any) -> bool:
    return isinstance(value, Unsorted)


def _is_unsortable(value: Any) -> bool:
    if type(value) not in (dict, collections.defaultdict):
        return False
    try:
        sorted(value)
    except TypeError:
        return True
    return False


# -- which leaves are arrays -------------------------------------------------------------------


def is_array(leaf: Any, jitted: bool) -> bool:
    """Whether a leaf is traced: an array or a number of a kind that JAX has.

    jitted: by a function that is jitted, which traces Python's integers and booleans too.
    """
    if isinstance(leaf, (jax.Array, float, complex)):
        return True
    if isinstance(leaf, int):
        # Of larger ones jax.jit says what is wrong, and with which argument.
        return jitted and _fits(leaf, jnp.result_type(int))
    if isinstance(leaf, np.ma.MaskedArray) or not isinstance(leaf, (np.ndarray, np.generic)):
        return False
    return _is_of_jax(leaf.dtype, jitted)


def _fits(number: int, dtype: np.dtype) -> bool:
    info = np.iinfo(dtype)
    return info.min <= number <= info.max


@functools.lru_cache(maxsize=256)
def _is_of_jax(dtype: np.dtype, jitted: bool) -> bool:
    """Whether JAX has arrays of a dtype; jax.jit alone takes foreign byte orders."""
    if dtype.char in "gG" or not (dtype.isnative or jitted):  # long double
        return False
    if dtype.kind == "m":  # a time difference, which numpy counts among the integers
        return False
    return dtype == np.dtype(bool) or bool(jnp.issubdtype(dtype, np.number))


def native(leaf: Any) -> Any:
    """An array in this machine's byte order: of others jax.jit itself mistakes the values."""
    if not isinstance(leaf, (np.ndarray, np.generic)) or leaf.dtype.isnative:
        return leaf
    return leaf.astype(leaf.dtype.newbyteorder("="))


# -- comparing what is no array ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
    """Equal to itself alone."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def hashable(value: Any) -> Hashable:
    """A value itself, if it can be hashed, or else what stands for its present contents.

    Of what says nothing of its contents (it cannot be pickled) that it is this very object, as
    with all objects that are compared by identity.
    """
    try:
        hash(value)
    except (TypeError, ValueError):  # the latter of a memoryview that may be written to
        return type(value), _contents(value)
    return value


def _contents(value: Any) -> Hashable:
    if isinstance(value, tuple):
        return tuple(map(hashable, value))
    if isinstance(value, jax.tree_util.PyTreeDef):
        node = value.node_data()  # some static part of some node cannot be hashed
        return hashable(node), tuple(map(hashable, value.children()))
    if dataclasses.is_dataclass(value):
        return tuple(hashable(getattr(value, f.name, None)) for f in dataclasses.fields(value))
    if isinstance(value, memoryview):
        return value.format, value.shape, value.tobytes()
    try:
        return pickle.dumps(value)
    except (pickle.PicklingError, TypeError, AttributeError):  # as pickle says that it cannot
        return _Same(value)
