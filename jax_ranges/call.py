"""One call of a Python function, traced: what of it is a program on arrays, and what is not."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import FlattenedIndexKey

from jax_ranges import compat
from jax_ranges.site import Names
from jax_ranges.trees import flat_tree, given_tree, is_array, native


@dataclass(frozen=True)
class Call:
    """One call of a function, traced.

    Attributes:
      jaxpr: the program, closed.
      leaves: the arrays among the arguments, in the order of the program's inputs.
      names: for each of them `input/<path>`.
      dynamic: for each leaf of `(args, kwargs)` whether it is one of those.
      is_foreign: whether some of them were given in another byte order than this machine's.
      donated: which of them the function donates (their indices).
      options: the compiler options with which it is to be jitted.
      returned: puts the function's output together, and writes what the function wrote.
    """

    jaxpr: Any
    leaves: list[Any]
    names: list[str]
    dynamic: list[bool]
    is_foreign: bool
    donated: tuple[int, ...]
    options: dict[str, Any]
    returned: Returned

    @classmethod
    def trace(
        cls, fun: Any, args: Any, kwargs: Any, abstract: bool = False, outermost: bool = False
    ) -> Call:
        """Trace `fun(*args, **kwargs)`.

        abstract: shapes may stand for arrays. outermost: the program will be jitted as a whole,
        so compiler options that `fun` brings belong to that.
        """
        fun, args = unbound(fun, args)
        info = compat.jit_arguments(fun)
        fun, options = compat.without_compiler_options(fun)
        given = _Given.of(info, args, kwargs, abstract)
        returned: list[Any] = []

        def program(*traced: Any) -> list[Any]:
            values, returned[:] = given.run(fun, traced)
            return values

        paths, leaves = zip(*given.arrays, strict=True) if given.arrays else ((), ())
        with given.explained():
            jaxpr = jax.make_jaxpr(program)(*leaves)
        if options and not outermost:
            jaxpr, options = compat.with_compiler_options(jaxpr, options), {}
        parameters, is_donated = _parameters(fun, len(args)), _belongs_to(info.donated, args)
        tree, is_unsorted, others, written = returned
        avals = [atom.aval for atom in compat.opened(jaxpr)[0].outvars]
        return cls(
            jaxpr=jaxpr,
            leaves=[_as_array(leaf) for leaf in leaves],
            names=_distinct(_input_name(path, parameters) for path in paths),
            dynamic=given.dynamic,
            is_foreign=given.is_foreign,
            donated=tuple(i for i, path in enumerate(paths) if is_donated(path)),
            options=options,
            returned=Returned(tree, is_unsorted, others, written, avals),
        )


def _as_array(leaf: Any) -> Any:
    """A Python number as the array, of a weak type, that operations on it are given."""
    return jnp.asarray(leaf) if isinstance(leaf, (bool, int, float, complex)) else leaf


@dataclass(frozen=True)
class _Given:
    """The arguments of a call.

    Attributes:
      flat: the leaves of `(args, kwargs)` with their paths; `tree`: their structure.
      is_unsorted: whether it is that of `flat_tree` instead.
      dynamic: which of them are arrays, to be traced.
      is_foreign: whether the byte order of some of these was changed.
      shared: where variables are that are elsewhere too; see `shared_variables`.
    """

    flat: list[tuple[Any, Any]]
    tree: Any
    is_unsorted: bool
    dynamic: list[bool]
    is_foreign: bool
    shared: list[tuple[Any, Any]]

    @classmethod
    def of(cls, info: compat.JitArguments, args: Any, kwargs: Any, abstract: bool) -> _Given:
        given = (args, kwargs)
        sorted_ = flat_tree(given)
        flat, tree = jax.tree_util.tree_flatten_with_path(sorted_)
        is_static, jitted = _belongs_to(info.static, args), info.jitted is not None

        def is_dynamic(path: Any, leaf: Any) -> bool:
            if is_static(path):
                return False
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                return is_array(leaf, jitted)
            if jitted and not abstract:
                raise _needs_arrays(path, leaf)
            return abstract

        dynamic = [is_dynamic(path, leaf) for path, leaf in flat]
        own = [(p, native(x) if d else x) for (p, x), d in zip(flat, dynamic, strict=True)]
        is_foreign = any(a is not b for (_, a), (_, b) in zip(own, flat, strict=True))
        shared = shared_variables(sorted_)
        return cls(own, tree, sorted_ is not given, dynamic, is_foreign, shared)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What goes wrong when shapes are given in the place of arrays is explained by that."""
        shapes = [
            (path, leaf)
            for (path, leaf), d in zip(self.flat, self.dynamic, strict=True)
            if not d and isinstance(leaf, jax.ShapeDtypeStruct)
        ]
        try:
            yield
        except TypeError as error:
            if not shapes:
                raise
            raise _needs_arrays(*shapes[0]) from error

    @property
    def arrays(self) -> list[tuple[Any, Any]]:
        return [pair for pair, d in zip(self.flat, self.dynamic, strict=True) if d]

    def run(self, fun: Any, traced: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The arrays that `fun` returns or writes, and the first four fields of `Returned`."""
        fill = iter(traced)
        filled = [next(fill) if d else x for (_, x), d in zip(self.flat, self.dynamic, strict=True)]
        args, kwargs = jax.tree.unflatten(self.tree, filled)
        if self.is_unsorted:
            args, kwargs = given_tree((args, kwargs))
        share((args, kwargs), self.shared)
        before = dict(jax.tree_util.tree_flatten_with_path(flat_tree((args, kwargs)))[0])
        out = fun(*args, **kwargs)
        _refuse_unfinished(fun, [out])
        sorted_ = flat_tree(out)
        outs, out_tree = jax.tree.flatten(sorted_)
        _refuse_unfinished(fun, outs)
        changes = _changes(fun, self.tree, before, flat_tree((args, kwargs)))
        values = [*outs, *changes.values()]
        # Whatever is not an array (a flag, a function in a module) is returned as it is.
        others = [None if isinstance(x, jax.Array) else (x,) for x in values]
        arrays = [x for x in values if isinstance(x, jax.Array)]
        return arrays, [out_tree, sorted_ is not out, others, tuple(changes)]


@dataclass(frozen=True)
class Returned:
    """What a traced function returned, beside arrays.

    Attributes:
      tree: the structure of its output.
      is_unsorted: whether it is that of `flat_tree` instead.
      others: for each leaf of it, and for each leaf that was written, None if it is an array, a
        one-tuple of the value if not.
      written: where in `(args, kwargs)` the function wrote something.
      avals: the types of the arrays.
    """

    tree: Any
    is_unsorted: bool
    others: list[tuple[Any] | None]
    written: tuple[Any, ...]
    avals: list[Any]

    @property
    def names(self) -> list[str]:
        """For each of the arrays `output/<path>`; of what is written `written/<path>`."""
        count = len(self.others) - len(self.written)
        tree = self.tree.unflatten(range(count))
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
        names = [_joined("output", path) for path in paths]
        names = _distinct([*names, *(_joined("written", path) for path in self.written)])
        return [name for name, other in zip(names, self.others, strict=True) if other is None]

    def typed(self, values: Sequence[Any]) -> list[Any]:
        """The program's outputs, of the types that they had when traced, weak ones included."""
        with compat.own():
            return [compat.retyped(v, aval) for v, aval in zip(values, self.avals, strict=True)]

    def output(self, values: Sequence[Any], args: Any, kwargs: Any) -> Any:
        """The function's output; what it wrote into its arguments is written into these."""
        if not self.written and len(values) == len(self.others):  # nothing but arrays
            return self._whole(values)
        arrays = iter(values)
        filled = [next(arrays) if other is None else _own(other[0]) for other in self.others]
        count = len(filled) - len(self.written)
        for path, value in zip(self.written, filled[count:], strict=True):
            _write((args, kwargs), path, value)
        return self._whole(filled[:count])

    def _whole(self, leaves: Sequence[Any]) -> Any:
        out = self.tree.unflatten(leaves)
        return given_tree(out) if self.is_unsorted else out


def _own(value: Any) -> Any:
    """The caller may write into a numpy array, which is the same at every call."""
    return value.copy() if isinstance(value, np.ndarray) else value


def _needs_arrays(path: Any, leaf: Any) -> TypeError:
    which, *rest = path
    where = ("args", "kwargs")[which.idx] + jax.tree_util.keystr(tuple(rest))
    return TypeError(
        f"jr.ranges(f) runs f and needs arrays; argument {where} is the abstract {leaf}. For "
        f"shapes only use jax.eval_shape(jr.ranges(f), ...) or jr.plan(f)"
    )


def _refuse_unfinished(fun: Any, outs: Sequence[Any]) -> None:
    """Outputs that would run, or hold traced values, when tracing is over."""
    for out in outs:
        is_leaf = jax.tree_util.all_leaves([out]) and not isinstance(out, jax.Array)
        held = getattr(out, "__dict__", {}).values() if is_leaf else ()
        waits = inspect.isgenerator(out) or inspect.isawaitable(out) or inspect.isasyncgen(out)
        if waits or any(map(compat.is_traced, held)):
            raise TypeError(
                f"{name_of(fun)} returned {type(out).__name__}, which is no pytree of arrays: "
                f"what is in it was traced, and is over when it returns. Return arrays, or "
                f"register the class as a pytree (jax.tree_util.register_dataclass)"
            )


def name_of(fun: Any) -> str:
    """What a function, or a callable object, is called."""
    return str(getattr(fun, "__name__", type(fun).__name__))


def unbound(fun: Any, args: Any) -> tuple[Any, Any]:
    """A bound method of a jitted function as that function: it counts `self` as an argument."""
    if inspect.ismethod(fun) and compat.jit_arguments(fun.__func__).jitted is not None:
        return fun.__func__, (fun.__self__, *args)
    return fun, args


def _belongs_to(arguments: compat.Arguments, args: Any) -> Callable[[Any], bool]:
    """Whether a leaf, by its path in `(args, kwargs)`, belongs to one of these arguments."""
    positions = {n % len(args) if args else n for n in arguments.positions}

    def belongs(path: Any) -> bool:
        which, argument = path[0].idx, path[1]
        return argument.idx in positions if which == 0 else argument.key in arguments.names

    return belongs


def static_values(info: compat.JitArguments, args: Any, kwargs: Any) -> Iterator[Any]:
    """The arguments that a jitted function takes as static."""
    for n in info.static.positions:
        if -len(args) <= n < len(args):
            yield args[n]
    for name in info.static.names:
        if name in kwargs:
            yield kwargs[name]


# -- the names of inputs ----------------------------------------------------------------------


def _parameters(fun: Any, count: int) -> list[str]:
    """The names of the positional parameters; `*args` gives args/0, args/1, ..."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # a builtin, or a callable that hides its signature
        parameters = []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((f"{p.name}/" for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    names = [p.name for p in named[:count]]
    return names + [f"{rest}{i}" for i in range(count - len(names))]


def _distinct(names: Iterable[str]) -> list[str]:
    """Paths written down may be the same: that of ["a/b"], and that of ["a"]["b"]."""
    return list(map(Names().claim, names))


def _joined(first: str, path: Any) -> str:
    tail = jax.tree_util.keystr(tuple(path), simple=True, separator="/")
    return f"{first}/{tail}" if tail else first


def _input_name(path: Any, parameters: list[str]) -> str:
    which, argument, *rest = path
    first = parameters[argument.idx] if which.idx == 0 else str(argument.key)
    tail = jax.tree_util.keystr(tuple(rest), simple=True, separator="/")
    return "/".join(part for part in ("input", first, tail) if part)


# -- what a function writes into its arguments ------------------------------------------------
#
# A function may write into a mutable argument: into a dict, or, the usual case, into the
# variables of a flax nnx module (batch statistics, dropout's counter, a training step's weights).
# It is traced with a copy; what it wrote there becomes outputs of the program, which are
# written into the original after the run.


def shared_variables(tree: Any) -> list[tuple[Any, Any]]:
    """The paths of variables that are elsewhere in `tree` too, and where they were met first.

    flax nnx modules may share variables (tied weights), or be given twice. A copy of the tree
    would have two of each, of which a function changes one.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_variable)
    first: dict[int, Any] = {}
    variables = [(path, x) for path, x in flat if is_variable(x)]
    return [(path, first[id(x)]) for path, x in variables if first.setdefault(id(x), path) != path]


def share(tree: Any, shared: Sequence[tuple[Any, Any]]) -> None:
    """Make variables in a copy of a tree the same that `shared_variables` found to be."""
    for path, first in shared:
        _write(tree, path, _at(tree, first))


def is_variable(value: Any) -> bool:
    """Whether it is an nnx.Variable, or anything like it: a mutable box in a pytree."""
    return hasattr(value, "set_value")


def _changes(fun: Any, treedef: Any, before: dict[Any, Any], after: Any) -> dict[Any, Any]:
    """The leaves, by path, that are not what they were before `fun` was traced."""
    flat, structure = jax.tree_util.tree_flatten_with_path(after)
    leaves = dict(flat)
    changes = {path: x for path, x in leaves.items() if path in before and x is not before[path]}
    lost = [path for path in changes if any(isinstance(k, FlattenedIndexKey) for k in path)]
    lost += [path for path in (*leaves, *before) if (path in leaves) != (path in before)]
    if lost or structure != treedef:
        where = ", ".join(map(jax.tree_util.keystr, lost[:5])) or "an attribute that is no array"
        warnings.warn(
            f"{name_of(fun)} is traced with copies of its arguments, and what it did to them at "
            f"{where} cannot be carried over to the originals: return the new value instead",
            stacklevel=2,
        )
    return {path: x for path, x in changes.items() if path not in lost}


def _at(tree: Any, path: Any) -> Any:
    for key in path:
        tree = getattr(tree, key.name) if hasattr(key, "name") else tree[_index(key)]
    return tree


def _write(tree: Any, path: Any, value: Any) -> None:
    *way, last = path
    tree = _at(tree, way)
    if hasattr(tree, "set_value"):  # an nnx.Variable, which deprecates setting its attribute
        tree.set_value(value)
    elif hasattr(last, "name"):
        setattr(tree, last.name, value)
    else:
        tree[_index(last)] = value


def _index(key: Any) -> Any:
    return key.idx if hasattr(key, "idx") else key.key
