"""Recipes to compare, and what they are made from. Shared by the examples that quantize.

A recipe says how the operands of matrix products and convolutions are rounded. Two kinds:

- weights: known beforehand, so their scales are made of themselves, one an output channel;
- activations: known only when the model runs, so their scales come from calibration.

`RECIPES` has a function for each row of the examples' tables, from what calibration saw to a
`jr.Recipe`. Calibrate once, and every row follows from the same ranges and histograms:

    ranges = calibrate(encode, [(params, ids, mask), ...])
    low = lowered(encode, RECIPES["int8"](ranges), on_codes=True)
    low(params, ids, mask)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import jax_ranges as jr

PRODUCTS = ("dot_general", "conv_general_dilated")
WEIGHTS = "input/params/"  # in these models all weights are in the argument `params`

MakeRecipe = Callable[[jr.Ranges], jr.Recipe]
Spec = jr.Dynamic | jr.QParams | None


def _calibrated(activations: str | None, weights: str, **how: Any) -> MakeRecipe:
    return lambda ranges: jr.Recipe.from_ranges(ranges, activations, weights, **how)


def _cast(name: str) -> MakeRecipe:
    """Both operands as they are to a format wide enough to need no scale."""
    return lambda ranges: jr.Recipe(dict.fromkeys(PRODUCTS, (name, name)))


RECIPES: dict[str, MakeRecipe] = {
    "bfloat16": _cast("bfloat16"),
    "fp8 e4m3": _calibrated("float8_e4m3fn", "float8_e4m3fn"),
    "int8": _calibrated("int8", "int8"),
    "int8, percentile": _calibrated("int8", "int8", method="percentile"),
    "int8, mse": _calibrated("int8", "int8", method="mse"),
    "int8, symmetric": _calibrated("int8", "int8", symmetric=True),
    "int8 weights": _calibrated(None, "int8"),
    "int4 weights": _calibrated(None, "int4"),
    "mxfp4 weights": _calibrated(None, "mxfp4"),
    "int4 weights, int8": _calibrated("int8", "int4"),
    "fp8 e4m3, on codes": _calibrated("float8_e4m3fn", "float8_e4m3fn"),
    "int8, on codes": _calibrated("int8", "int8"),
}
ON_CODES = ("fp8 e4m3, on codes", "int8, on codes")
"""Run in low precision (`jr.quantize`); the others are simulated (`jr.simulate`)."""

RECOMMENDED = "int8"
"""From the least to the greatest value seen ("minmax"), with a zero point where that takes one."""


def sites_of(fun: Callable[..., Any], *args: Any) -> tuple[jr.Site, ...]:
    """All sites of a function, its arguments included."""
    return jr.plan(fun, inputs=True)(*args).sites


def calibrate(fun: Callable[..., Any], batches: Sequence[tuple[Any, ...]]) -> jr.Ranges:
    """Ranges and histograms of the activations that enter products, over all batches.

    Of all sites it would take several times as long, and a recipe needs no others.

    Args:
      fun: a function of `params` and a batch.
      batches: its arguments, for each batch.
    """
    products = [site for site in sites_of(fun, *batches[0]) if site.primitive in PRODUCTS]
    feeding = {name for site in products for name in site.operands}
    wanted = {name for name in feeding if not name.startswith(WEIGHTS)}
    wanted |= {site.name for site in products}
    stats = (jr.MinMax(), jr.Histogram())
    net = jr.Net(fun, stats=stats, select=lambda site: site.name in wanted, inputs=True)
    return net.calibrate(batches)


def lowered(
    fun: Callable[..., Any], recipe: jr.Recipe, on_codes: bool = False
) -> Callable[..., Any]:
    """The function in the recipe's formats.

    Simulated, values are rounded to them, and the arithmetic stays that of float32; on codes,
    products are of int8 summed up in int32, or of float8 summed up in float32. Weights are
    quantized in each call, which is slow; `jr.quantize(...).prepare` would do that once.
    """
    return jax.jit((jr.quantize if on_codes else jr.simulate)(fun, recipe))


def weight_bits(recipe: jr.Recipe, sites: Sequence[jr.Site]) -> float:
    """How many bits each weight that enters a product takes, with its share of the scales."""
    shapes = {site.name: site.shape for site in sites}
    rules = recipe.rules_for(sites)
    bits = size = 0
    for site in sites:
        if site.primitive in PRODUCTS:
            for weight, spec in _weights(site, rules.get(site.name, jr.QRule())):
                bits += _stored_bits(spec, shapes[weight])
                size += math.prod(shapes[weight])
    return bits / size


def _weights(site: jr.Site, rule: jr.QRule) -> Iterator[tuple[str, Spec]]:
    """The weights among the operands of a product, and how each is rounded."""
    specs = rule.operands or (None,) * len(site.by_operand)
    for names, spec in zip(site.by_operand, specs, strict=True):
        yield from ((name, spec) for name in names if name.startswith(WEIGHTS))


def _stored_bits(spec: Spec, shape: tuple[int, ...]) -> int:
    """Of a kernel, the last of whose axes is that of output channels."""
    size = math.prod(shape)
    if spec is None:
        return 32 * size
    if spec.format.block is not None:
        return spec.format.bits * size + 8 * size // spec.format.block
    if isinstance(spec, jr.QParams):  # a cast
        return spec.format.bits * size
    return spec.format.bits * size + 32 * (shape[-1] if spec.channels else 1)
