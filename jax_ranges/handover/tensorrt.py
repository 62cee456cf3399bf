"""TensorRT: the calibration cache of its implicit quantization (deprecated since TensorRT 10.1).

    TRT-8601-EntropyCalibration2
    data: 3c008912
    conv1: 3c88edfc

The format is that of NVIDIA's sampleINT8 (github.com/NVIDIA/TensorRT, samples/sampleINT8/README.md,
"Calibration file"): a line for each tensor, its scale amax / 127 as the bits of a float32 in hex.
TensorRT reads a cache if the version and the calibrator in the first line are its own, as does
ONNX Runtime's TensorRT provider with `trt_int8_use_native_calibration_table` (there names end at
the first colon).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jax_ranges.files import File
from jax_ranges.handover.sites import Names, Source, Unfit, handed, merged, written
from jax_ranges.qparams import qparams
from jax_ranges.ranges import Ranges


def tensorrt_cache(
    ranges: Ranges,
    names: Names = None,
    *,
    version: int = 8601,
    calibrator: str = "EntropyCalibration2",
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> str:
    """A calibration cache.

    Args:
      ranges: what was seen; leading axes (stacked loops, vmap) are merged.
      names: the tensors' names, by site; see `jax_ranges.handover`.
      version: of the TensorRT that reads it, as its getInferLibVersion() tells: 8601 is 8.6.1,
        100300 is 10.3.0.
      calibrator: the kind that reads it: EntropyCalibration2 (also that of trtexec --calib),
        EntropyCalibration, MinMaxCalibration, ...
      unfit: what to do about sites that no scale can be made of.
      file: where to write the text, atomically.
      how: further arguments of `jr.qparams`: `method="kl"`, which is TensorRT's own, ...

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([-127.0, 1.0]))
      >>> print(tensorrt_cache(ranges, {"neg": "data_0"}), end="")
      TRT-8601-EntropyCalibration2
      data_0: 3f800000
    """
    found = handed(ranges, names, unfit, merged(ranges, how.get("method", "minmax")))
    lines = [f"TRT-{version}-{calibrator}"]
    lines += [f"{_line_name(each.name)}: {_hex(each.source, how)}" for each in found]
    return written("".join(line + "\n" for line in lines), file)


def _line_name(name: str) -> str:
    if not name or len((name + ".").splitlines()) > 1:
        raise ValueError(f"a name in a calibration cache is on one line, and not empty: {name!r}")
    return name


def _hex(source: Source, how: dict[str, Any]) -> str:
    scale = qparams(source, "int8", symmetric=True, narrow=True, **how).scale
    return f"{np.float32(scale).view(np.uint32):08x}"
