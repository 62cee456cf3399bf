"""In which order a value's elements lie in memory, as far as transposes tell.

XLA does not move anything for a transpose if it can read the operand in another order instead, and
so do the elementwise operations after it. The gradient of every dense layer's kernel is such a
value: the product that makes it has its axes the other way round. To reduce it row by row is to
read memory in strides, at a tenth of the speed; a statistic to which positions mean nothing takes
its elements in the order in which they lie.

An order lists a value's axes from major to minor; None stands for an array that lies as it looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jax_ranges.computations import known_as

Order = tuple[int, ...] | None


def order_of(eqn: Any, known: Sequence[Order]) -> Order:
    """That of the results of an equation, of what is known of its operands'.

    An operand may be a slice of what is known, in a scan; then its order is not.
    """
    kind = known_as(eqn)
    rule = _RULES.get(kind)
    if rule is None and not any(known):
        return None
    ranks = [len(x.aval.shape) for x in eqn.invars]
    orders = [x if x and len(x) == rank else None for x, rank in zip(known, ranks, strict=True)]
    if rule is None:
        return _common(orders, ranks) if kind in _ELEMENTWISE else None
    found = rule(eqn.params, orders[0] or tuple(range(ranks[0])))
    return None if found == tuple(range(len(found))) else found


def _common(orders: Sequence[Order], ranks: Sequence[int]) -> Order:
    """The order of all operands that are not scalars, if they have one in common."""
    arrays = {order for order, rank in zip(orders, ranks, strict=True) if rank}
    return arrays.pop() if len(arrays) == 1 else None


def _transposed(params: dict[str, Any], order: tuple[int, ...]) -> tuple[int, ...]:
    permutation = tuple(params["permutation"])
    return tuple(permutation.index(axis) for axis in order)


def _kept(params: dict[str, Any], order: tuple[int, ...]) -> tuple[int, ...]:
    del params
    return order


def _squeezed(params: dict[str, Any], order: tuple[int, ...]) -> tuple[int, ...]:
    return _without(params["dimensions"], order)


def _unstacked(params: dict[str, Any], order: tuple[int, ...]) -> tuple[int, ...]:
    return _without((params["axis"],), order)


def _without(axes: Sequence[int], order: tuple[int, ...]) -> tuple[int, ...]:
    left = sorted(set(order).difference(axes))
    return tuple(left.index(axis) for axis in order if axis in left)


_RULES: dict[str, Callable[[dict[str, Any], tuple[int, ...]], tuple[int, ...]]] = {
    **dict.fromkeys(("copy", "dynamic_slice", "rev", "slice", "split"), _kept),
    "squeeze": _squeezed,
    "transpose": _transposed,
    "unstack": _unstacked,
}

# fmt: off
_ELEMENTWISE = frozenset((
    "abs", "cbrt", "ceil", "convert_element_type", "cos", "cosh", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "integer_pow", "is_finite", "log", "log1p", "logistic",
    "neg", "not", "one_minus_square", "reduce_precision", "round", "rsqrt", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "tan", "tanh",
    "add", "add_any", "and", "atan2", "clamp", "div", "eq", "ge", "gt", "le", "lt", "max",
    "min", "mul", "ne", "nextafter", "or", "pow", "rem", "select_n", "sub", "xor",
))
# fmt: on
