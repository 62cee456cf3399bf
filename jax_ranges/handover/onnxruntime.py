"""ONNX Runtime: ranges for its static quantization, and the table of its TensorRT provider."""

from __future__ import annotations

import json
from typing import Any, Literal

from jax_ranges.files import File
from jax_ranges.formats import FormatLike
from jax_ranges.handover.sites import Names, Unfit, handed, merged, written
from jax_ranges.handover.spans import amax, covered, text
from jax_ranges.handover.trt_table import table_bytes
from jax_ranges.ranges import Ranges

Form = Literal["flatbuffers", "text"]


def onnxruntime_ranges(
    ranges: Ranges,
    names: Names = None,
    *,
    format: FormatLike = "int8",  # noqa: A002
    symmetric: bool = False,
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> dict[str, Any]:
    """The cache of `onnxruntime.quantization.quantize_static(..., calibration_cache_path=file)`.

    It has the lowest and the highest value of each tensor, of which ONNX Runtime makes the scale
    and the zero point that `jr.qparams` has (the JSON of its `save_tensors_data`; ONNX Runtime
    1.27 has that, 1.24 not yet).

    Args:
      ranges: what was seen; leading axes (stacked loops, vmap) are merged.
      names: the names of the model's tensors, by site; see `jax_ranges.handover`.
      format, symmetric: of its codes, as told to `quantize_static`.
      unfit: what to do about sites that no scale can be made of.
      file: where to write it as JSON, atomically.
      how: further arguments of `jr.qparams`: `method="percentile"`, ...

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([-255.0, 0.0]))
      >>> onnxruntime_ranges(ranges, {"neg": "Y"})["data"]["Y"]["highest"]
      {'data': 255.0, 'dtype': 'float32', 'CLS': 'numpy.array'}
    """
    how = {"symmetric": symmetric, **how}
    found = handed(ranges, names, unfit, merged(ranges, how.get("method", "minmax")))
    cache = {
        "CLS": "TensorsData",
        "data": {each.name: _tensor(*covered(each.source, format, **how)) for each in found},
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
    }
    written(json.dumps(cache, allow_nan=False), file)
    return cache


def _tensor(lo: float, hi: float) -> dict[str, Any]:
    return {"lowest": _array(lo), "highest": _array(hi), "CLS": "TensorData"}


def _array(value: float) -> dict[str, Any]:
    return {"data": value, "dtype": "float32", "CLS": "numpy.array"}


def onnxruntime_table(
    ranges: Ranges,
    names: Names = None,
    *,
    form: Form = "flatbuffers",
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> bytes:
    """The calibration table that ONNX Runtime's TensorRT provider reads.

    For each tensor max(|lowest|, |highest|): the file that its option
    `trt_int8_calibration_table_name` names, as `onnxruntime.quantization.write_calibration_table`
    writes it; except that the latter has max(lowest, highest) there, which is too small where
    there is more below zero than above.

    Args:
      ranges: what was seen; leading axes (stacked loops, vmap) are merged.
      names: the names of the model's tensors, by site; see `jax_ranges.handover`.
      form: "flatbuffers" is what the provider reads, "text" (`calibration.cache`, a line for each
        tensor) what people do.
      unfit: what to do about sites that no scale can be made of.
      file: where to write it, atomically.
      how: further arguments of `jr.qparams`: `method="kl"`, ...

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([3.5, -1.0]))
      >>> onnxruntime_table(ranges, {"neg": "Y"}, form="text")
      b'Y 3.5\\n'
    """
    if form not in ("flatbuffers", "text"):
        raise ValueError(f"form is 'flatbuffers' or 'text', got {form!r}")
    found = handed(ranges, names, unfit, merged(ranges, how.get("method", "minmax")))
    values = {each.name: text(amax(each.source, "int8", **how)) for each in found}
    if form == "flatbuffers":
        return written(table_bytes(values), file)
    lines = [f"{name} {values[name]}\n" for name in sorted(values)]
    return written("".join(lines).encode("utf-8"), file)
