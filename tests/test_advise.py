"""Advice: shares and noise against what rounding really does to data of several kinds.

The golden texts are made anew with `UPDATE_GOLDEN=1 pytest tests/test_advise.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.advice import Advice, advise, integer_bits
from jax_ranges.formats import format_of
from jax_ranges.noise import fits, spread_of
from jax_ranges.ranges import from_states
from jax_ranges.report.advice_table import advice_table
from jax_ranges.report.tables import plain
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, extrema_of
from tests.compare import assert_golden

INF, NAN = math.inf, math.nan
FORMATS = ["int4", "int8", "q3.4", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
FORMATS += ["float8_e4m3fnuz", "float4_e2m1fn", "float6_e3m2fn"]


@dataclass(frozen=True)
class Counts:
    """What `jr.Exponents()` counts, by numpy."""

    exponents: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    zero: int
    pos_inf: int
    neg_inf: int
    nan: int


def counted(x):
    x = np.asarray(x, np.float64).ravel()
    finite = x[np.isfinite(x) & (x != 0)]
    exponents = np.arange(-1075, 1025)
    own = np.frexp(finite)[1] - 1
    below, above = (
        np.bincount(own[side] + 1075, minlength=2100) for side in (finite < 0, finite > 0)
    )
    ends = [int(np.sum(x == value)) for value in (0.0, INF, -INF)]
    return Counts(exponents, below, above, *ends, int(np.isnan(x).sum()))


@dataclass(frozen=True)
class Exponents(jr.Exponents):
    """Taken, but with counts that the test makes up."""


class Measured(jr.Ranges):
    """Ranges that have exponents counted."""

    def __init__(self, ranges, counts):
        super().__init__(ranges.block(), ranges._layout)
        self._counts = counts

    @property
    def stats(self):
        return (*super().stats, Exponents())

    def has(self, name, stat):
        return stat == Exponents() or super().has(name, stat)

    def of(self, name, stat):
        assert stat == Exponents()
        return self._counts[name]


def made(sites):
    """Ranges of these arrays, by name, without exponents."""
    arrays = {name: np.asarray(x) for name, x in sites.items()}
    listed = [
        Site(name, name.rpartition("/")[2], 0, x.shape, x.dtype, "/home/me/model.py:8")
        for name, x in arrays.items()
    ]
    return from_states(listed, [{MinMax(): extrema_of(x)} for x in arrays.values()])


def measured(sites):
    return Measured(made(sites), {name: counted(x) for name, x in sites.items()})


def of_one(x, formats, **options):
    return advise(measured({"x": x}), formats, **options).of("x")


def rng():
    return np.random.default_rng(0)


N = 50_000
DATA = {
    "normal": rng().normal(size=N),
    "small": rng().normal(size=N) * 1e-6,
    "laplace": rng().laplace(size=N) * 300,
    "uniform": rng().uniform(-3, 5, N),
    "relu": np.maximum(rng().normal(size=N), 0),
    "softmax": (lambda e: (e / e.sum(-1, keepdims=True)).ravel())(
        np.exp(rng().normal(size=(500, 100)))
    ),
    "shifted": rng().normal(5, 0.5, N),
    "lognormal": rng().lognormal(0, 1, N),
}


# -- the model against what rounding does -----------------------------------------------------


def snr(x, y):
    noise = np.sum((y - x) ** 2)
    return 10 * math.log10(np.sum(x**2) / noise) if noise else INF


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", DATA)
def test_the_expected_noise_is_what_is_measured(kind, name):
    """Within 1 dB where nothing is clipped, and within 2 dB where more than 0.1% is.

    Of values in a narrow range away from zero the exponents say little: within 6 dB.
    """
    x, fmt = DATA[kind].astype(np.float32), format_of(name)
    spread = spread_of(counted(x), x.dtype, x.min(), x.max())
    top = math.frexp(max(abs(x.min()), x.max()))[1] - math.frexp(fmt.largest)[1]
    wide = x.astype(np.float64)
    for fit in fits(spread, fmt, np.array([0, *range(top - 3, top + 4)])):
        y = fmt.round(wide, fit.scale)
        clipped = np.mean(np.abs(wide / fit.scale) > fmt.largest)
        if 0 < clipped < 1e-3 or fit.underflow > 0.9:
            continue  # a handful of values decides
        tolerance = 6.0 if kind == "shifted" else 1.0 if not clipped else 2.0
        assert fit.snr_db == pytest.approx(snr(wide, y), abs=tolerance)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", DATA)
def test_the_shares_are_what_is_counted(kind, name):
    near = 0.3 if kind == "shifted" else 0.1 if format_of(name).bits == 4 else 0.04
    x, fmt = DATA[kind].astype(np.float32), format_of(name)
    wide = x.astype(np.float64)
    for fit in fits(spread_of(counted(x), x.dtype, x.min(), x.max()), fmt, np.arange(-12, 5)):
        y = np.abs(wide / fit.scale)
        rounded = np.abs(fmt.round(wide / fit.scale))
        zero = np.mean((rounded == 0) & (wide != 0))
        small = np.mean((y < fmt.smallest_normal) & (wide != 0)) - zero
        beyond = np.mean(y > fmt.largest)
        assert fit.underflow == pytest.approx(zero, abs=near)
        assert fit.subnormal == pytest.approx(max(small, 0), abs=near)
        assert fit.overflow == pytest.approx(beyond, abs=near)


def test_floats_of_the_same_type_are_exact():
    x = DATA["normal"].astype(ml_dtypes.bfloat16)
    (row,) = of_one(x, ["bfloat16"])
    assert (row.snr_db, row.underflow, row.overflow, row.scale) == (INF, 0, 0, 1)
    (row,) = of_one(x, ["float32"])
    assert row.snr_db == INF
    (row,) = of_one(DATA["normal"].astype(ml_dtypes.float8_e4m3fn), ["bfloat16"])
    assert row.snr_db == INF


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2"])
def test_values_that_have_steps_have_more_noise(name):
    """From bfloat16, half of the values that are rounded are ties or near ones."""
    x = DATA["normal"].astype(ml_dtypes.float8_e3m4)
    (row,) = of_one(x, [name])
    wide = x.astype(np.float64)
    assert row.snr_db == pytest.approx(snr(wide, format_of(name).round(wide, row.scale)), abs=0.7)


@pytest.mark.parametrize("name", [*FORMATS, "uint8"])
@pytest.mark.parametrize("kind", DATA)
def test_no_power_of_two_is_much_better_than_the_advised(kind, name):
    x, fmt = DATA[kind].astype(np.float32), format_of(name)
    (row,) = of_one(x, [fmt])
    wide = x.astype(np.float64)
    ratio = {s: snr(wide, fmt.round(wide, 2.0**s)) for s in range(-30, 12)}
    if fmt.kind == "float" and not fmt.saturating:  # what is beyond would be NaN or inf
        ratio = {s: r for s, r in ratio.items() if np.abs(wide).max() <= fmt.largest * 2.0**s}
    assert snr(wide, fmt.round(wide, row.scale)) > max(ratio.values()) - 1.5


def test_blocks_are_no_worse_than_one_scale():
    x = DATA["normal"].astype(np.float32)
    (row,) = of_one(x, ["mxfp8_e4m3"])
    assert row.scale == 1
    wide = x.astype(np.float64)
    assert row.snr_db <= snr(wide, format_of("mxfp8_e4m3").round(wide)) + 1.5


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    st.sampled_from(FORMATS),
)
def test_whatever_was_seen_shares_are_shares(numbers, name):
    x = np.array(numbers, np.float32)
    (row,) = of_one(x, [name])
    for fit in (row, row.unscaled):
        assert all(0 <= s <= 1 + 1e-9 for s in (fit.overflow, fit.underflow, fit.subnormal))
        assert fit.snr_db is not None and not math.isnan(fit.snr_db)
        assert math.frexp(fit.scale)[0] == 0.5
    if not row.overflows:
        assert row.unscaled.overflow == 0
    assert row.risk >= 0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(FORMATS))
def test_a_constant_is_known_exactly(value, name):
    x, fmt = np.full(5, value, np.float32), format_of(name)
    (row,) = of_one(x, [name])
    wide = x.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        y = fmt.round(wide)
        assert row.unscaled.underflow == float(y[0] == 0 and value != 0)
        assert row.unscaled.overflow == float(not fmt.least <= value <= fmt.largest)
        error = abs(y[0] - value)
    assert (row.unscaled.snr_db == INF) == (error == 0)


# -- what follows from min and max alone ------------------------------------------------------


def test_where_exponents_were_counted_at_some_sites_the_others_go_without():
    stats = {"exp": (jr.MinMax(), jr.Exponents()), "*": jr.MinMax()}
    _, ranges = jr.ranges(lambda x: jnp.exp(x) + 1, stats=stats)(jnp.array([0.0, 11.0]))
    counted, plain_row = advise(ranges, ["float8_e4m3fn"])
    assert (counted.site, counted.unscaled.overflow, counted.note) == ("exp", 0.5, "")
    assert (plain_row.site, plain_row.unscaled.overflow) == ("add", None)
    assert plain_row.overflows and plain_row.note == "shares need jr.Exponents()"


def test_without_exponents_it_is_known_what_overflows():
    advice = advise(made({"a": np.float32([-3, 70000]), "b": np.float32([0.5, 0.25])}), ["float16"])
    a, b = advice.of("a")[0], advice.of("b")[0]
    assert (a.overflows, a.unscaled.overflow, a.overflow, a.scale) == (True, None, 0, 2)
    assert (b.overflows, b.unscaled.overflow, b.overflow, b.scale) == (False, 0, 0, 1)
    assert {(row.underflow, row.snr_db, row.safe, row.smallest) for row in advice} == {(None,) * 4}
    assert {row.note for row in advice} == {"shares need jr.Exponents()"}
    assert advice[0] is a


@given(st.floats(width=32), st.floats(width=32), st.sampled_from([*FORMATS, "uint8", "mxfp4"]))
def test_the_scale_of_a_range_brings_all_into_it(a, b, name):
    assume(not math.isnan(a + b) and max(abs(a), abs(b)) < INF)
    fmt = format_of(name)
    (row,) = advise(made({"x": np.float32([a, b])}), [name]).of("x")
    if row.overflow == 0:
        assert min(a, b) >= fmt.least * row.scale and max(a, b) <= fmt.largest * row.scale
    assert row.overflows == (min(a, b) < fmt.least or max(a, b) > fmt.largest)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_integer_bits_are_the_fewest(a, b):
    lo, hi = min(a, b), max(a, b)
    m = integer_bits(lo, hi)
    if lo == hi == 0:
        assert m == 0
    else:
        assert -math.ldexp(1, m) <= lo and hi < math.ldexp(1, m)
        assert not (-math.ldexp(1, m - 1) <= lo and hi < math.ldexp(1, m - 1))


def test_what_is_odd_is_said():
    advice = advise(
        measured(
            {
                "nan": np.float32([1, NAN]),
                "inf": np.float32([1, -INF, 3]),
                "both": np.float32([INF, -INF, NAN]),
                "none": np.zeros(0, np.float32),
                "zero": np.zeros(3, np.float32),
                "indices": np.array([1, 2]),
                "fine": DATA["normal"].astype(np.float32),
            }
        ),
        ["int8"],
    )
    notes = {row.site: row.note for row in advice}
    assert notes == {
        "nan": "NaN",
        "inf": "inf",
        "both": "NaN, inf",
        "none": "not observed",
        "zero": "",
        "fine": "",
    }
    assert [row.site for row in advice][-1] == "none"
    assert {row.site for row in advice[:3]} == {"nan", "inf", "both"}
    assert {row.site: row.safe for row in advice} == {
        **dict.fromkeys(("nan", "inf", "both"), False),
        "none": None,
        "zero": True,
        "fine": True,
    }
    assert advice.of("none")[0].integer_bits is None
    assert advice.of("both")[0].integer_bits in (0, None)
    assert advice.of("inf")[0].integer_bits == 2


def test_the_smallest_safe_format_is_named():
    rows = of_one(DATA["normal"].astype(np.float32), ["bfloat16", "int8", "float8_e4m3fn", "int4"])
    assert {row.smallest for row in rows} == {"int8"}
    rows = of_one(DATA["normal"].astype(np.float32), ["bfloat16", "int8"], snr_db=50)
    assert {row.smallest for row in rows} == {"bfloat16"}
    rows = of_one(DATA["normal"].astype(np.float32), ["int8"], snr_db=80)
    assert (rows[0].smallest, rows[0].safe) == (None, False)


def test_rows_are_ranked_by_risk():
    advice = advise(measured({k: x.astype(np.float32) for k, x in DATA.items()}), FORMATS)
    risks = [row.risk for row in advice]
    assert risks == sorted(risks, reverse=True)
    assert len(advice) == len(DATA) * len(FORMATS)
    assert advice[0].format in ("int4", "float4_e2m1fn")


def test_stacked_and_vmapped_ranges_are_merged():
    _, ranges = jax.vmap(jr.ranges(jnp.exp))(jnp.array([0.0, 12.0]))
    (row,) = advise(ranges, ["float16"]).of("exp")
    assert row.overflows


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda r: advise(r, []), "there is no format to advise on"),
        (lambda r: advise(r, ["int7x"]), "no format 'int7x'"),
        (lambda r: advise(r, snr_db=NAN), "snr_db is in decibels, from 0 on; got nan"),
    ],
)
def test_errors_say_what_to_do(call, text):
    with pytest.raises(ValueError, match=text):
        call(made({"x": np.float32([1])}))


def test_inside_jit_there_is_nothing_to_advise_on():
    def f(x):
        advise(jr.ranges(jnp.sin)(x)[1])

    with pytest.raises(ValueError, match="these ranges are traced"):
        jax.jit(f)(jnp.ones(2))


# -- texts ------------------------------------------------------------------------------------

SCOPE = "Encoder/layer_0/attention_of_many_heads"


@pytest.fixture(scope="module")
def advice() -> Advice:
    sites = {
        f"{SCOPE}/dot_general": DATA["normal"] * 40,
        f"{SCOPE}/exp": DATA["lognormal"] * 100,
        f"{SCOPE}/div": DATA["softmax"],
        "Encoder/layer_1/grad": DATA["small"] / 64,
        "Encoder/layer_1/log": np.array([-INF, 2, NAN]),
        "cond/branch_0/mul": np.zeros(0),
        "a new\x1b[31mone": np.full(9, 0.5),
    }
    return advise(measured({name: x.astype(np.float32) for name, x in sites.items()}))


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_is_this_text(advice, width):
    assert_golden(f"advice_{width}.txt", plain(advice, width))


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_ranges_alone_is_this_text(width):
    ranges = made({"attn/dot_general": np.float32([-3, 500]), "mlp/tanh": np.float32([-1, 0.5])})
    assert_golden(f"advice_ranges_{width}.txt", plain(advise(ranges), width))


@pytest.mark.parametrize("width", [*range(1, 60, 7), 80, 100, 160, 400])
def test_it_fits_any_width(advice, width):
    lines = plain(advice_table(advice, limit=3), width).split("\n")
    assert max(map(len, lines)) <= max(width, 50)


def test_names_of_wide_characters_keep_their_ends():
    text = plain(advise(made({"漢字" * 40 + "/add": np.float32([1])})), 80)
    assert "…/add" in text


def test_its_repr_is_plain_text(advice):
    text = repr(advice)
    assert text.startswith("Advice: 7 sites, the riskiest first · float8_e4m3fn is safe at 5")
    assert "… 1 more" in text
    assert "\x1b" not in text
    assert repr(advise(made({"i": np.array([1])}))).startswith("Advice: 0 sites")


def test_a_program_can_read_it(advice):
    read = json.loads(json.dumps(advice.to_json(), allow_nan=False))
    assert read["formats"] == ["float8_e4m3fn", "bfloat16", "int8"]
    assert len(read["rows"]) == 21
    assert read["rows"][0]["risk"] == "inf"
    assert set(read["rows"][0]["unscaled"]) == {
        *("scale", "overflow", "underflow", "subnormal", "snr_db")
    }
    flat = json.loads(json.dumps(advice.records(), allow_nan=False))
    assert {type(v) for row in flat for v in row.values()} <= {str, float, int, bool, type(None)}
    assert "unscaled_overflow" in flat[0]


@settings(max_examples=20)
@given(st.integers(-140, 120))
def test_scaling_everything_scales_only_the_scale(shift):
    x = DATA["normal"][:500].astype(np.float32)
    (a,), (b,) = (of_one(np.ldexp(x.astype(np.float64), s), ["int8"]) for s in (0, shift))
    if -126 <= math.log2(a.scale) + shift <= 127:
        assert math.log2(b.scale) - math.log2(a.scale) == shift
        assert b.snr_db == pytest.approx(a.snr_db)
