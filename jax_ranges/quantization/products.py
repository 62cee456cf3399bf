"""Matrix products and convolutions of codes.

With a = s_a (p - z) and b = s_b (q - w), p and q codes, z and w zero points, a sum of k products is

    sum(a b) = s_a s_b (sum(p q) - z sum(q) - w (sum(p) - k z))

The sums are of integers, exact in 32 bits; then come the scales, which differ at most along the
axes that are not summed over. (B. Jacob et al., arXiv:1712.05877, section 2.3.) Floats have no
zero points, and their products are summed up in float32.

A convolution's padding and holes are zeros, which as codes are the zero point; it is put there
before, and every sum has k products then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys
from jax_ranges.computations import known_as
from jax_ranges.formats import Format
from jax_ranges.quantization.array import QuantizedArray, common_float, storage
from jax_ranges.stats import size_of


@dataclass(frozen=True)
class Codes:
    """One side of a product of integers: its codes as int8, and their zero point if it has one."""

    codes: jax.Array
    zero_point: Any
    sums: Any

    @classmethod
    def of(cls, array: QuantizedArray, summed: Sequence[int]) -> Codes:
        codes, zero_point, sums = array.codes, array.zero_point, array.sums
        count = math.prod(codes.shape[axis] for axis in summed)
        if sums is not None and sums.shape != _kept(codes.shape, summed):
            sums = None  # those of another product
        if codes.dtype != jnp.uint8:
            return cls(codes.astype(jnp.int8), zero_point, sums)
        # Everything 128 less; as the upper bit is the sign, that is inverting it.
        codes = lax.bitcast_convert_type(codes ^ np.uint8(128), jnp.int8)
        zero_point = np.int32(0) if zero_point is None else zero_point
        return cls(codes, zero_point - 128, None if sums is None else sums - 128 * count)

    def summed(self, axes: Sequence[int]) -> Any:
        """The sums of the codes over these axes, which are kept."""
        return sums_of(self.codes, axes) if self.sums is None else self.sums


def sums_of(codes: Any, axes: Sequence[int]) -> jax.Array:
    """int32, the axes kept."""
    return jnp.sum(codes, tuple(axes), jnp.int32, keepdims=True)


def _kept(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


class Product(Protocol):
    """A kind of product, laid on the shapes of two operands.

    Attributes:
      summed: for each side the axes that it sums over.
      count: how many products are in each sum; infinity if that is not known.
    """

    summed: tuple[tuple[int, ...], tuple[int, ...]]
    count: float

    def bind(self, lhs: Any, rhs: Any, dtype: Any) -> jax.Array:
        """The product, summed up in this dtype."""
        ...

    def padded(self, codes: Codes) -> tuple[Product, Codes]:
        """The same of a left side into which the zero points are put that are between."""
        ...

    def lies(self, part: Any, side: int) -> Any:
        """What differs along the other axes of a side, in a shape that broadcasts to results."""
        ...

    def left_sums(self, lhs: Codes, rhs: Codes) -> Any:
        """The sums of the left codes in each sum, in a shape that broadcasts to results."""
        ...


def multiplied(product: Product, lhs: QuantizedArray, rhs: QuantizedArray, dtype: Any) -> jax.Array:
    """The product of two arrays' codes, in the dtype of the result."""
    carrier = keys.carrier_dtype(np.dtype(dtype))
    of = _integers if lhs.format.uniform else _floats
    found = of(product, lhs, rhs).astype(carrier)
    for side, array in enumerate((lhs, rhs)):
        found *= product.lies(array.scale.astype(carrier), side)
    return found.astype(dtype)


def _floats(product: Product, lhs: QuantizedArray, rhs: QuantizedArray) -> jax.Array:
    dtypes = float_operands(lhs.format, rhs.format, alike=isinstance(product, Convolution))
    return product.bind(lhs.codes.astype(dtypes[0]), rhs.codes.astype(dtypes[1]), jnp.float32)


def _integers(product: Product, lhs: QuantizedArray, rhs: QuantizedArray) -> jax.Array:
    left, right = (Codes.of(x, product.summed[i]) for i, x in enumerate((lhs, rhs)))
    if left.zero_point is not None:
        product, left = product.padded(left)
    total = product.bind(left.codes, right.codes, jnp.int32)
    if left.zero_point is not None:
        sums = product.lies(right.summed(product.summed[1]), 1)
        total -= product.lies(left.zero_point, 0) * sums
    if right.zero_point is not None:
        sums = product.left_sums(left, right)
        if left.zero_point is not None:
            sums -= product.count * product.lies(left.zero_point, 0)
        total -= product.lies(right.zero_point, 1) * sums
    return total


def float_operands(a: Format, b: Format, alike: bool) -> tuple[np.dtype, np.dtype]:
    """The dtypes in which the codes of two float formats are multiplied.

    Their own where XLA takes these. It has no products of fewer than 8 bits; of two different
    types only those of float8 in a `dot_general`, not with fnuz ones, and no convolutions.
    """
    own = [_multiplied(fmt) for fmt in (a, b)]
    both_float8 = all(dtype.itemsize == 1 and "fnuz" not in dtype.name for dtype in own)
    if own[0] == own[1] or (both_float8 and not alike):
        return own[0], own[1]
    common = common_float(a, b)
    assert common is not None
    return common, common


def _multiplied(fmt: Format) -> np.dtype:
    found = storage(fmt) if fmt.bits >= 8 else common_float(fmt, fmt)
    assert found is not None
    return found


# -- matrix products --------------------------------------------------------------------------


class Dot:
    """`dot_general` with these parameters. Its results: batch axes, left axes, right axes."""

    def __init__(self, params: Mapping[str, Any], lhs: Sequence[int], rhs: Sequence[int]):
        self.params = dict(params)
        self.summed, self.batch = params["dimension_numbers"]
        self.ndims = len(lhs), len(rhs)
        self.count = size_of([lhs[axis] for axis in self.summed[0]])

    def bind(self, lhs: Any, rhs: Any, dtype: Any) -> jax.Array:
        given = {
            **self.params,
            "preferred_element_type": np.dtype(dtype),
            "precision": None,
            "out_sharding": None,  # what is made of the product is put there
        }
        return lax.dot_general_p.bind(lhs, rhs, **given)

    def padded(self, codes: Codes) -> tuple[Dot, Codes]:
        return self, codes

    def lies(self, part: Any, side: int) -> Any:
        if np.size(part) == 1:
            return part.reshape(())
        batch, summed = self.batch[side], self.summed[side]
        own = [axis for axis in range(self.ndims[side]) if axis not in (*batch, *summed)]
        others = (1,) * (self.ndims[1 - side] - len(batch) - len(summed))
        moved = part.transpose(*batch, *own, *summed)
        shape = moved.shape[: len(batch)], moved.shape[len(batch) : len(batch) + len(own)]
        return moved.reshape(shape[0] + (shape[1] + others if side == 0 else others + shape[1]))

    def left_sums(self, lhs: Codes, rhs: Codes) -> Any:
        del rhs
        return self.lies(lhs.summed(self.summed[0]), 0)


# -- convolutions -----------------------------------------------------------------------------


class Convolution:
    """`conv_general_dilated` with these parameters."""

    def __init__(self, params: Mapping[str, Any], lhs: Sequence[int], rhs: Sequence[int]):
        self.params, self.shapes = dict(params), (tuple(lhs), tuple(rhs))
        numbers = params["dimension_numbers"]
        self.lhs_spec, self.rhs_spec, self.out_spec = numbers
        self.summed = tuple(self.lhs_spec[1:]), tuple(self.rhs_spec[1:])
        self.features = rhs[self.rhs_spec[0]]
        self.count = size_of([rhs[axis] for axis in self.summed[1]])

    def bind(self, lhs: Any, rhs: Any, dtype: Any) -> jax.Array:
        given = {**self.params, "preferred_element_type": np.dtype(dtype), "precision": None}
        return lax.conv_general_dilated_p.bind(lhs, rhs, **given)

    def padded(self, codes: Codes) -> tuple[Convolution, Codes]:
        spatial = self.lhs_spec[2:]
        config = [(0, 0, 0)] * len(self.lhs_spec)
        for axis, (low, high), holes in zip(
            spatial, self.params["padding"], self.params["lhs_dilation"], strict=True
        ):
            config[axis] = low, high, holes - 1
        x = _padded(codes.codes, codes.zero_point, config)
        valid = {"padding": ((0, 0),) * len(spatial), "lhs_dilation": (1,) * len(spatial)}
        product = Convolution({**self.params, **valid}, x.shape, self.shapes[1])
        return product, Codes(x, codes.zero_point, None)

    def lies(self, part: Any, side: int) -> Any:
        if np.size(part) == 1:
            return part.reshape(())
        shape = [1] * len(self.out_spec)
        batch, feature = self.out_spec[:2]
        if side == 1:
            shape[feature] = self.features
            return part.reshape(shape)
        # A group of the batch makes a group of the features.
        groups = self.params["batch_group_count"]
        rows = part.reshape(groups, -1)
        shape[batch], shape[feature] = rows.shape[1], 1 if groups == 1 else self.features
        columns = rows if groups == 1 else jnp.repeat(rows, self.features // groups, 0)
        return (columns.T if batch < feature else columns).reshape(shape)

    def left_sums(self, lhs: Codes, rhs: Codes) -> Any:
        """Those of each window. As costly as the convolution, and seldom: weights have no zero
        point unless they are asked to.
        """
        return self.bind(lhs.codes, jnp.ones_like(rhs.codes), jnp.int32)


def _padded(codes: jax.Array, zero_point: Any, config: Sequence[tuple[int, int, int]]) -> jax.Array:
    if all(entry == (0, 0, 0) for entry in config):
        return codes
    if np.size(zero_point) == 1:
        return lax.pad(codes, zero_point.reshape(()).astype(jnp.int8), config)
    # `lax.pad` takes one number only.
    put = lax.pad(codes, np.int8(0), config)
    inside = lax.pad(jnp.ones(codes.shape, bool), np.False_, config)
    return jnp.where(inside, put, zero_point.astype(jnp.int8))


PRODUCTS: dict[str, Callable[[Mapping[str, Any], Sequence[int], Sequence[int]], Product]] = {
    "dot_general": Dot,
    "conv_general_dilated": Convolution,
}


def product_of(eqn: Any) -> Product | None:
    """The product that an equation is; None if it is something else."""
    kind = PRODUCTS.get(known_as(eqn))
    if kind is None:
        return None
    lhs, rhs = eqn.invars
    return kind(eqn.params, lhs.aval.shape, rhs.aval.shape)
