"""`jr.plot`: what is drawn is what was found. The artists' data are compared, not pixels."""

from __future__ import annotations

import io
import math
import sys

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr
from jax_ranges.files.records import Record, ranges_of

pytest.importorskip("matplotlib", reason="plots need matplotlib: pip install 'jax-ranges[plot]'")

from matplotlib.colors import same_color

from jax_ranges.report.html import AMBER, BLUE, RED
from jax_ranges.report.plots.canvas import GREY


def site(name, dtype="float32"):
    return jr.Site(name, "add", 0, (), np.dtype(dtype))


def ranges_from(ends, dtype="float32"):
    """Ranges with these (min, max, nan) by name; None as min and max where nothing was seen."""
    return ranges_of(Record(site(name, dtype), *seen) for name, seen in ends.items())


def drawn_bars(figure):
    """By row of the first axes what its bar spans, and the colour."""
    axes = figure.axes[0]
    found = {}
    for bars in axes.collections:
        (colour,) = bars.get_colors()
        for start, end in bars.get_segments():
            found[round(start[1])] = (start[0], end[0], tuple(colour[:3]))
    return found


def names_of(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def notes_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def line(figure, label):
    """The y data of the line whose label begins like this."""
    return next(found for found in figure.axes[0].lines if str(found.get_label()).startswith(label))


def drawn(figure):
    """That it can be drawn, with warnings as errors."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


# -- bars -------------------------------------------------------------------------------------


def test_bars_span_what_was_found():
    def f(x):
        with jax.named_scope("layer"):
            return jnp.exp(x) - 3.0

    _, ranges = jr.ranges(f)(jnp.array([-2.0, 0.5, 4.0]))
    figure = drawn(jr.plot(ranges))
    bars = drawn_bars(figure)
    assert names_of(figure) == list(ranges) == ["layer/exp", "layer/sub"]
    for i, name in enumerate(ranges):
        assert bars[i][:2] == (ranges[name].min, ranges[name].max)
    assert notes_of(figure) == ["", ""]


numbers = st.floats(-100, 100, width=32).map(lambda x: x + 0.0)  # no minus zero


@hypothesis.settings(max_examples=25)
@hypothesis.given(st.lists(st.tuples(numbers, numbers).map(sorted), min_size=1, max_size=8))
def test_any_bar_that_is_on_the_scale_is_exact(ends):
    ranges = ranges_from({f"s{i}": (*pair, False) for i, pair in enumerate(ends)})
    figure = jr.plot(ranges)
    low, high = figure.axes[0].get_xlim()
    for i, (least, most) in enumerate(ends):
        start, end, _ = drawn_bars(figure)[i]
        edge = max(-low, high)
        assert (start, end) == (np.clip(least, -edge, edge), np.clip(most, -edge, edge))


def test_what_no_bar_can_say_is_said_beside_it():
    ranges = ranges_from(
        {
            **{f"fine{i}": (-1.0, 2.0, False) for i in range(9)},
            "nan": (-1.0, 2.0, True),
            "only": (None, None, True),
            "unseen": (None, None, False),
            "inf": (0.5, "inf", False),
            "both": ("-inf", "inf", True),
            "mask": (-1e30, -1e30, False),
        }
    )
    figure = drawn(jr.plot(ranges))
    expected = ["NaN", "only NaN", "not observed", "inf", "NaN, -inf, inf", "-1e30"]
    assert notes_of(figure) == [""] * 9 + expected
    low, high = figure.axes[0].get_xlim()
    bars = drawn_bars(figure)
    assert sorted(bars) == [*range(10), 12, 13, 14]
    assert [bars[i][:2] for i in (12, 13, 14)] == [(0.5, high), (low, high), (low, low)]


def test_colours_say_what_the_first_format_cannot_hold():
    ranges = ranges_from(
        {
            "held": (-448.0, 448.0, False),
            "beyond": (-449.0, 1.0, False),
            "inf": (0.0, "inf", False),
        }
    ) | ranges_from({"index": (0, 7, False)}, "int32")
    bars = drawn_bars(jr.plot(ranges))
    for row, colour in enumerate((BLUE, AMBER, RED, GREY)):
        assert same_color(bars[row][2], colour)
    wider = drawn_bars(jr.plot(ranges, formats=("bfloat16",)))
    assert same_color(wider[1][2], BLUE)


def test_limits_of_formats_are_lines_where_they_are():
    figure = jr.plot(ranges_from({"s": (-3.0, 5.0, False)}), formats=("float8_e4m3fn", "int4"))
    x = {found.get_xdata()[0] for found in figure.axes[0].lines if len(found.get_xdata()) == 2}
    assert {-448.0, 448.0, -8.0, 7.0} <= x
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[:2] == ["float8_e4m3fn ±448", "int4 -8 to 7"]


def test_a_limit_far_beyond_is_in_the_legend_only():
    figure = drawn(jr.plot(ranges_from({"s": (-3.0, 5.0, False)}), formats=("bfloat16",)))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["bfloat16 ±3.39e38, off the scale", "floats"]
    assert figure.axes[0].get_xlim()[1] < 100


def test_without_negative_numbers_there_is_one_side():
    figure = drawn(jr.plot(ranges_from({"s": (0.25, 5.0, False)}), formats=()))
    assert figure.axes[0].get_xlim()[0] == 0


def many(count):
    """Ever larger magnitudes, and trouble among the smallest."""
    ends = {f"layer_{i}/add": (-1.0, 1.0 + i, i == 3) for i in range(count)}
    return ranges_from(ends)


def test_of_500_sites_the_notable_ones_are_shown_and_the_title_says_so():
    figure = jr.plot(many(500))
    assert names_of(figure) == ["layer_3/add", *(f"layer_{i}/add" for i in range(451, 500))]
    title = figure.axes[0].get_title(loc="left")
    assert title == ("50 of 500 sites (those with NaN or inf, then the largest); 450 not shown")
    sized = jr.plot(many(500), sort="amax", limit=2)
    assert names_of(sized) == ["layer_499/add", "layer_498/add"]
    assert "2 of 500 sites (largest first); 498 not shown" in sized.axes[0].get_title(loc="left")
    assert len(names_of(jr.plot(many(500), limit=500))) == 500


def test_select_chooses_sites():
    assert names_of(jr.plot(many(20), select="layer_1?/*"))[0] == "layer_10/add"


def test_float64_is_drawn_from_end_to_end(x64):
    del x64
    ends = {"least": (0.0, 5e-324, False), "most": (-1e300, 1.7e308, False)}
    ranges = ranges_from(ends, "float64")
    figure = drawn(jr.plot(ranges))
    assert drawn_bars(figure)[1][0] == -1e300 and notes_of(figure) == ["", "1.7e308"]
    drawn(jr.plot([ranges, ranges]))
    f = jr.ranges(jnp.negative, stats=(jr.MinMax(), jr.Exponents()))
    drawn(jr.plot(f(jnp.array([5e-324, 1.7e308]))[1], "exponents"))


def test_names_with_dollar_signs_are_names():
    figure = drawn(jr.plot(ranges_from({"a$b$c/x": (0.0, 1.0, False)})))
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"a\$b\$c/x"


# -- exponents --------------------------------------------------------------------------------


def shares(axes):
    return np.ma.filled(axes.collections[0].get_array(), 0.0)


def test_the_heat_map_has_the_share_of_each_power():
    x = jnp.array([0.0, 0.5, -0.75, 3.0, -2.0, jnp.inf, jnp.nan, 4.0])
    _, ranges = jr.ranges(lambda x: (-x, x * x), stats=(jr.MinMax(), jr.Exponents()))(x)
    figure = drawn(jr.plot(ranges, "exponents", formats=("float8_e4m3fn",)))
    powers, others = shares(figure.axes[0]), shares(figure.axes[1])
    assert names_of(figure) == ["neg", "mul"]
    for row, values in enumerate((-np.asarray(x), np.asarray(x) ** 2)):
        finite = np.abs(values[np.isfinite(values) & (values != 0)])
        counts = np.bincount(np.floor(np.log2(finite)).astype(int) + 2, minlength=7)
        np.testing.assert_allclose(powers[row], counts / 8)
        np.testing.assert_allclose(others[row], np.array([1, 0, 0, 1, 1]) / 8)
    assert figure.axes[0].collections[0].get_coordinates()[0, 0, 0] == -2


def test_the_heat_map_is_drawn_without_ranges_too():
    _, ranges = jr.ranges(jnp.exp, stats=jr.Exponents())(jnp.arange(3.0))
    assert shares(jr.plot(ranges).axes[0]).sum() == pytest.approx(1)


def test_far_exponents_have_one_column_for_all():
    x = jnp.array([1.0, 2.0, 4.0, 8.0, 1e-30, 1e30, 1e30, 3.0])
    _, ranges = jr.ranges(jnp.negative, stats=(jr.MinMax(), jr.Exponents()))(x)
    figure = jr.plot(ranges, "exponents")
    assert shares(figure.axes[0]).shape[1] == 4
    np.testing.assert_allclose(shares(figure.axes[1]), [[0, 1 / 8, 2 / 8, 0, 0]])


def test_unobserved_sites_are_empty_rows():
    def f(x):
        return jax.lax.cond(x[0] > 0, jnp.sin, lambda x: x * 2, x)

    _, ranges = jr.ranges(f, stats=(jr.MinMax(), jr.Exponents()))(jnp.ones(3))
    figure = drawn(jr.plot(ranges, "exponents"))
    (row,) = [i for i, name in enumerate(names_of(figure)) if name.endswith("mul")]
    assert not shares(figure.axes[0])[row].any()


def test_the_heat_map_of_many_sites_shows_the_notable_ones():
    _, ranges = jr.ranges(lambda x: (jnp.log(x), x * 8, x + 1), stats=jr.Exponents())(-jnp.ones(2))
    figure = jr.plot(ranges, limit=2)
    assert names_of(figure) == ["log", "mul"]
    assert names_of(jr.plot(ranges, limit=2, sort="name")) == ["add", "log"]
    assert "2 of 3 sites" in figure.axes[0].get_title(loc="left")


# -- lines ------------------------------------------------------------------------------------


def test_dumps_are_drawn_from_ranges_and_files(tmp_path):
    windows = [ranges_from({"a": (-x, 1.0, False), "b": (0.0, 2.0, False)}) for x in (1, 8, 64)]
    files = [tmp_path / f"run_{i}.json" for i in range(3)]
    for window, file in zip(windows, files, strict=True):
        window.save(file)
    for given in (windows, files, [windows[0], *files[1:]]):
        figure = drawn(jr.plot(given))
        assert line(figure, "a").get_ydata().tolist() == [1, 8, 64]
        assert line(figure, "b").get_ydata().tolist() == [2, 2, 2]
    assert [text.get_text() for text in drawn(jr.plot(files)).axes[0].get_xticklabels()] == [
        "run_0",
        "run_1",
        "run_2",
    ]


def test_the_sites_that_moved_most_have_names():
    first = {f"s{i}": (0.0, 1.0 + i / 100, False) for i in range(500)}
    second = {name: (0.0, most, False) for name, (_, most, _) in first.items()}
    second |= {"s7": (0.0, 40.0, False), "s9": (0.0, 9.0, False), "s300": (None, None, True)}
    figure = drawn(jr.plot([ranges_from(first), ranges_from(second)], limit=3))
    labels = [x.get_label() for x in figure.axes[0].lines if not x.get_label().startswith("_")]
    assert labels[:3] == ["s300 (NaN at 1)", "s7", "s9"]
    assert "500 sites: 3 lines named" in figure.axes[0].get_title(loc="left")
    assert sum(same_color(x.get_color(), GREY) for x in figure.axes[0].lines) == 497


def test_lines_that_lie_on_each_other_are_one():
    ends = {"a": (0.0, 1.5, False), "b": (-1.5, 0.0, False), "c": (0.0, 3.0, False)}
    labels = [x.get_label() for x in jr.plot([ranges_from(ends)] * 2, formats=()).axes[0].lines]
    assert labels == ["a + 1 alike", "c"]


def test_gaps_infinities_and_nan_in_a_line():
    ends = [(0.0, 1.0, False), (None, None, False), (0.0, "inf", False), (0.0, 4.0, True)]
    figure = drawn(jr.plot([ranges_from({"a": seen}) for seen in ends], formats=()))
    y = line(figure, "a (NaN at 3, inf at 2)").get_ydata()
    assert y[0] == 1 and all(map(math.isnan, y[1:]))
    top = figure.axes[0].get_ylim()[1]
    marks = {x.get_marker(): x.get_xydata().tolist() for x in figure.axes[0].lines[1:]}
    assert marks == {"^": [[2, top]], "x": [[3, top]]}


def test_a_site_that_is_in_some_dumps_only_has_gaps():
    dumps = [ranges_from({"a": (0.0, 1.0, False)}), ranges_from({"b": (0.0, 2.0, False)})]
    figure = jr.plot(dumps)
    np.testing.assert_array_equal(line(figure, "a").get_ydata(), [1, math.nan])
    np.testing.assert_array_equal(line(figure, "b").get_ydata(), [math.nan, 2])


def test_iterations_of_a_stacked_loop():
    def f(x):
        return jax.lax.scan(lambda x, _: (x * -2.0, None), x, None, 5)[0]

    _, ranges = jr.ranges(f, loops="stack")(jnp.array([1.0, 3.0]))
    figure = drawn(jr.plot(ranges, "iterations"))
    assert line(figure, "scan/mul").get_ydata().tolist() == [6, 12, 24, 48, 96]


def test_zero_is_at_the_bottom():
    figure = drawn(jr.plot([ranges_from({"a": (0.0, 0.0, False), "b": (1.0, 8.0, False)})]))
    assert line(figure, "a").get_ydata().tolist() == [0] and figure.axes[0].get_ylim()[0] == 0


# -- the figure, and what cannot be drawn ------------------------------------------------------


def test_figures_need_no_pyplot_and_show_in_notebooks():
    figure = jr.plot(ranges_from({"a": (0.0, 1.0, False)}))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda r: jr.plot(r, "pie"), ValueError, "kind='pie' is no kind of plot; there are"),
        (lambda r: jr.plot(r, "dumps"), ValueError, "dumps are several"),
        (lambda r: jr.plot([r, r], "bars"), ValueError, "merge them first"),
        (lambda r: jr.plot([]), ValueError, "no dumps"),
        (lambda r: jr.plot(r, "exponents"), ValueError, "jr.Exponents()"),
        (lambda r: jr.plot(r, "iterations"), ValueError, 'loops="stack"'),
        (lambda r: jr.plot(r, sort="size"), ValueError, "no order"),
        (lambda r: jr.plot(r, limit=0), ValueError, "limit is a number of sites"),
        (lambda r: jr.plot(r, formats=("float9",)), ValueError, "no format 'float9'"),
        (lambda r: jr.plot(3), TypeError, "got 3 of type int"),
        (lambda r: jr.plot((1.5, r)), TypeError, "got 1.5 of type float"),
        (lambda r: jr.plot(jr.Net(jnp.sin).get_info()), ValueError, "no sites to plot"),
        (lambda r: jax.jit(lambda r: jr.plot(r))(r), ValueError, "these are traced"),
    ],
)
def test_what_cannot_be_drawn_is_told(make, error, says):
    with pytest.raises(error, match=says.replace("(", r"\(").replace(")", r"\)")):
        make(ranges_from({"a": (0.0, 1.0, False)}))


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    from jax_ranges.report.plots import canvas

    canvas._figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jax-ranges\[plot\]'"):
        jr.plot(ranges_from({"a": (0.0, 1.0, False)}))
