"""Hand-over: ranges and scales in the forms that other tools read.

    from jax_ranges import handover

| for | function | gives |
|---|---|---|
| any program | `scales` | JSON: scale, zero point, format by name |
| qwix | `qwix_rules` | arguments of its rules: fixed ranges, a rule a module |
| | `qwix_quant_stats` | the tree of statistics that its static scales are made of |
| AQT | `aqt_bounds` | bounds of ConstantCalibration, of either operand of each product |
| flax linen's fp8 | `flax_fp8` | the collection of amax histories and scales |
| ONNX Runtime | `onnxruntime_ranges` | the calibration cache that `quantize_static` takes |
| its TensorRT provider | `onnxruntime_table` | the calibration table, as FlatBuffers |
| TensorRT | `tensorrt_cache` | the calibration cache |
| Caffe2 | `caffe2_qparams` | lines of quantization parameters |
| | `caffe2_histograms` | lines of histograms |

All take `jr.Ranges` (of `jr.ranges`, `Net.get_info`, `jr.load`) and arguments of `jr.qparams`;
none imports the tool. What they have in common:

**Names.** Consumers of tensors know these by their own names: `names=` is a mapping from sites to
them, of exactly the sites to hand over, or a callable, which is asked about all sites of floats
and may say None; by default sites keep their names. A misspelt site is an UnknownSiteError that
suggests the nearest. qwix, AQT and flax know modules: their paths are found in the names of sites
(flax linen opens a scope for each module, `jr.scopes` one for those of nnx) or of weights (nnx,
given as an argument), and `names=` is for programs where neither tells them, by the site of each
matrix product or convolution. Where weights are captured and not given as arguments, the outermost
scope is taken for the model's, as linen has it; `root=""` says that there is none.

**Operands.** For these three what counts is what goes into a product: take ranges with
`inputs=True` and without `select=`. Weights are captured constants and arrays in a container
called params (`input/variables/params/Dense_0/kernel`), or in any, if none is called that;
`weight_inputs=` selects others. If all operands of a product are weights by that, the first is an
activation.

**Unfit sites.** Of what was not observed, or saw a NaN or an infinity, nothing is handed over:
an UnfitSiteError lists all such sites, or with `unfit="skip"` an UnfitSiteWarning, and they are
left out. Leading axes (stacked loops, vmap) are merged, except where `scales` is told otherwise.
"""

from jax_ranges.handover.aqt import aqt_bounds
from jax_ranges.handover.as_json import scales
from jax_ranges.handover.caffe2 import caffe2_histograms, caffe2_qparams
from jax_ranges.handover.flax import flax_fp8
from jax_ranges.handover.onnxruntime import onnxruntime_ranges, onnxruntime_table
from jax_ranges.handover.qwix import qwix_quant_stats, qwix_rules
from jax_ranges.handover.sites import UnfitSiteError, UnfitSiteWarning
from jax_ranges.handover.tensorrt import tensorrt_cache

__all__ = [
    "UnfitSiteError",
    "UnfitSiteWarning",
    "aqt_bounds",
    "caffe2_histograms",
    "caffe2_qparams",
    "flax_fp8",
    "onnxruntime_ranges",
    "onnxruntime_table",
    "qwix_quant_stats",
    "qwix_rules",
    "scales",
    "tensorrt_cache",
]
