"""AQT (github.com/google/aqt): the bounds of its ConstantCalibration."""

from __future__ import annotations

import json
from typing import Any

from jax_ranges.files import File
from jax_ranges.formats import FormatLike
from jax_ranges.handover import sites
from jax_ranges.handover.modules import Model
from jax_ranges.handover.sites import Unfit, written
from jax_ranges.handover.spans import amax
from jax_ranges.ranges import Ranges
from jax_ranges.site import Names, Select


def aqt_bounds(
    ranges: Ranges,
    names: sites.Names = None,
    *,
    format: FormatLike = "int8",  # noqa: A002
    root: str | None = None,
    weight_inputs: Select = None,
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> dict[str, dict[str, float]]:
    """The largest magnitude of either operand of each matrix product and convolution.

        bound = handover.aqt_bounds(ranges)["Dense_0"]
        quantizer = config.fwd.dg_quantizer
        quantizer.lhs.calibration = partial(calibration.ConstantCalibration, bound=bound["lhs"])
        quantizer.rhs.calibration = partial(calibration.ConstantCalibration, bound=bound["rhs"])

    Args:
      ranges: of the model as it is, with `inputs=True`, of operands too; leading axes are merged.
      names: the paths of modules, by the site of a product; by default those of flax's modules,
        see `jax_ranges.handover`.
      format: of the codes; minmax has the same bounds for all.
      root: the scope of the model, if there are several, or scopes around it.
      weight_inputs: what selects the inputs that are weights (it tells modules' paths only).
      unfit: what to do about operands that no scale can be made for.
      file: where to write the bounds as JSON, atomically.
      how: further arguments of `jr.qparams`: `method="mse"`, ...

    Returns:
      "lhs" and "rhs" by module; a further product of the same module is called `Dense_0.1`.

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def model(params, x):
      ...     with jax.named_scope("Model/Dense_0"):
      ...         return x @ params["Dense_0"]["kernel"]
      >>> params = {"Dense_0": {"kernel": jnp.full((2, 2), -0.25)}}
      >>> _, ranges = jr.ranges(model, inputs=True)(params, jnp.array([1.5, -0.5]))
      >>> aqt_bounds(ranges)
      {'Dense_0': {'lhs': 1.5, 'rhs': 0.25}}
    """
    model = Model.of(ranges, names, root, weight_inputs, unfit)
    unique = Names()
    named = [(unique.claim(product.module), product.site) for product in model.forward]
    fed = {
        (name, side): feeds
        for name, site in named
        for side, feeds in zip(("lhs", "rhs"), site.by_operand, strict=True)
    }
    bounds: dict[str, dict[str, float]] = {}
    for (name, side), source in model.sources(fed, unfit, how.get("method", "minmax")).items():
        bounds.setdefault(name, {})[side] = amax(source, format, **how)
    written(json.dumps(bounds, indent=1) + "\n", file)
    return bounds
