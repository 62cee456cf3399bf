"""See the numeric range of every operation of any JAX function, on the device, with one line.

out, ranges = jr.ranges(f)(*args)
"""

from jax_ranges.advice import Advice, AdviceRow, advise
from jax_ranges.births.birth import Birth
from jax_ranges.births.find import find_nonfinite
from jax_ranges.births.report import Report
from jax_ranges.bounds import Bounds, BoundsRow, Proven, bounds
from jax_ranges.diff import Diff, diff
from jax_ranges.errors import ErrorReport
from jax_ranges.files import load
from jax_ranges.formats import Format, format_of
from jax_ranges.guard import RangeViolationError, Violation, Violations, guard
from jax_ranges.moving import MovingAverage
from jax_ranges.net import Net
from jax_ranges.plan import Plan
from jax_ranges.processes import merge_processes
from jax_ranges.qparams import NonFiniteRangeWarning, NotObservedError, QParams, qparams
from jax_ranges.quantization.array import QuantizedArray
from jax_ranges.quantization.execute import quantize
from jax_ranges.quantization.recipe import QRule, Recipe
from jax_ranges.quantization.simulate import simulate
from jax_ranges.quantization.specs import Dynamic
from jax_ranges.range import Range
from jax_ranges.ranges import Ranges, UnknownSiteError
from jax_ranges.report.console import report
from jax_ranges.report.plots import plot
from jax_ranges.scopes import scopes
from jax_ranges.shadow import shadow
from jax_ranges.site import Site
from jax_ranges.statistics.absmax import AbsMax
from jax_ranges.statistics.channels import PerChannel
from jax_ranges.statistics.exponents import Exponents
from jax_ranges.statistics.health import Health
from jax_ranges.statistics.histogram import Histogram
from jax_ranges.statistics.moments import Moments
from jax_ranges.stats import MinMax, Statistic
from jax_ranges.transform import plan, ranges

__all__ = [
    "AbsMax",
    "Advice",
    "AdviceRow",
    "Birth",
    "Bounds",
    "BoundsRow",
    "Diff",
    "Dynamic",
    "ErrorReport",
    "Exponents",
    "Format",
    "Health",
    "Histogram",
    "MinMax",
    "Moments",
    "MovingAverage",
    "Net",
    "NonFiniteRangeWarning",
    "NotObservedError",
    "PerChannel",
    "Plan",
    "Proven",
    "QParams",
    "QRule",
    "QuantizedArray",
    "Range",
    "RangeViolationError",
    "Ranges",
    "Recipe",
    "Report",
    "Site",
    "Statistic",
    "UnknownSiteError",
    "Violation",
    "Violations",
    "advise",
    "bounds",
    "diff",
    "find_nonfinite",
    "format_of",
    "guard",
    "load",
    "merge_processes",
    "plan",
    "plot",
    "qparams",
    "quantize",
    "ranges",
    "report",
    "scopes",
    "shadow",
    "simulate",
]
