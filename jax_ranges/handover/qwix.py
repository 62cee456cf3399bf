"""qwix (github.com/google/qwix): rules with fixed ranges, and statistics for static scales."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges.files import File
from jax_ranges.formats import FormatLike
from jax_ranges.handover.modules import Model, Product
from jax_ranges.handover.sites import Names, Source, Unfit, written
from jax_ranges.handover.spans import amax, covered, text
from jax_ranges.handover.trees import leaves_of
from jax_ranges.ranges import Ranges, nearest
from jax_ranges.site import Select


def qwix_rules(
    ranges: Ranges,
    names: Names = None,
    *,
    weight_qtype: FormatLike | None = "int8",
    act_qtype: FormatLike = "int8",
    symmetric: bool = True,
    root: str | None = None,
    weight_inputs: Select = None,
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> list[dict[str, Any]]:
    """The arguments of a `qwix.QuantizationRule` for each module, with its activations' range.

        rules = [qwix.QuantizationRule(**rule) for rule in handover.qwix_rules(ranges)]
        model = qwix.quantize_model(model, qwix.PtqProvider(rules))

    A rule is for all operations of a module, so the range is that of all their operands together
    that are not weights. Weights, of which qwix knows all, have the scales that it chooses.

    Args:
      ranges: of the model as it is, with `inputs=True`, of operands too; leading axes are merged.
      names: the paths of modules, by the site of a product; by default those of flax's modules,
        see `jax_ranges.handover`.
      weight_qtype, act_qtype: of the rules, names or dtypes; the latter one that
        `jax_ranges.formats` knows.
      symmetric: ranges are, and so qwix has no zero points; it needs that of floats, and of an
        einsum of two activations.
      root: the scope of the model, if there are several, or scopes around it.
      weight_inputs: what selects the inputs that are weights, see `jax_ranges.handover`.
      unfit: what to do about modules that no scale can be made for.
      file: where to write the rules as JSON, atomically.
      how: further arguments of `jr.qparams`: `method="mse"`, ...

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def model(params, x):
      ...     with jax.named_scope("Model/Dense_0"):
      ...         return x @ params["Dense_0"]["kernel"]
      >>> params = {"Dense_0": {"kernel": jnp.ones((2, 2))}}
      >>> _, ranges = jr.ranges(model, inputs=True)(params, jnp.array([1.5, -0.5]))
      >>> qwix_rules(ranges)
      [{'module_path': 'Dense_0', 'weight_qtype': 'int8', 'act_qtype': 'int8', \
'act_calibration_method': 'fixed,-1.5,1.5'}]
    """
    model = Model.of(ranges, names, root, weight_inputs, unfit)
    fed: dict[str, list[str]] = {}
    for product in model.forward:
        fed.setdefault(product.module, []).extend(model.activations(product))
    found = model.sources(fed, unfit, how.get("method", "minmax"))
    rules = [
        {
            "module_path": re.escape(module),
            "weight_qtype": _named(weight_qtype),
            "act_qtype": _named(act_qtype),
            "act_calibration_method": _fixed(source, act_qtype, symmetric, how),
        }
        for module, source in found.items()
    ]
    written(json.dumps(rules, indent=1) + "\n", file)
    return rules


def _named(qtype: Any) -> str | None:
    return qtype if qtype is None or isinstance(qtype, str) else np.dtype(qtype).name


def _fixed(source: Source, qtype: FormatLike, symmetric: bool, how: dict[str, Any]) -> str:
    if symmetric:
        most = amax(source, qtype, **how)
        return f"fixed,{text(-most)},{text(most)}"
    lo, hi = covered(source, qtype, **how)
    return f"fixed,{text(lo)},{text(hi)}"


# -- statistics -------------------------------------------------------------------------------


def qwix_quant_stats(
    ranges: Ranges,
    params: Any,
    names: Names = None,
    *,
    format: FormatLike = "int8",  # noqa: A002
    root: str | None = None,
    weight_inputs: Select = None,
    unfit: Unfit = "error",
    **how: Any,
) -> dict[Any, Any]:
    """The `quant_stats` from which `qwix.quantize_params` makes static scales of activations.

        model = qwix.quantize_model(model, qwix.PtqProvider(rules))  # act_static_scale=True
        template = jax.eval_shape(model.init, key, x)["params"]
        stats = handover.qwix_quant_stats(ranges, template)
        params = qwix.quantize_params(params, template, stats)

    As after one step of calibration (count = 1) that saw all. The operands of an einsum of two
    activations have the range of both, since einsum may swap them.

    Args:
      ranges, names, root, weight_inputs, unfit: as those of `qwix_rules`.
      params: those of the quantized model, abstract or not: they tell which operand of which
        operation has a scale, its shape, and whether it has a zero point.
      format: act_qtype.
      how: further arguments of `jr.qparams`: `method="mse"`, ...

    Returns:
      Nested dicts of float32 arrays, and count.

    Raises:
      UnfitSiteError, UnknownSiteError: see `jax_ranges.handover`.
      ValueError: `params` has no static scale, or one for an operation that is not in the ranges.
    """
    slots = list(_slots(params))
    if not slots:
        raise ValueError(
            "params has no static scale (such as dot_general0_lhs_scale): give the params that "
            "the model quantized by rules with act_static_scale=True has"
        )
    model = Model.of(ranges, names, root, weight_inputs, unfit)
    _require_same_counts(slots, model)
    products = {(p.module, p.op, p.index): p for p in model.forward}
    fed = {
        slot: _feeding(slot, products[slot.module, slot.op, slot.index], model) for slot in slots
    }
    stats: dict[Any, Any] = {}
    for slot, source in model.sources(fed, unfit, how.get("method", "minmax")).items():
        node = stats
        for key in slot.keys:
            node = node.setdefault(key, {})
        node[slot.name] = _stat(slot, source, format, how)
    return stats


@dataclass(frozen=True)
class _Slot:
    """A static scale: where it is, and of which operand of which operation.

    Attributes:
      keys: those that lead to it in the tree.
      op, index, side: the operation, how many of the same are before it, "lhs" or "rhs".
      shape: of the scale.
      zero_point: whether there is one.
    """

    keys: tuple[Any, ...]
    op: str
    index: int
    side: str
    shape: tuple[int, ...]
    zero_point: bool

    @property
    def module(self) -> str:
        return "/".join(map(str, self.keys))

    @property
    def name(self) -> str:
        return f"{self.op}{self.index}_{self.side}"

    def __str__(self) -> str:
        return "/".join(map(str, (*self.keys, self.name)))


_SCALE = re.compile(r"(dot_general|einsum|conv_general_dilated)(\d+)_(lhs|rhs)_scale")


def _slots(params: Any) -> Iterator[_Slot]:
    paths, _ = leaves_of(params)
    known = {path[: i + 1] for path, _ in paths for i in range(len(path))}
    for path, leaf in paths:
        for i, key in enumerate(path):
            if found := _SCALE.fullmatch(str(key)):
                op, index, side = found.groups()
                zero_point = (*path[:i], f"{op}{index}_{side}_zero_point") in known
                yield _Slot(path[:i], op, int(index), side, tuple(leaf.shape), zero_point)


def _require_same_counts(slots: Sequence[_Slot], model: Model) -> None:
    """An operation's number tells which it is only if both count the same ones."""
    here = Counter((product.module, product.op) for product in model.forward)
    there: dict[tuple[str, str], int] = {}
    for slot in slots:
        key = slot.module, slot.op
        there[key] = max(there.get(key, 0), slot.index + 1)
    for (module, op), count in there.items():
        if here[module, op] != count:
            modules = sorted({product.module for product in model.forward})
            near = ", ".join(map(repr, nearest(module, modules) or modules))
            raise ValueError(
                f"params has scales for {count} x {op} in module {module!r}, and the ranges have "
                f"{here[module, op]} there. Take ranges of the same model as it was; modules "
                f"with products are {near}. Or say the paths in names="
            )


def _feeding(slot: _Slot, product: Product, model: Model) -> tuple[str, ...]:
    operands = product.site.by_operand
    weights = [model.seen.is_weight(names) for names in operands]
    if any(weights) or slot.op == "einsum":
        return model.activations(product)
    return operands[("lhs", "rhs").index(slot.side)]


def _stat(slot: _Slot, source: Source, fmt: FormatLike, how: dict[str, Any]) -> dict[str, Any]:
    if slot.zero_point:
        lo, hi = covered(source, fmt, **how)
        sums = {"sum_of_min": lo, "sum_of_max": hi}
    else:
        sums = {"sum_of_absmax": amax(source, fmt, **how)}
    arrays = {name: jnp.full(slot.shape, value, jnp.float32) for name, value in sums.items()}
    return {"count": jnp.ones((), jnp.int32), **arrays}
