"""flax.linen's fp8 operations: their amax histories and scales.

`Fp8DirectDotGeneralOp`, `Fp8DotGeneralOp` and `Fp8Einsum` (github.com/google/flax,
flax/linen/fp8_ops.py) scale by the largest magnitude of the last calls, which they keep in the
collection `_overwrite_with_gradient`. Filled from ranges, the first call has the right scales, and
a model that is only run has them for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jax_ranges.formats import FormatLike
from jax_ranges.handover.modules import Model, Product
from jax_ranges.handover.sites import Names, Source, Unfit
from jax_ranges.handover.spans import amax
from jax_ranges.handover.trees import Keys, leaves_of
from jax_ranges.qparams import qparams
from jax_ranges.ranges import Ranges, nearest
from jax_ranges.site import Select

_VARIABLE = re.compile(r"(input|kernel|output_grad)_(scale|amax_history)")


def flax_fp8(
    ranges: Ranges,
    variables: Any,
    names: Names = None,
    *,
    format: FormatLike = "float8_e4m3fn",  # noqa: A002
    grad_format: FormatLike = "float8_e5m2",
    root: str | None = None,
    weight_inputs: Select = None,
    unfit: Unfit = "error",
    **how: Any,
) -> Any:
    """The collection `_overwrite_with_gradient`, with histories and scales from ranges.

        model = Model(dot_general_cls=nn.Fp8DirectDotGeneralOp)
        variables = model.init(key, x)
        state = variables["_overwrite_with_gradient"]
        variables["_overwrite_with_gradient"] = handover.flax_fp8(ranges, state)

    Args:
      ranges: of the same model without fp8, with `inputs=True`, of operands too; of its gradient
        for the scales of gradients, which stay what they are otherwise. Leading axes are merged.
      variables: the collection, abstract or not.
      names: the paths of modules (or of the operations in them), by the site of a product; by
        default those of flax's modules, see `jax_ranges.handover`.
      format, grad_format: of operands, and of gradients; float8_e4m3fnuz and float8_e5m2fnuz for
        NANOOFp8DotGeneralOp.
      root: the scope of the model, if there are several, or scopes around it.
      weight_inputs: what selects the inputs that are weights (it tells modules' paths only).
      unfit: what to do about operands that no scale can be made for: their variables stay what
        they are.
      how: further arguments of `jr.qparams`: `method="mse"`, ...

    Returns:
      The same tree: of each history the first element the largest magnitude and the others zero,
      of each scale that magnitude over the format's largest number.

    Raises:
      UnfitSiteError, UnknownSiteError: see `jax_ranges.handover`.
      ValueError: an operation is not in the ranges.
    """
    leaves, treedef = leaves_of(variables)
    model = Model.of(ranges, names, root, weight_inputs, unfit)
    ops = {keys[:-1] for keys, _ in leaves if keys and _VARIABLE.fullmatch(str(keys[-1]))}
    if not ops:
        raise ValueError(
            "variables has no input_scale: give the collection '_overwrite_with_gradient' of the "
            "model with fp8 operations"
        )
    products = {op: _product(op, ops, model) for op in ops}
    fed = {
        (*op, what): feeds
        for op, product in products.items()
        for what, feeds in _feeds(product, model).items()
    }
    formats = {"input": format, "kernel": format, "output_grad": grad_format}
    found = {
        (*op, what): _values(source, formats[what], how)
        for (*op, what), source in model.sources(fed, unfit, how.get("method", "minmax")).items()
    }
    return treedef.unflatten([_filled(keys, leaf, found) for keys, leaf in leaves])


def _product(op: Keys, ops: Iterable[Keys], model: Model) -> Product:
    """The product that an operation computes: of its own path, or one of its module's."""
    own = [product for product in model.forward if product.module == _path(op)]
    if len(own) == 1:
        return own[0]
    siblings = sorted(other for other in ops if other[:-1] == op[:-1])
    theirs = [product for product in model.forward if product.module == _path(op[:-1])]
    if len(theirs) == len(siblings) == 1:
        return theirs[0]
    kind = str(op[-1]).rpartition("_")[0]
    numbered = [(*op[:-1], f"{kind}_{i}") for i in range(len(theirs))]  # as linen calls them
    if theirs and siblings == sorted(numbered):
        return theirs[numbered.index(op)]
    modules = sorted({product.module for product in model.forward})
    near = ", ".join(map(repr, nearest(_path(op[:-1]), modules) or modules))
    raise ValueError(
        f"which product is that of {_path(op)!r} is not clear: there are {len(siblings)} fp8 "
        f"operations in that module, and {len(theirs)} products in the ranges. Take ranges of the "
        f"model without fp8 (modules with products are {near}), or say with names= of which site "
        f"each operation is"
    )


def _path(keys: Keys) -> str:
    return "/".join(map(str, keys))


def _feeds(product: Product, model: Model) -> dict[str, tuple[str, ...]]:
    lhs, rhs = product.site.by_operand
    gradients = model.gradients(product.module)
    return {"input": lhs, "kernel": rhs} | ({"output_grad": gradients} if gradients else {})


def _values(source: Source, fmt: FormatLike, how: dict[str, Any]) -> tuple[float, float]:
    """The scale and the largest magnitude."""
    return float(qparams(source, fmt, **how).scale), amax(source, fmt, **how)


def _filled(keys: Keys, leaf: Any, found: Mapping[Keys, tuple[float, float]]) -> Any:
    variable = _VARIABLE.fullmatch(str(keys[-1])) if keys else None
    values = found.get((*keys[:-1], variable[1])) if variable else None
    if variable is None or (values is None and not isinstance(leaf, jax.ShapeDtypeStruct)):
        return leaf
    scale, most = values or (1.0, 0.0)  # flax's own first values
    if variable[2] == "scale":
        return jnp.full(leaf.shape, scale, leaf.dtype)
    return jnp.zeros(leaf.shape, leaf.dtype).at[..., 0].set(most)
