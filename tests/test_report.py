"""Reports: their texts, word for word, and that they bear whatever ranges can hold.

The golden texts are made anew with `UPDATE_GOLDEN=1 pytest tests/test_report.py`.
"""

from __future__ import annotations

import io
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jax_ranges as jr
from jax_ranges.plan import Row
from jax_ranges.ranges import from_states
from jax_ranges.report.html import ranges_html
from jax_ranges.report.rows import (
    Gauge,
    bar_text,
    cut_name,
    dtype_text,
    number_text,
    rows_of,
    spark_text,
    unreadable,
)
from jax_ranges.report.tables import plain, plan_table, ranges_table, summary
from jax_ranges.site import Site
from jax_ranges.stats import MinMax
from tests.compare import assert_golden

# Only operations that are exact on every machine. A text of its own, so that the lines that the
# report names stay the same when this file changes.
PROGRAM = """
import jax
from jax import lax

def model(x, n):
    with jax.named_scope("Encoder"):
        with jax.named_scope("layer_0"):
            h = lax.dot(x, x)
            with jax.named_scope("attention_of_many_heads"):
                h = lax.mul(h, x)
                masked = h * -1e30
        with jax.named_scope("layer_1"):
            small = lax.convert_element_type(h, "bfloat16")
            square = lax.mul(small, small)
    ratio = lax.div(x, lax.sub(x, x))
    chosen = lax.cond(n > 0, lambda v: v + 0.5, lambda v: v * 0.5, h)
    last, each = lax.scan(lambda c, _: (c * 4.0, c + 1.0), x[1], length=6)
    return masked, square, ratio, chosen, last, each, n * 3, lax.sqrt(-x - 1.0)
"""


def program() -> Any:
    made: dict[str, Any] = {}
    exec(compile(PROGRAM, "/home/somebody/model/layers.py", "exec"), made)
    return made["model"]


ARGUMENTS = (jnp.array([[0.0, 1.0], [2.0, 3.0]]), jnp.int32(5))


@pytest.fixture(scope="module")
def ranges() -> jr.Ranges:
    return jr.ranges(program(), loops="stack")(*ARGUMENTS)[1]


def made(*extrema: tuple[float, float, bool], names: Any = None) -> jr.Ranges:
    """Ranges of these (min, max, nan)."""
    float32 = np.dtype(np.float32)
    names = names or [f"site_{i}" for i in range(len(extrema))]
    sites = [Site(name, "add", 0, (2,), float32) for name in names]
    stat = MinMax()
    states: list[Any] = [
        {stat: stat.state(np.float32(lo), np.float32(hi), np.asarray(nan), float32, np)}
        for lo, hi, nan in extrema
    ]
    return from_states(sites, states)


UNSEEN = (math.inf, -math.inf, False)


def a_plan() -> jr.Plan:
    """With rows of its own: what is derived is for other tests to say."""
    mul, add = (
        Site(f"Encoder/layer_0/attention_of_many_heads/{name}", name, 0, (8, 16), np.dtype("f4"))
        for name in ("mul", "add")
    )
    rows = (
        Row(mul, "measured", "", 128),
        Row(add, "derived", f"{mul.name}: add 1.0", 0),
        Row(Site("iota", "iota", 0, (16,), np.dtype("i4")), "constant", "known before", 0),
        Row(Site("sum", "sum", 0, (), np.dtype("f4")), "measured", "", 1072),
    )
    return replace(jr.plan(jnp.sin)(jnp.ones((30, 40))), _explain=lambda: tuple(rows))


# -- the tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [50, 80, 160])
def test_the_table_of_ranges_is_as_it_was(ranges: jr.Ranges, width: int) -> None:
    assert_golden(f"ranges_{width}.txt", plain(ranges_table(ranges), width=width))


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_of_a_plan_is_as_it_was(width: int) -> None:
    assert_golden(f"plan_{width}.txt", plain(plan_table(a_plan()), width=width))


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 120, 300])
def test_no_line_is_wider_than_the_terminal(ranges: jr.Ranges, width: int) -> None:
    for table in (ranges_table(ranges), ranges_table(ranges, limit=4)):
        assert max(map(len, plain(table, width=width).split("\n"))) <= width


def test_nothing_is_left_out_where_there_is_room(ranges: jr.Ranges) -> None:
    text = plain(ranges_table(ranges), width=200)
    for site in ranges.sites:
        assert f"{site.name} " in text
    assert "model/layers.py:8" in text and "somebody" not in text


def test_nan_inf_and_what_was_not_observed_are_said() -> None:
    ranges = made((0, 1, False), (-1, 2, True), (-math.inf, 3, False), UNSEEN)
    one, nan, inf, unseen = plain(ranges_table(ranges), width=80).split("\n")[2:6]
    assert "NaN" in nan and "NaN" not in one
    assert "-inf" in inf and inf.endswith("∞")
    assert unseen.split() == ["site_3", "[2]", "f32", "not", "observed"]
    caption = plain(ranges_table(ranges), width=80).split("\n")[-1]
    assert caption == ("4 sites · 1 not observed · 1 with NaN · 1 with inf · largest 2 at site_1")


def test_a_site_that_saw_only_nan_is_observed_and_has_no_numbers() -> None:
    (row,) = rows_of(made((math.inf, -math.inf, True)))
    assert (row.observed, row.nan, row.min, row.max, row.amax) == (True, True, None, None, None)
    line = summary(made((math.inf, -math.inf, True))).split("\n")[-1]
    assert line.split()[3:] == ["nan", "nan", "NaN"]


def colours(renderable: Any, terminal: bool) -> str:
    file = io.StringIO()
    system = "standard" if terminal else "auto"
    console = Console(
        file=file, width=100, force_terminal=terminal, color_system=system, _environ={}
    )
    console.print(renderable)
    return file.getvalue()


def test_there_is_colour_on_a_terminal_and_nowhere_else(ranges: jr.Ranges) -> None:
    plan = a_plan()
    assert re.search(r"\x1b\[1;31m[^\x1b]*NaN", colours(ranges, terminal=True))
    assert "\x1b[33mmeasured" in colours(plan, terminal=True)
    assert "\x1b" not in colours(ranges, terminal=False) + colours(plan, terminal=False)
    assert "\x1b" not in repr(ranges) + repr(plan)


def test_a_terminal_without_unicode_gets_other_characters(ranges: jr.Ranges) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=file, width=120, _environ={}).print(ranges)
    file.seek(0)
    text = file.read()
    assert "####" in text and "?" not in text


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/here/model/layers.py:3", "model/layers.py:3"),
        ("/there/model/deep/layers.py:3", "deep/layers.py:3"),
        ("/here/venv/lib/site-packages/flax/linen/linear.py:3", "flax/linen/linear.py:3"),
        ("C:\\work\\model\\layers.py:3", "model/layers.py:3"),
        ("", ""),
    ],
)
def test_sources_are_shortened(source: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getcwd", lambda: "/here")
    site = Site("add", "add", 0, (), np.dtype(bool), source)
    state: Any = {MinMax(): MinMax().identity(site.dtype)}
    (row,) = rows_of(from_states([site], [state]))
    assert row.source == shown


def test_a_scope_can_neither_break_a_line_nor_reach_the_terminal() -> None:
    @jax.named_scope("a\n\x1b[31m[bold]<b>")
    def named(x: Any) -> Any:
        return jnp.sin(x)

    _, ranges = jr.ranges(named)(jnp.ones(2))
    line = plain(ranges_table(ranges), width=80).split("\n")[2]
    assert line.startswith("a\ufffd\ufffd[31m[bold]<b>/sin ")


def test_wide_characters_keep_the_columns_in_line() -> None:
    ranges = made((0, 1, False), (0, 1, False), names=["漢字/add", "abcd/add"])
    wide, narrow = plain(ranges_table(ranges), width=80).split("\n")[2:4]
    assert len(narrow) - len(wide) == 2


# -- repr -------------------------------------------------------------------------------------


def test_repr_counts_and_shows_the_first_and_the_last_rows() -> None:
    ranges = made(*[(0, 1, False)] * 30, (0, 1, True), UNSEEN, *[(0, 1, False)] * 10)
    head, *_, elided = repr(ranges).split("\n")[:14]
    assert head == "Ranges: 42 sites, 1 not observed, 1 with NaN"
    assert elided == "… 22 more, 1 not observed, 1 with NaN"
    assert len(repr(ranges).split("\n")) == 1 + 2 + 10 + 1 + 10


def test_repr_inside_jit_says_that_it_is_traced() -> None:
    seen = []

    @jax.jit
    def step(x: Any) -> Any:
        out, ranges = jr.ranges(jnp.exp)(x)
        seen.append((repr(ranges), plain(ranges), ranges_html(ranges)))
        return out

    step(jnp.ones(2))
    line = "Ranges: 1 site (traced)"
    assert seen == [(line, line, f"<pre>{line}</pre>")]


@pytest.mark.parametrize(
    ("leaf", "why"), [(None, "of NoneType"), (0, "of int"), (object(), "of object")]
)
def test_repr_bears_a_pytree_of_anything(ranges: jr.Ranges, leaf: Any, why: str) -> None:
    assert repr(jax.tree.map(lambda _: leaf, ranges)).endswith(f"sites ({why})")


def test_repr_of_shapes_says_that_they_are_abstract() -> None:
    _, ranges = jax.eval_shape(jr.ranges(jnp.exp), jnp.ones(2))
    assert repr(ranges) == "Ranges: 1 site (abstract)"


def test_repr_of_deleted_arrays_says_so() -> None:
    _, ranges = jr.ranges(jnp.exp)(jnp.ones(2))
    for leaf in jax.tree.leaves(ranges):
        leaf.delete()
    assert repr(ranges) == "Ranges: 1 site (deleted)"


def test_a_program_without_operations_has_an_empty_report() -> None:
    _, ranges = jr.ranges(lambda x: x)(jnp.ones(2))
    assert (repr(ranges), plain(ranges)) == ("Ranges: 0 sites", "0 sites")


def test_numbers_are_readable_outside_of_jit(ranges: jr.Ranges) -> None:
    assert unreadable(ranges) == ""


# -- notebooks --------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Checks that every tag is closed in its turn, and counts them."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        self.open.append(tag)
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_one_balanced_table_with_a_line_a_site(ranges: jr.Ranges) -> None:
    tags = Balanced(ranges_html(ranges)).count
    assert (tags["table"], tags["tr"]) == (1, 1 + len(ranges))


def test_html_escapes_names() -> None:
    html = ranges_html(made((0, 1, False), names=["<script>&/add"]))
    assert "&lt;script&gt;&amp;/" in html and "<script>" not in html
    Balanced(html)


def test_html_marks_nan_and_inf_and_what_was_not_observed() -> None:
    html = ranges_html(made((0, math.inf, True), UNSEEN))
    assert html.count("<b style") == 2
    assert ">NaN</b>" in html and ">inf</b>" in html and ">not observed<" in html
    assert "1 not observed · 1 with NaN · 1 with inf" in html


def test_html_of_many_sites_says_how_many_more_there_are() -> None:
    html = ranges_html(made(*[(0, 1, False)] * 250))
    assert Balanced(html).count["tr"] == 201
    assert "50 more not shown" in html


# -- rows -------------------------------------------------------------------------------------


def test_rows_hold_exact_python_numbers() -> None:
    x = jnp.array([-3, 100])
    _, ranges = jr.ranges(lambda x: (x + 1, x > 0, x.astype(jnp.int4), x.astype(jnp.bfloat16)))(x)
    rows = {row.dtype: row for row in rows_of(ranges)}
    found = {dtype: (row.min, row.max, row.amax) for dtype, row in rows.items()}
    assert found == {
        "i32": (-2, 101, 101),
        "bool": (False, True, True),
        "i4": (-3, 4, 4),
        "bf16": (-3.0, 100.0, 100.0),
    }
    assert all(type(row.min) in (int, float, bool) for row in rows.values())


def test_leading_axes_are_merged_and_their_course_is_kept() -> None:
    x = jnp.array([[1.0, 2.0, jnp.nan], [-8.0, 0.0, 1.0]])
    _, ranges = jax.vmap(jax.vmap(jr.ranges(jnp.negative)))(x)
    (row,) = rows_of(ranges)
    assert (row.min, row.max, row.nan, row.lead) == (-2.0, 8.0, True, (2, 3))
    assert row.each[:2] == (8.0, 2.0)
    assert row.each[2] is not None and math.isnan(row.each[2])


def test_leading_axes_of_no_length_are_not_observed() -> None:
    _, ranges = jax.vmap(jr.ranges(jnp.negative))(jnp.ones((0, 2)))
    (row,) = rows_of(ranges)
    assert (row.observed, row.each) == (False, ())
    assert "not observed" in repr(ranges)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (-0.0, "0"), (1.0, "1"), (1 / 3, "0.3333"), (-1234.5678, "-1235"),
        (65504.0, "65504"), (123456.7, "123457"), (1e6, "1e6"), (-2.0**-126, "-1.175e-38"),
        (1e-4, "0.0001"), (1.5e-5, "1.5e-5"), (1e10, "1e10"), (3.4e38, "3.4e38"),
        (math.inf, "inf"), (-math.inf, "-inf"), (7, "7"), (-(2**31), "-2147483648"),
        (2**64 - 1, "1.845e19"), (True, "True"), (None, ""),
    ],
)  # fmt: skip
def test_numbers_are_compact(value: Any, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float32", "f32"), ("bfloat16", "bf16"), ("uint8", "u8"), ("int4", "i4"),
        ("complex64", "c64"), ("float8_e4m3fn", "f8_e4m3fn"), ("bool", "bool"),
    ],
)  # fmt: skip
def test_dtypes_have_short_names(dtype: str, text: str) -> None:
    assert dtype_text(jnp.dtype(dtype)) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (50, "transpose(jvp(Encoder))/layer_0/attn/dot_general.1"),
        (40, "transpose(jv…/layer_0/attn/dot_general.1"),
        (20, "trans…/dot_general.1"),
        (14, "…dot_general.1"),
        (8, "…neral.1"),
    ],
)
def test_long_names_are_cut_in_the_middle(width: int, text: str) -> None:
    assert cut_name("transpose(jvp(Encoder))/layer_0/attn/dot_general.1", width) == text


@pytest.mark.parametrize("width", range(1, 40))
def test_a_cut_name_fits_and_keeps_its_end(width: int) -> None:
    for name in ("Encoder/layer_0/attn/jit(tril)/select_n", "dot_general_of_a_long_name", "a/b/c"):
        cut = cut_name(name, width)
        assert len(cut) <= width
        assert cut == name or cut.count("…") == 1
        assert cut.endswith(name.rpartition("/")[2][-(width - 1) :]) or width == 1


def test_bars_of_one_scale_leave_outliers_out() -> None:
    rows = rows_of(made(*[(-1, 2.0**k, False) for k in range(8)], (-1e30, 0, False), UNSEEN))
    gauge = Gauge.of(rows)
    assert (gauge.low, gauge.high) == (0, 7)
    assert [gauge.position(row) for row in rows[:8]] == [k / 7 for k in range(8)]
    assert bar_text(gauge.position(rows[8]), 4) == "████▸"
    assert bar_text(gauge.position(rows[9]), 4) == ""


def test_integers_have_no_bar_next_to_floats() -> None:
    x = jnp.array([1, 2])
    _, ranges = jr.ranges(lambda x: (x + 1, x.astype(jnp.float32)))(x)
    integer, floating = rows_of(ranges)
    gauge = Gauge.of([integer, floating])
    assert gauge.position(integer) is None and gauge.position(floating) == 1.0
    assert Gauge.of([integer]).position(integer) is not None


@pytest.mark.parametrize(
    ("position", "text"), [(None, ""), (0.0, "▏"), (0.5, "██"), (1.0, "████"), (math.inf, "████∞")]
)
def test_bars_are_drawn_in_eighths(position: float | None, text: str) -> None:
    assert bar_text(position, 4) == text


@pytest.mark.parametrize(
    ("each", "text"),
    [
        ([1.0, 2.0, 4.0, 8.0, 16.0], "▁▃▄▆█"), ([1.0, 1.01], "██"), ([0.0, 1.0], "▁█"),
        ([1.0, math.inf, math.nan, None], "█∞×·"), ([], ""),
        ([1.0] * 20 + [256.0] * 20, "▁▁▁▁████"),
    ],
)  # fmt: skip
def test_sparklines_show_the_course(each: Any, text: str) -> None:
    assert spark_text(each, 8) == text
