"""A function compiled together with the accumulation of its ranges, once for each kind of call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.sharding import (
    AbstractMesh,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from jax_ranges import compat
from jax_ranges.accumulate import Arrays, Pool
from jax_ranges.births.genealogy import Genealogy
from jax_ranges.births.planned import BirthsPlan
from jax_ranges.call import Call, Returned, static_values
from jax_ranges.interpret import Interpreter, Jits
from jax_ranges.packing import Layout
from jax_ranges.plan import Plan
from jax_ranges.ranges import Ranges
from jax_ranges.stats import Statistic
from jax_ranges.trees import is_array, native

Leaves = Sequence[Any]


class Program(NamedTuple):
    """A function compiled with the accumulation of its ranges, for one kind of call.

    Attributes:
      dynamic: which leaves of the arguments are arrays.
      is_foreign: some of them are not in this machine's byte order.
      layout: of all that is accumulated; `shown`: of what was asked for.
      genealogy: what is asked about births, if anything.
    """

    step: Callable[..., tuple[list[Any], Arrays]]
    dynamic: tuple[int, ...]
    is_foreign: bool
    returned: Returned
    pool: Pool
    layout: Layout
    shown: Layout
    genealogy: Genealogy | None

    def run(self, leaves: Leaves, args: Any, kwargs: Any, number: int) -> Any:
        """The function's output; what was seen is in the pool."""
        values = leaves if len(leaves) == len(self.dynamic) else [leaves[i] for i in self.dynamic]
        if self.is_foreign:
            values = list(map(native, values))
        if self.genealogy is not None:
            with jax.transfer_guard("allow"):  # which is about the user's arrays
                values = [jax.device_put(np.int32(number)), *values]
        return self.returned.output(self.pool.run(self.step, values), args, kwargs)

    def ranges(self, arrays: Arrays) -> Ranges:
        """All that was accumulated."""
        return Ranges.tree_unflatten(self.layout, arrays)

    def view(self, ranges: Ranges) -> Ranges:
        """Of that what was asked for."""
        return ranges if self.shown is self.layout else Ranges(ranges.block(), self.shown)


def compiled(
    call: Call, plan: Plan | BirthsPlan, stats: tuple[Statistic, ...], name: str
) -> Program:
    """The program of a traced call, measured as planned; compiled when it is first run."""
    births = isinstance(plan, BirthsPlan)
    stats = plan.stats if births else stats
    interpreter, returned = Interpreter(stats, Jits()), call.returned
    frame, layout = plan.frame, plan.layout

    def step(arrays: Arrays, *values: Any) -> tuple[list[Any], Arrays]:
        number, *rest = values if births else (None, *values)
        outs, block = interpreter.run(frame, rest)
        block = interpreter.at(block, frame, number)  # calls are the outermost loop
        merged = Ranges.tree_unflatten(layout, arrays).block().merge(block, stats)
        return returned.typed(outs), jax.tree.leaves(Ranges(merged, layout))

    place = _placement(call)
    step.__name__ = step.__qualname__ = name
    jitted = jax.jit(
        step,
        donate_argnums=(0, *(i + 1 + births for i in call.donated)),
        # Pinned, or what comes back would not be of the type that was compiled for.
        out_shardings=None if place is None else (None, place),
        compiler_options=call.options or None,
    )
    nothing = jax.tree.leaves(Ranges(interpreter.identity(frame), layout))
    dynamic = tuple(i for i, is_dynamic in enumerate(call.dynamic) if is_dynamic)

    def empty() -> Arrays:
        # The reset may come where x64 is off.
        with compat.apart(), compat.keeping_64_bits(nothing):
            return jax.device_put(nothing, place)

    pool = Pool(empty, careful=_calls_back(compat.opened(call.jaxpr)[0]))
    if isinstance(plan, BirthsPlan):
        layouts = layout, plan.shown, plan.genealogy
    else:
        layouts = layout, layout, None
    return Program(jitted, dynamic, call.is_foreign, returned, pool, *layouts)


def _calls_back(jaxpr: Any) -> bool:
    """Whether a program may call Python. A pure callback is no effect."""
    return bool(jaxpr.effects) or any(
        "callback" in eqn.primitive.name
        or any(_calls_back(compat.opened(inner)[0]) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


# -- kinds of calls ---------------------------------------------------------------------------


def kind_of_call(info: compat.JitArguments, args: Any, kwargs: Any, leaves: Leaves) -> Hashable:
    """What decides which program a call needs: the types of arrays, the values of all else.

    Beside these count the structure of the arguments and `compat.places_of` the arrays.

    `info` tells how the function takes its arguments. Taken at every call, so microseconds count.
    """
    jitted = info.jitted is not None
    array = compat.ConcreteArray
    types = tuple([x.aval if type(x) is array else _type(x, jitted) for x in leaves])
    static = tuple((type(x), x) for x in static_values(info, args, kwargs)) if jitted else ()
    return compat.trace_context(), types, static


def _type(leaf: Any, jitted: bool) -> Hashable:
    """What a program depends on of a leaf that is not a plain array on a device."""
    kind = type(leaf)
    if kind in (float, complex):
        return kind
    if isinstance(leaf, jax.Array):
        return leaf.aval
    if not is_array(leaf, jitted):
        return kind, leaf
    return (leaf.shape, leaf.dtype) if isinstance(leaf, (np.ndarray, np.generic)) else kind


def _placement(call: Call) -> Any:
    """Where accumulators lie: on all devices on which the program runs; None if it is on one.

    An accumulator that comes back from a call must be placed like the one that went in, or each
    placement would be compiled for.
    """
    # A tracer is one that leaked out of its trace: JAX says so when the program is called with it.
    arrays = [x for x in call.leaves if isinstance(x, jax.Array) and not compat.is_traced(x)]
    places = [x.sharding for x in arrays if x.committed]
    places += _places_in(compat.opened(call.jaxpr)[0])
    widest = max(places, key=lambda place: len(place.device_set), default=None)
    if widest is None:
        return None
    if isinstance(widest, SingleDeviceSharding):  # in its own memory, also if arrays are elsewhere
        return SingleDeviceSharding(*widest.device_set)
    if isinstance(widest, NamedSharding):
        return NamedSharding(widest.mesh, PartitionSpec())
    devices = sorted(widest.device_set, key=lambda device: device.id)
    return NamedSharding(Mesh(devices, ("devices",)), PartitionSpec())


def _places_in(jaxpr: Any) -> Iterator[Any]:
    """The shardings that a program itself asks for."""
    for eqn in jaxpr.eqns:
        named = [eqn.params.get(name) for name in ("in_shardings", "out_shardings")]
        yield from (s for group in named for s in group or () if isinstance(s, Sharding))
        for value in (eqn.params.get("sharding"), eqn.params.get("mesh")):
            if isinstance(value, Mesh):
                yield NamedSharding(value, PartitionSpec())
            elif isinstance(value, Sharding) and not _is_abstract(value):
                yield value
        for inner in jaxprs_in_params(eqn.params):
            yield from _places_in(inner)


def _is_abstract(sharding: Sharding) -> bool:
    return isinstance(getattr(sharding, "mesh", None), AbstractMesh)
