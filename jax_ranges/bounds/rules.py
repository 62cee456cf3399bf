"""The table: for each primitive the rule that bounds its results.

A primitive that is not in it may give anything that its type holds. The ranges of functions (their
`image`) are held by XLA's own approximations, which was tried on every float16 and bfloat16 and on
many millions of float32; see `tests/test_bounds.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jax_ranges.bounds import elementwise as e
from jax_ranges.bounds import movement as m
from jax_ranges.bounds import reductions as r
from jax_ranges.bounds.interval import Interval
from jax_ranges.bounds.value import Operation
from jax_ranges.derive import MOVEMENT, PAIRWISE

Rule = Callable[[Operation], Interval | Sequence[Interval]]

ONE = (-1.0, 1.0)

RULES: dict[str, Rule] = {
    # arithmetic
    "add": e.add,
    "add_any": e.add,
    "sub": e.sub,
    "mul": e.mul,
    "div": e.div,
    "rem": e.rem,
    "neg": e.neg,
    "abs": e.absolute,
    "square": e.square,
    "one_minus_square": e.one_minus_square,
    "integer_pow": e.integer_pow,
    "pow": e.power,
    "max": e.maximum,
    "min": e.minimum,
    "clamp": e.clamp,
    "sign": e.sign,
    "floor": e.floor,
    "ceil": e.ceil,
    "round": e.rounded,
    "nextafter": e.nextafter,
    # functions
    "exp": e.exponential,
    "exp2": e.increasing(np.exp2, image=(0.0, math.inf), grows=1),
    "expm1": e.increasing(np.expm1, image=(-1.0, math.inf), grows=1),
    "log": e.increasing(np.log, least=0.0),
    "log1p": e.increasing(np.log1p, least=-1.0),
    "sqrt": e.increasing(np.sqrt, least=0.0, image=(0.0, math.inf)),
    "cbrt": e.cbrt,
    "rsqrt": e.rsqrt,
    "tanh": e.increasing(np.tanh, image=ONE),
    "logistic": e.increasing(e.logistic, image=(0.0, 1.0), grows=1),
    "erf": e.increasing(math.erf, image=ONE, over=4),
    "erfc": e.decreasing(e.increasing(lambda x: math.erfc(-x), image=(0.0, 2.0), grows=2)),
    "erf_inv": e.increasing(e.inverse_erf, -1.0, 1.0, ulps=64),
    "sin": e.wave,
    "cos": e.wave,
    "asin": e.angle(-math.pi / 2, math.pi / 2),
    "acos": e.angle(0.0, math.pi),
    "atan": e.increasing(np.arctan),
    "sinh": e.increasing(np.sinh, grows=1),
    "cosh": e.cosh,
    "asinh": e.increasing(np.arcsinh),
    "atan2": e.atan2,
    # bits
    "not": e.bit_not,
    "and": e.bit_and,
    "or": e.bit_or,
    "xor": e.bit_xor,
    "shift_right_logical": e.shift_right,
    "shift_right_arithmetic": e.shift_right_arithmetic,
    "population_count": e.counted_bits,
    "clz": e.counted_bits,
    # comparisons
    "lt": e.less,
    "le": e.less_equal,
    "gt": e.greater,
    "ge": e.greater_equal,
    "eq": e.equal,
    "ne": e.unequal,
    "is_finite": e.is_finite,
    # conversions
    "convert_element_type": e.convert,
    "bitcast_convert_type": e.bitcast,
    # reductions and contractions
    "reduce_sum": r.reduce_sum,
    "reduce_max": r.reduce_max,
    "reduce_min": r.reduce_min,
    "reduce_prod": r.reduce_prod,
    "reduce_and": r.reduce_logical,
    "reduce_or": r.reduce_logical,
    "argmax": r.arg,
    "argmin": r.arg,
    "cumsum": r.cumulative_sum,
    "cumprod": r.cumulative_product,
    "cummax": r.cumulative_extremum,
    "cummin": r.cumulative_extremum,
    "reduce_window_sum": r.window_sum,
    "reduce_window_max": r.window_max,
    "reduce_window_min": r.window_min,
    "dot_general": r.dot_general,
    "conv_general_dilated": r.convolution,
    # movement
    **dict.fromkeys(MOVEMENT, m.moved),
    **dict.fromkeys(PAIRWISE, m.pairwise),
    "concatenate": m.joined,
    "pad": m.updated,
    "slice": m.moved,
    "dynamic_slice": m.moved,
    "dynamic_update_slice": m.updated,
    "split": m.split,
    "gather": m.gather,
    "scatter": m.scattered,
    "scatter-max": m.scattered,
    "scatter-min": m.scattered,
    "scatter-add": r.scatter_add,
    "select_n": m.select,
    "top_k": m.top_k,
    "iota": m.iota,
    "platform_index": m.platform_index,
    # across devices
    "psum": r.psum,
    "psum_invariant": r.psum,
    "pmax": m.pairwise,
    "pmin": m.pairwise,
    "all_gather": m.moved,
    "all_gather_invariant": m.moved,
    "all_to_all": m.moved,
    "ppermute": m.permuted,
    "axis_index": r.axis_index,
}
