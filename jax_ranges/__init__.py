"""See the numeric range of every operation of any JAX function, on the device, with one line.

out, ranges = jr.ranges(f)(*args)
"""

from jax_ranges.files import load
from jax_ranges.plan import Plan
from jax_ranges.ranges import Range, Ranges, UnknownSiteError
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, Statistic
from jax_ranges.transform import plan, ranges

__all__ = [
    "MinMax",
    "Plan",
    "Range",
    "Ranges",
    "Site",
    "Statistic",
    "UnknownSiteError",
    "load",
    "plan",
    "ranges",
]
