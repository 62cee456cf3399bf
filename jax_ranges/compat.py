"""What differs between JAX releases, or is not public: the only module that knows.

Everything else in the package speaks to JAX through its public interface and through the
functions below. Each use of something undocumented says why there is no public way.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import os
import re
import sysconfig
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

# For what has no public form; each use says what for.
from jax._src import array as _array
from jax._src import config as _config
from jax._src import core as _core
from jax._src.interpreters import mlir as _mlir
from jax.core import ShapedArray, Tracer
from jax.custom_derivatives import zero_from_primal
from jax.experimental import jet
from jax.extend import linear_util as lu
from jax.extend import source_info_util as siu
from jax.extend.core import JaxprEqn, Literal, jaxprs_in_params
from jax.sharding import AbstractMesh, AxisType, NamedSharding

OLDEST = (0, 10, 2)


def require_supported(version: str) -> None:
    """Raise ImportError if JAX `version` ("0.10.2") is older than the oldest that is tested."""
    found = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    if found < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ImportError(
            f"jax_ranges needs jax >= {oldest}, and jax {version} is installed. "
            f"Upgrade it: pip install -U 'jax>={oldest}'"
        )


require_supported(jax.__version__)


# The type of plain arrays: isinstance(x, jax.Array) takes five times as long as comparing it.
ConcreteArray = _array.ArrayImpl


def places_of(leaves: Iterable[Any]) -> list[jax.sharding.Sharding]:
    """The shardings of the plain arrays among these: `x.sharding`, in two thirds of the time."""
    return [x._sharding for x in leaves if type(x) is ConcreteArray]


def _optimization_barrier_jet(primals: Any, series: Any, **params: Any) -> Any:
    return jax.lax.optimization_barrier_p.bind(*primals, **params), series


# What results go through where they are stored to be measured. Of JAX's own transformations jet is
# the only one that has no rule for it, and what it takes plainly it is to take measured.
jet.jet_rules.setdefault(jax.lax.optimization_barrier_p, _optimization_barrier_jet)


# -- programs ---------------------------------------------------------------------------------


def opened(jaxpr: Any) -> tuple[Any, tuple[Any, ...]]:
    """The equations of an open or closed jaxpr, and its constants.

    `ClosedJaxpr` and `Jaxpr` became one class in jax 0.12, so there is no type to ask for.
    """
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ()))


@contextlib.contextmanager
def in_equation(eqn: JaxprEqn, scope: str | None = None) -> Iterator[None]:
    """What is traced inside is attributed to `eqn`: its scopes, its user's line, its context.

    scope: one of our own in it, for what is computed about it.
    """
    stack = siu.current_name_stack() + eqn.source_info.name_stack
    if scope is not None:
        stack = stack.extend(scope)
    ours = contextlib.nullcontext() if scope is None or tracing() else own()
    with siu.user_context(eqn.source_info.traceback, name_stack=stack), eqn.ctx.manager, ours:
        yield


def bind(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Run one equation on new operands, exactly as `jax.core.eval_jaxpr` does."""
    out = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def bind_with_rule(
    eqn: JaxprEqn,
    values: Sequence[Any],
    run: Callable[..., list[Any]],
    beside: Callable[[Sequence[Any], list[Any]], list[Any]],
) -> list[Any]:
    """Run a custom_jvp_call or custom_vjp_call that returns more than its results.

    Its rule is the equation's own and is called as that is: it sees no more than its operands,
    results and their derivatives. What is returned besides has none. (`jax.custom_vjp` of a
    function that differentiates the equation is no substitute: between the two a symbolic zero
    becomes an array, and what the rule logs is lost. So this is the equation's binding itself,
    which has no public form.)

    run: from the values to the results and more, where nothing is differentiated.
    beside: from the values and the results of the rule to the same, where something is.
    """
    params = eqn.primitive.get_bind_params(eqn.params)
    fun, rule, *backward = params["subfuns"]
    rules: list[Callable[..., Any]]
    if backward:
        rules = _vjp_and_more(rule, backward[0], beside, params["out_trees"], len(eqn.outvars))
    else:
        rules = [_jvp_and_more(rule, beside, params["symbolic_zeros"])]
    infos = [each.debug_info for each in (fun, rule, *backward)]
    subfuns = [
        lu.wrap_init(new, debug_info=info) for new, info in zip((run, *rules), infos, strict=True)
    ]
    return list(eqn.primitive.bind(*values, **{**params, "subfuns": tuple(subfuns)}))


def _jvp_and_more(jvp: Any, beside: Callable[..., list[Any]], symbolic: bool) -> Any:
    def rule(*args: Any) -> list[Any]:
        outs = jvp.call_wrapped(*args)
        count = len(outs) // 2
        values = beside(args[: len(args) // 2], outs[:count])
        still = [zero_from_primal(x, symbolic_zeros=symbolic) for x in values[count:]]
        return [*values, *outs[count:], *still]

    return rule


def _vjp_and_more(
    fwd: Any, bwd: Any, beside: Callable[..., list[Any]], out_trees: Callable[[], Any], count: int
) -> list[Any]:
    def forward(*args: Any) -> list[Any]:
        outs = fwd.call_wrapped(*args)  # of each operand, and whether it is differentiated
        kept = len(outs) - count
        return [*outs[:kept], *beside(args[::2], outs[kept:])]

    def backward(*args: Any) -> Any:
        residuals = out_trees()[1].num_leaves
        return bwd.call_wrapped(*args[: residuals + count])

    return [forward, backward]


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many of a scan's operands are constants, and how many are carried."""
    params = eqn.params
    if "ft_in" in params:  # since 0.12 the operands' grouping is a tree
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


def composite_program(eqn: JaxprEqn) -> Any:
    """The decomposition of a composite: `jaxpr` until 0.12, `call_jaxpr` since."""
    params = eqn.params
    return params["call_jaxpr"] if "call_jaxpr" in params else params["jaxpr"]


def jit_like(eqn: JaxprEqn, fun: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` of `fun` with everything that the jit equation `eqn` was made with.

    `fun` takes the equation's operands and returns (its results, anything more). Of `ctx_mesh`
    there is nothing to pass on: it is the mesh that `jax.jit` was called under, which the
    shardings name by now, and `in_equation` has the trace run under it again.
    """
    params = eqn.params
    options: dict[str, Any] = {
        "donate_argnums": [i for i, donated in enumerate(params["donated_invars"]) if donated],
        "keep_unused": params["keep_unused"],
        "inline": params["inline"],
        "compiler_options": dict(params["compiler_options_kvs"]) or None,
    }
    ins = _placements(params["in_shardings"], params["in_layouts"])
    outs = _placements(params["out_shardings"], params["out_layouts"])
    if any(place is not None for place in ins):
        options["in_shardings"] = ins
    if any(place is not None for place in outs):
        options["out_shardings"] = (list(outs), None)
    fun.__name__ = fun.__qualname__ = params["name"]
    return jax.jit(fun, **options)


def _placements(shardings: Sequence[Any], layouts: Sequence[Any]) -> tuple[Any, ...]:
    from jax.experimental.layout import Format

    # The mark for "left to the compiler" has no public name; `jax.jit` spells it None.
    placed = [s if isinstance(s, jax.sharding.Sharding) else None for s in shardings]
    return tuple(
        place if layout is None else Format(layout, place)
        for place, layout in zip(placed, layouts, strict=True)
    )


def placed_operands(eqn: JaxprEqn) -> list[int]:
    """The operands of a jit equation of which it says where they are to be, or in what layout."""
    params = eqn.params
    places = _placements(params["in_shardings"], params["in_layouts"])
    return [i for i, place in enumerate(places) if place is not None]


def undonated(eqn: JaxprEqn) -> JaxprEqn:
    """A jit equation that keeps its operands."""
    kept = (False,) * len(eqn.params["donated_invars"])
    return eqn.replace(params={**eqn.params, "donated_invars": kept})


def without_compiler_options(fun: Any) -> tuple[Any, dict[str, Any]]:
    """A jitted function jitted without its compiler options, and these options.

    JAX refuses to trace a function that has compiler options as part of another one.
    """
    info = jit_arguments(fun).jitted
    options = dict(getattr(info, "compiler_options_kvs", None) or ())
    if not options:
        return fun, {}
    given: dict[str, Any] = {name: getattr(info, name) for name in _KEPT_BY_JIT}
    for side in ("in", "out"):
        leaves = getattr(info, f"{side}_shardings_leaves")
        if any(isinstance(leaf, jax.sharding.Sharding) for leaf in leaves):
            tree = getattr(info, f"{side}_shardings_treedef")
            given[f"{side}_shardings"] = tree.unflatten(_placements(leaves, [None] * len(leaves)))
    return jax.jit(fun.__wrapped__, **given), options


_KEPT_BY_JIT = (
    *("static_argnums", "static_argnames", "donate_argnums", "donate_argnames"),
    *("keep_unused", "inline"),
)


def with_compiler_options(jaxpr: Any, options: dict[str, Any]) -> Any:
    """A closed jaxpr with these options in its jit equations."""
    program = opened(jaxpr)[0]
    eqns = [
        eqn.replace(params={**eqn.params, "compiler_options_kvs": tuple(options.items())})
        if eqn.primitive.name == "jit"
        else eqn
        for eqn in program.eqns
    ]
    program = program.replace(eqns=eqns)
    return program if program.__class__ is jaxpr.__class__ else jaxpr.replace(jaxpr=program)


def _leave_compiler_threads() -> None:
    """Keep a forked process from waiting for ever, at its end, for threads that it does not have.

    At the end of a process LLVM's pool, in which JAX's compiler has threads, joins them; a fork has
    the pool without the threads. Plainly JAX crashes in a fork's end before it comes to that. There
    is no public way to the pool; what has one reference too many is not ended.
    """
    pool = getattr(_mlir, "global_thread_pool", None)
    if pool is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))


if hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
    os.register_at_fork(after_in_child=_leave_compiler_threads)


class Arguments(NamedTuple):
    """Some of a function's arguments: by position (from the end, if negative) or by keyword."""

    positions: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()


class JitArguments(NamedTuple):
    """How a jitted function takes its arguments; `jitted` is None if it is not jitted."""

    jitted: Any
    static: Arguments = Arguments()
    donated: Arguments = Arguments()


def jit_arguments(fun: Callable[..., Any]) -> JitArguments:
    """Which arguments a jitted `fun` takes as static, and which it donates.

    A jitted function has no public attribute that says so. Where a release drops this one,
    Python floats given as static arguments are traced, and jax.jit says that it cannot.
    """
    info = None if inspect.ismethod(fun) else getattr(fun, "_jit_info", None)

    def arguments(kind: str) -> Arguments:
        numbers, names = (getattr(info, f"{kind}_arg{x}", None) or () for x in ("nums", "names"))
        return Arguments(frozenset(numbers), frozenset(names))

    return JitArguments(info, arguments("static"), arguments("donate"))


def retyped(value: Any, aval: Any) -> Any:
    """`value` as an array (it may be a literal) with the weak type that `aval` has."""
    if not isinstance(value, jax.Array) and isinstance(aval, ShapedArray):
        value = jax.numpy.asarray(value)
    if not isinstance(aval, ShapedArray) or not hasattr(value, "weak_type"):
        return value
    if value.weak_type == aval.weak_type:
        return value
    # jax.lax.convert_element_type never makes a weak type; its primitive does.
    return jax.lax.convert_element_type_p.bind(
        value, new_dtype=aval.dtype, weak_type=aval.weak_type, sharding=None
    )


@contextlib.contextmanager
def keeping_64_bits(arrays: Iterable[Any] | None = None) -> Iterator[None]:
    """What is computed inside keeps 64-bit arrays as they are, also where x64 is off.

    arrays: those that it is computed from, if these decide whether there will be any.

    Ranges of a float64 program may be merged when it is (the mode is a context's, or a file was
    read), and jax.numpy would silently cut the halves off. With x64 on nothing else changes: the
    arrays have types already.
    """
    given = [x for x in arrays or () if isinstance(x, (jax.Array, np.ndarray))]
    wide = arrays is None or any(x.dtype.itemsize == 8 for x in given)
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What is computed inside has nothing to do with what the user computes.

    It is not traced, though something may be: the garbage collector may close a net in the
    middle of it. And a transfer guard is about the user's own arrays.
    """
    eagerly = jax.ensure_compile_time_eval() if tracing() else contextlib.nullcontext()
    with eagerly, own():
        yield


@contextlib.contextmanager
def own() -> Iterator[None]:
    """What is computed inside is none of the user's operations, so it is not watched as these are.

    A transfer guard is about the user's own arrays, and so are `jax_debug_nans` and
    `jax_debug_infs`: the identity of a statistic may be infinite, and in a lower precision
    values are.
    """
    with jax.transfer_guard("allow"), jax.debug_nans(False), jax.debug_infs(False):
        yield


def used_again(values: Sequence[Any]) -> list[Any]:
    """The same values for a second run of something. JAX may be told to refuse using a key twice
    (`jax_debug_key_reuse`); so keys are clones, which costs nothing once it is compiled."""
    return [jax.random.clone(x) if _is_key(x) else x for x in values]


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)


def is_literal(atom: Any) -> bool:
    return isinstance(atom, Literal)


def is_traced(value: Any) -> bool:
    return isinstance(value, Tracer)


def tracing() -> bool:
    """Whether some transformation (jit, grad, vmap) is tracing the code that asks.

    Arguments alone do not tell: a function may be called with constants inside jit. No public
    function tells.
    """
    return not _core.trace_state_clean()


def trace_context() -> Hashable:
    """What of JAX's settings (x64, precision, mesh, default device, ...) a trace depends on.

    `jax.jit` has it in the key of its own cache; there is no public way to ask for it.
    """
    return _config.trace_context()


# -- memories ---------------------------------------------------------------------------------

_Space = jax.memory.Space


def is_offloaded(aval: Any) -> bool:
    """Whether values of a type are in the host's memory, beside which accelerators compute."""
    return getattr(aval, "memory_space", None) == _Space.Host


def on_device(tree: Any) -> Any:
    """The same values, those that are offloaded brought to the memory of their devices."""
    return jax.tree.map(_brought, tree)


def _brought(leaf: Any) -> Any:
    return jax.device_put(leaf, _Space.Device) if _lies_on_host(leaf) else leaf


def _lies_on_host(value: Any) -> bool:
    return is_offloaded(getattr(value, "aval", None))


def computed_in_place(fun: Callable[[Any], Any], value: Any) -> Any:
    """`fun` of a value, which keeps its shape, in the memory and the places where the value is."""
    if _lies_on_host(value):
        return jax.device_put(computed_in_place(fun, _brought(value)), _Space.Host)
    return computed_where(value, fun, value)


# -- meshes -----------------------------------------------------------------------------------
#
# Axes of a mesh are of three types. Along automatic ones the compiler decides where an array is;
# along explicit ones its type says so, and many an operation wants to be told where its result is
# to be; along manual ones (inside shard_map) the code runs once a device.


def automatic() -> contextlib.AbstractContextManager[Any]:
    """Where what is computed inside lies is for the compiler to say, along explicit axes too.

    Arrays from outside have to be `unplaced` for it, results `placed` for what is outside.
    """
    mesh = jax.sharding.get_abstract_mesh()
    # Collectives that the program forbids itself, since 0.12; its public name only enters it.
    forbidding = getattr(_config, "no_collectives", None)
    unchanged = contextlib.nullcontext()
    if forbidding is not None and forbidding.value:
        return _freely(mesh, forbidding(frozenset()))
    return _freely(mesh, unchanged) if mesh.explicit_axes else unchanged


@contextlib.contextmanager
def _freely(mesh: AbstractMesh, allowing: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    with jax.sharding.use_abstract_mesh(_automatic(mesh)), allowing:
        yield


def unplaced(tree: Any) -> Any:
    """The same arrays, of the types that they have where all axes of their mesh are automatic.

    That moves no data. Sums of which each device has a part yet (`unreduced`) are added up, for
    before that the numbers that they stand for are nowhere.
    """
    return jax.tree.map(_unplaced, tree)


def _unplaced(leaf: Any) -> Any:
    kind = _manual_type(leaf)
    if kind is not None and kind.unreduced:
        over = {"max": jax.lax.pmax, "min": jax.lax.pmin}  # since 0.12 there are such, too
        kind_of_sum = getattr(kind, "unreduced_kind", None)
        add_up = over.get(getattr(kind_of_sum, "name", ""), jax.lax.psum)
        leaf = add_up(leaf, tuple(sorted(kind.unreduced)))
    if kind is not None and kind.reduced:
        leaf = jax.lax.pcast(leaf, tuple(sorted(kind.reduced)), to="varying")
    sharding = _explicit_sharding(leaf)
    if sharding is None:
        return leaf
    spec = sharding.spec
    if spec.unreduced or spec.reduced:
        leaf = jax.sharding.reshard(leaf, sharding.update(spec=jax.P(*spec.partitions)))
    return jax.sharding.reshard(leaf, NamedSharding(_automatic(sharding.mesh), jax.P()))


def placed(tree: Any, mesh: AbstractMesh) -> Any:
    """The same arrays, of the types that they have on this mesh: along explicit axes replicated."""
    if not mesh.explicit_axes:
        return tree
    everywhere = NamedSharding(mesh, jax.P())
    return jax.tree.map(
        lambda x: jax.sharding.reshard(x, everywhere) if isinstance(x, jax.Array) else x, tree
    )


def computed_where(like: Any, fun: Callable[..., Any], *values: Any) -> Any:
    """`fun` of values, placed where an array (or a type) of the result's shape says that it is."""
    sharding, kind = _explicit_sharding(like), _manual_type(like)
    in_parts = kind is not None and bool(kind.unreduced or kind.reduced)
    if sharding is None and not in_parts:
        return fun(*values)
    with automatic():
        computed = fun(*unplaced(values))
        if in_parts:
            computed = _in_parts(computed, kind)
    return computed if sharding is None else jax.sharding.reshard(computed, sharding)


def _in_parts(value: Any, kind: Any) -> Any:
    """The whole of a sum over manual axes, or what is the same along them, as of this type."""
    for axis in sorted((*kind.unreduced, *kind.reduced)):
        # The first device has all of it.
        mine = jax.numpy.where(jax.lax.axis_index(axis) == 0, value, jax.numpy.zeros_like(value))
        if axis in kind.unreduced:
            value = jax.lax.pcast(mine, axis, to="unreduced")
        else:
            value = jax.lax.pcast(jax.lax.psum(mine, axis), axis, to="reduced")
    return value


def is_partial(aval: Any) -> bool:
    """Whether values of this type have a part of a sum on each device (`unreduced`)."""
    kind = _manual_type(aval)
    return kind is not None and bool(kind.unreduced or aval.sharding.spec.unreduced)


def mesh_of(tree: Any) -> AbstractMesh:
    """The mesh of the code being traced, or without such the one on which arrays are explicitly."""
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty:
        return mesh
    shardings = map(_explicit_sharding, jax.tree.leaves(tree))
    return next((sharding.mesh for sharding in shardings if sharding is not None), mesh)


def _explicit_sharding(value: Any) -> Any:
    """Where the type of an array (or a type) says that it is, if it says so of any mesh axis."""
    if isinstance(value, jax.Array):
        value = jax.typeof(value)
    sharding = value.sharding if isinstance(value, ShapedArray) else None
    return sharding if sharding is not None and sharding.mesh.explicit_axes else None


@functools.lru_cache(maxsize=64)
def _automatic(mesh: AbstractMesh) -> AbstractMesh:
    return mesh.update_axis_types(dict.fromkeys(mesh.explicit_axes, AxisType.Auto))


def at_once(fun: Callable[..., Any], mesh: Any, manual: Iterable[str]) -> Callable[..., Any]:
    """What runs once a device along some axes of a mesh only, jitted if others are explicit.

    Where it is not, JAX runs one operation after another, and has no `automatic` ones there.
    """
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    others = [kind for name, kind in types.items() if name not in set(manual)]
    return jax.jit(fun) if AxisType.Explicit in others else fun


def manual_axes() -> tuple[str, ...]:
    """The mesh axes over which the code being traced runs once a device (inside shard_map)."""
    return tuple(jax.sharding.get_abstract_mesh().manual_axes)


def spread_axes(axes: Iterable[str], jaxpr: Any, known: Any) -> tuple[str, ...]:
    """Along which of these manual axes values in a program may differ.

    known: holds the names of the axes along which its inputs do. Else only an operation that
    names an axis makes values that differ along it.
    """
    found = set(_names_in(known))
    programs = [jaxpr]
    while programs:
        for eqn in opened(programs.pop())[0].eqns:
            programs += jaxprs_in_params(eqn.params)
            found.update(_names_in(tuple(eqn.params.values())))
    return tuple(axis for axis in axes if axis in found)


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    parts = value.partitions if isinstance(value, jax.P) else value
    if isinstance(parts, (tuple, list, set, frozenset)):
        for part in parts:
            yield from _names_in(part)


def input_axes(values: Iterable[Any]) -> set[str]:
    """The manual axes along which the types of these arrays say that they vary."""
    return set().union(*(_varying_axes(x) for x in values if isinstance(x, jax.Array)))


def tracks_varying(axes: tuple[str, ...]) -> bool:
    """Whether types say along which of these manual axes a value varies (check_vma=True)."""
    return any(_varying_axes(jax.lax.axis_index(axis)) for axis in axes)


def varying(tree: Any, axes: tuple[str, ...]) -> Any:
    """The same values, of the type that says that they vary along these manual axes."""
    return jax.tree.map(lambda leaf: _varying(leaf, axes), tree) if axes else tree


def _varying(leaf: Any, axes: tuple[str, ...]) -> Any:
    missing = tuple(axis for axis in axes if axis not in _varying_axes(leaf))
    return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf


def _varying_axes(value: Any) -> frozenset[str]:
    kind = _manual_type(jax.typeof(value))
    return frozenset() if kind is None else frozenset(kind.varying)


def _manual_type(value: Any) -> Any:
    """What the type of an array (or a type) says of manual axes."""
    if isinstance(value, jax.Array):
        value = jax.typeof(value)
    return value.manual_axis_type if isinstance(value, ShapedArray) else None


# -- where the user wrote it ------------------------------------------------------------------

_JAX = os.path.dirname(jax.__file__) + os.sep
_OWN = os.path.dirname(__file__) + os.sep
_STDLIB = (sysconfig.get_path("stdlib") + os.sep, os.path.dirname(inspect.__file__) + os.sep)
_INSTALLED = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)


@functools.cache
def _frame_kind(file: str) -> str:
    """ "user" for the user's own file, "library" for an installed package, "" for the machinery."""
    installed = any(part in file for part in _INSTALLED)
    if file.startswith((_JAX, _OWN)) or (file.startswith(_STDLIB) and not installed):
        return ""
    return "library" if installed else "user"


def user_line(eqn: JaxprEqn) -> str:
    """`file:line` of the innermost frame of the user's own code that made the equation.

    Where all of it is installed packages (a model from a library), their innermost frame; an
    empty string where there is no traceback at all.
    """
    traceback = eqn.source_info.traceback
    return "" if traceback is None else _user_line(traceback)


@functools.lru_cache(maxsize=4096)
def _user_line(traceback: Any) -> str:
    fallback = ""
    for frame in traceback.frames:
        kind = _frame_kind(frame.file_name)
        if kind == "user":
            return f"{frame.file_name}:{frame.line_num}"
        if kind == "library" and not fallback:
            fallback = f"{frame.file_name}:{frame.line_num}"
    return fallback
