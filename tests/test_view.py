"""The viewer: what it chooses and says, and the browser itself, driven by textual's own pilot."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import RenderableType

import jax_ranges as jr
from jax_ranges.__main__ import main
from jax_ranges.ranges import from_states
from jax_ranges.report.order import excerpt
from jax_ranges.report.tables import plain
from jax_ranges.report.view import model_of, view
from jax_ranges.report.view.chart import Chart
from jax_ranges.report.view.detail import detail, neighbours
from jax_ranges.report.view.filters import ONLY, Filters
from jax_ranges.report.view.model import Model
from jax_ranges.report.view.sorts import SORTS, sorted_sites, sorts_of
from jax_ranges.site import Site
from jax_ranges.stats import MinMax

ROOT = Path(__file__).parent.parent
needs_textual = pytest.mark.skipif(
    importlib.util.find_spec("textual") is None,
    reason="textual is not installed: pip install 'jax-ranges[view]'",
)

UNSEEN = (math.inf, -math.inf, False)
ONLY_NAN = (math.inf, -math.inf, True)


def net(x):
    """NaN and inf, a loop, layers of which one stands out, a branch not taken, a cast."""
    for i in range(4):
        with jax.named_scope(f"layer_{i}"):
            x = jnp.tanh(x * (200.0 if i == 2 else 2.0))
    with jax.named_scope("loop"):
        total, _ = jax.lax.scan(lambda c, row: (c * 2.0 + row.sum(), None), 0.0, x)
    with jax.named_scope("head"):
        roots = jnp.where(x > 0, jnp.sqrt(x), 0.0).astype(jnp.bfloat16)
        large = jax.lax.cond(total > 1e9, jnp.sin, jnp.cos, jnp.exp(x * 200.0))
    return roots.sum().astype(jnp.float32) + jnp.nansum(large) + total


ALL = (MinMax(), jr.Exponents(), jr.Histogram(bins=64), jr.Health(), jr.PerChannel(axis=-1))
STATS = {"jvp(layer_2)/mul": ALL, "*": MinMax()}


def ranges_of(seed: int, **how: Any) -> jr.Ranges:
    x = jax.random.normal(jax.random.key(seed), (6, 8)).at[0, 0].set(0.0)
    return jr.ranges(jax.grad(net), **{"stats": STATS, "loops": "stack", **how})(x)[1]


@pytest.fixture(scope="module")
def ranges() -> jr.Ranges:
    return ranges_of(0)


@pytest.fixture(scope="module")
def model(ranges) -> Model:
    return model_of(ranges, title="net")


@pytest.fixture(scope="module")
def moved() -> Model:
    """A comparison: one site grew, one shrank, one came, one went, one stayed."""
    before = made({"a/x": (0, 1, False), "a/y": (0, 8, False), "b/z": (1, 2, False), "b/old": SAW})
    after = made({"a/x": (0, 9, False), "a/y": (0, 4, False), "b/z": (1, 2, False), "b/new": SAW})
    return model_of(after, before)


SAW = (-3.0, 5.0, True)


def made(named: dict[str, tuple[float, float, bool]], dtype: Any = np.float32) -> jr.Ranges:
    """Ranges of these (min, max, nan) at sites of these names, each fed by the one before."""
    of, stat, older = np.dtype(dtype), MinMax(), [(), *((name,) for name in named)]
    sites = [
        Site(name, name.split("/")[-1].split(".")[0], 0, (8,), of, operands=operands)
        for name, operands in zip(named, older, strict=False)
    ]
    states: list[Any] = [
        {stat: stat.state(of.type(lo), of.type(hi), np.asarray(nan), of, np)}
        for lo, hi, nan in named.values()
    ]
    return from_states(sites, states)


def names(model: Model, sites: Sequence[int]) -> list[str]:
    return [model.entries[i].site.name for i in sites]


def text_of(renderable: RenderableType, width: int = 100) -> str:
    return plain(renderable, width)


def detail_of(model: Model, name: str, fmt: int = 0) -> str:
    return text_of(detail(model, model.places[name], fmt))


# -- scopes -----------------------------------------------------------------------------------

PARTS = st.lists(st.sampled_from("abc"), max_size=4)


@given(st.lists(PARTS, min_size=1, max_size=12))
def test_a_scope_has_all_sites_whose_names_begin_with_it_and_says_the_worst_of_them(paths):
    named = {
        "/".join([*path, f"op.{i}"]): (-1.0, math.inf if i % 5 == 3 else float(2**i), i % 3 == 1)
        for i, path in enumerate(paths)
    }
    found = model_of(made(named))
    for node in found.scopes.walk():
        depth = len(node.path.split("/")) if node.path else 0
        inside = [n for n in named if n.split("/")[:depth] == node.path.split("/")[:depth]]
        assert names(found, node.members) == inside
        assert node.row.nan == any(named[name][2] for name in inside)
        assert node.row.amax == max(named[name][1] for name in inside)
        limits = [fmt.largest for fmt in found.formats]
        expected = [sum(named[name][1] > limit for name in inside) for limit in limits]
        assert list(node.over) == expected
        assert len({child.path for child in node.inside}) == len(node.inside)


def test_scopes_of_one_scope_only_are_joined():
    found = model_of(made(dict.fromkeys(["net/enc/a/add", "net/enc/b/mul"], (0.0, 1.0, False))))
    assert [node.label for node in found.scopes.walk()] == ["all", "net/enc", "a", "b"]


# -- filters and sorts ------------------------------------------------------------------------


def test_words_are_searched_in_names_primitives_and_files(model):
    def found(search: str) -> list[str]:
        return names(model, Filters(search=search).passing(model, 0))

    everything = names(model, range(len(model.rows)))
    assert found("") == found("   ") == everything
    assert found("LAYER_2 tanh") == [n for n in everything if "layer_2" in n and "tanh" in n]
    assert found("test_view.py") == [
        e.site.name for e in model.entries if e.site.source.rpartition(":")[0] == __file__
    ]
    assert found("no such thing") == []


@pytest.mark.parametrize("glob", ["*/tanh", "JVP(layer_?)/t", "scan*l", "t?nh", "view.py:*", "?"])
def test_a_word_may_be_a_glob_of_a_part(model, glob):
    found = names(model, Filters(search=glob).passing(model, 0))
    expected = [
        entry.site.name
        for entry in model.entries
        for texts in [(entry.site.name, entry.site.primitive, entry.row.source)]
        if any(fnmatchcase(text.lower(), f"*{glob.lower()}*") for text in texts)
    ]
    assert found == expected != []


def test_brackets_in_a_search_are_brackets():
    found = model_of(made(dict.fromkeys(["sort", "sort[1]", "sort[2].a"], (0.0, 1.0, False))))
    searched = {
        text: Filters(search=text).passing(found, 0) for text in ("[1]", "t[?]", ".a", "*.")
    }
    assert searched == {"[1]": [1], "t[?]": [1, 2], ".a": [2], "*.": [2]}


def test_each_filter_keeps_what_it_says_and_all_together_what_passes_each(model):
    rows, fmt = model.rows, 1
    largest = model.formats[fmt].largest
    expected = {
        Filters(only="NaN or inf"): [r.nan or r.amax == math.inf for r in rows],
        Filters(only="beyond the format"): [
            isinstance(r.min, float) and max(-r.min, r.max) > largest for r in rows
        ],
        Filters(only="beyond the scale"): [
            isinstance(r.min, float) and r.amax > 2.0**model.gauge.high for r in rows
        ],
        Filters(only="not observed"): [not r.observed for r in rows],
        Filters(primitive="mul"): [r.primitive == "mul" for r in rows],
        Filters(dtype="bf16"): [r.dtype == "bf16" for r in rows],
        Filters(direction="backward"): [r.backward for r in rows],
        Filters(direction="forward"): [not r.backward for r in rows],
    }
    for filters, keeps in expected.items():
        assert filters.passing(model, fmt) == [i for i, keep in enumerate(keeps) if keep] != []
    both = Filters(only="NaN or inf", direction="backward", primitive="mul")
    alone = [Filters(only=both.only), Filters(direction="backward"), Filters(primitive="mul")]
    sets = [set(filters.passing(model, fmt)) for filters in alone]
    assert both.passing(model, fmt) == sorted(set.intersection(*sets))
    assert set(ONLY) == {filters.only for filters in expected if filters.only} | {"changed"}


def test_filters_say_what_they_are(model):
    scope = model.scopes.inside[0]
    filters = Filters(" exp ", scope, "beyond the format", "mul", "f32", "forward")
    assert filters.says(model, 1) == [
        *("“exp”", f"in {scope.path}", "beyond float8_e5m2", "mul", "f32", "forward")
    ]
    assert Filters().says(model, 0) == []


@pytest.mark.parametrize(("ours", "theirs"), [("largest", "amax"), ("widest", "width")])
def test_sorts_by_size_are_those_of_a_report(model, ours, theirs):
    everything = range(len(model.rows))
    assert sorted_sites(model, everything, ours, False) == excerpt(model.rows, theirs).shown


@pytest.mark.parametrize("sort", ["largest", "widest", "min", "max"])
def test_what_has_no_numbers_is_last_either_way(sort):
    named = {"a": UNSEEN, "b": (-1.0, 4.0, False), "c": ONLY_NAN, "d": (-2.0, 2.5, True)}
    found = model_of(made(named))
    orders = [names(found, sorted_sites(found, range(4), sort, r)) for r in (False, True)]
    assert [set(order[2:]) for order in orders] == [{"a", "c"}] * 2
    assert orders[0][:2] == orders[1][1::-1]
    assert orders[0][0] == ("d" if sort == "min" else "b")


@pytest.mark.parametrize("sort", SORTS)
def test_a_sort_keeps_all_sites(moved, sort):
    everything = list(range(len(moved.rows)))
    assert sorted(sorted_sites(moved, everything, sort, False)) == everything
    assert sorted(sorted_sites(moved, everything, sort, True)) == everything


def test_scores_are_a_sort_of_comparisons_only(model, moved):
    assert set(sorts_of(moved)) - set(sorts_of(model)) == {"score"}
    order = names(moved, sorted_sites(moved, range(len(moved.rows)), "score", False))
    assert set(order[:2]) == {"b/new", "b/old"} and order[2] == "a/x"


# -- details ----------------------------------------------------------------------------------


def test_details_say_what_was_seen_exactly_and_where(model, ranges):
    name = "jvp(layer_2)/mul"
    found = detail_of(model, name)
    site, seen = ranges.site(name), ranges[name]
    assert found.startswith(f"{name}\nmul  f32[6,8]  forward\n{site.source}\n")
    assert f"min {seen.min!s}   max {seen.max!s}\n" in found
    assert "NaN" not in found
    assert detail_of(model, "transpose(jvp(layer_2))/mul").count("NaN was seen") == 1


def test_details_say_what_the_formats_would_do(model, ranges):
    found = detail_of(model, "jvp(head)/exp")
    lines = {line.split()[0]: line for line in found.splitlines() if line.strip()}
    assert "inf was seen" in lines["float16"]
    largest = float(ranges["jvp(layer_2)/mul"].max)
    assert 127 < largest < 448
    lines = detail_of(model, "jvp(layer_2)/mul").splitlines()
    assert any(line.startswith(f"int8           {largest / 127:.2g}× too large") for line in lines)
    assert any(line.startswith("float8_e4m3fn  fits") for line in lines)


def test_details_draw_what_was_counted_and_tell_the_other_statistics(model):
    found = detail_of(model, "jvp(layer_2)/mul")
    assert "Values by power of two  48 values, 1 zero" in found
    assert "Values by bin  48 values" in found
    assert "Health()  nan 0, pos_inf 0, neg_inf 0, zero 1, " in found
    assert "PerChannel(axis=-1, of=MinMax(), block=None)  min 8 from " in found


def test_details_tell_the_layer_that_stands_out(model):
    found = detail_of(model, "jvp(layer_1)/mul")
    assert "The same operation in 4 layers" in found
    assert "× the median, at jvp(layer_2)/mul" in found


def test_details_draw_iterations(model):
    (name,) = [e.site.name for e in model.entries if e.site.name.endswith("scan/mul")][:1]
    found = detail_of(model, name)
    assert "one range for each of 6" in found and "By iteration or example" in found


def test_details_list_what_feeds_a_site_and_what_it_feeds(model, ranges):
    name = "jvp(layer_2)/tanh"
    found = detail_of(model, name)
    fed, feeds = found.partition("Fed by")[2].split("Feeds")
    assert [line.split()[0] for line in fed.split("\n")[1:-2]] == list(ranges.site(name).operands)
    users = [site.name for site in ranges.sites if name in site.operands]
    assert [line.split()[0] for line in feeds.split("\n")[1:]] == users
    linked = [names(model, [i])[0] for i, _ in neighbours(model, model.places[name], 80)]
    assert linked == ["jvp(layer_2)/mul", *users]


def test_details_of_what_was_not_seen_or_is_only_nan():
    found = model_of(made({"a/x": UNSEEN, "a/y": ONLY_NAN}))
    assert "not observed: it never ran" in detail_of(found, "a/x")
    assert "only NaN was seen" in detail_of(found, "a/y")
    assert "number formats" not in detail_of(found, "a/y")


def test_details_of_integers_have_no_formats():
    found = model_of(made({"a": (-5, 7, False)}, np.int32))
    assert "min -5   max 7" in detail_of(found, "a") and "formats" not in detail_of(found, "a")


def test_details_tell_what_moved(moved):
    assert "change  widened\nscore   8\nbefore  0 to 1\nnow     0 to 9" in detail_of(moved, "a/x")
    assert "change  nothing\nscore   0\n" in detail_of(moved, "b/z")
    gone, new = detail_of(moved, "b/old"), detail_of(moved, "b/new")
    assert "before  -3 to 5, and NaN\nnow     it is gone" in gone and "formats" not in gone
    assert "before  there was no such operation\nnow     -3 to 5, and NaN" in new


def test_a_site_that_went_has_nothing_that_filters_find(moved):
    i = moved.places["b/old"]
    assert i not in Filters(only="NaN or inf").passing(moved, 0)
    assert i in Filters(only="changed").passing(moved, 0)
    assert moved.scopes.changed == 4 and moved.scopes.row.nan  # of b/new


def test_every_site_has_details_at_every_width(model):
    for i, entry in enumerate(model.entries):
        for width in (20, 80):
            found = text_of(detail(model, i, i % len(model.formats)), width)
            assert max(map(len, found.splitlines())) <= width
            assert "".join(found.split()).startswith(entry.site.name)


HEIGHTS = st.lists(st.floats(0, 1), max_size=60)


@given(HEIGHTS, st.integers(1, 40), st.integers(1, 5))
def test_columns_of_a_chart_are_as_high_as_they_say(heights, width, lines):
    *drawn, ends = text_of(Chart(heights, ["blue"] * len(heights), lines=lines), width).split("\n")
    assert len(drawn) == lines and not ends.strip()
    several = max(-(-len(heights) // width), 1)
    shown = [max(heights[k : k + several]) for k in range(0, len(heights), several)]
    wide = max(min(width // max(len(shown), 1), 4), 1)
    for k, height in enumerate(shown):
        column = [line.ljust(width)[k * wide] for line in drawn]
        eighths = sum(" ▁▂▃▄▅▆▇█".index(block) for block in column)
        assert abs(eighths - 8 * lines * height) <= 0.5 + (0 < height < 1) / 2
        assert (eighths > 0) == (height > 0)


# -- what is refused --------------------------------------------------------------------------


def test_what_cannot_be_browsed_is_an_error_that_says_why(ranges):
    with pytest.raises(ValueError, match="there are no sites to look at"):
        model_of(made({}))
    with pytest.raises(ValueError, match="without MinMax"):
        model_of(jr.ranges(jnp.sin, stats=jr.Health())(1.0)[1])
    with pytest.raises(ValueError, match="at least one format; got none"):
        model_of(ranges, formats=())
    with pytest.raises(ValueError, match="no format 'float9'"):
        model_of(ranges, formats=("float9",))
    with pytest.raises(FileNotFoundError):
        model_of("nowhere.json")


def test_without_textual_the_message_says_what_to_install(monkeypatch, capsys, ranges):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jax-ranges\[view\]'"):
        view(ranges)
    assert main(["view", "nowhere.json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "pip install 'jax-ranges[view]'" in said.err


@needs_textual
def test_without_a_terminal_the_message_says_what_to_do_instead(capsys):
    assert main(["view", "nowhere.json"]) == 2
    assert "takes a terminal" in capsys.readouterr().err


@needs_textual
def test_a_browser_that_fails_is_an_error(monkeypatch, ranges):
    from jax_ranges.report.view.app import Browser

    monkeypatch.setattr(Browser, "run", lambda self: setattr(self, "_return_code", 1))
    with pytest.raises(RuntimeError, match="printed above"):
        view(ranges)
    monkeypatch.setattr(Browser, "run", lambda self: None)
    view(ranges)


# -- the browser ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What is on the screen, part by part; "" for what is hidden."""

    tree: str
    table: str
    details: str
    status: str
    focused: str
    shown: list[str]
    at: str | None

    @property
    def lines(self) -> list[str]:
        """Those of the table, below its heading."""
        return [line for line in self.table.split("\n")[1:] if line.strip()]


def browse(model: Model, *keys: str, size: tuple[int, int] = (130, 44)) -> Seen:
    """What is seen after these keys; words of several letters are keys by name."""
    from jax_ranges.report.view.app import Browser

    browser = Browser(model)

    async def steps() -> Seen:
        async with browser.run_test(size=size) as pilot:
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                await pilot.pause()
            await pilot.pause(0.2)  # details follow when the cursor rests
            return seen(browser)

    return asyncio.run(steps())


def seen(browser: Any) -> Seen:
    parts = [browser.screen_stack[0].query_one(f"#{part}") for part in PARTS_SHOWN]
    table = parts[1]
    return Seen(
        *(drawn(part) for part in parts),
        getattr(browser.focused, "id", None) or type(browser.focused).__name__,
        names(browser.model, table.shown),
        None if table.site is None else browser.model.entries[table.site].site.name,
    )


PARTS_SHOWN = ("tree", "sites", "detail", "status")


def drawn(part: Any) -> str:
    if not part.display or not part.size:
        return ""
    return "\n".join(strip.text.rstrip() for strip in part.render_lines(part.size.region))


@needs_textual
def test_it_opens_with_all_sites_the_scopes_and_the_details_of_the_first(model):
    found = browse(model)
    everything = names(model, range(len(model.rows)))
    assert found.shown == everything and found.at == everything[0] and found.focused == "sites"
    assert found.status.startswith(f" {len(everything)} sites · program order · ▲ float8_e4m3fn")
    assert found.details.startswith(everything[0])
    assert found.table.split()[:2] == ["site", "type"]
    assert "jvp(layer_2)" in found.tree and found.tree.startswith("▾ all")


@needs_textual
def test_search_follows_the_letters_and_may_have_slashes(model):
    found = browse(model, "slash", *"layer_2)/m", "enter")
    assert found.shown == [n for n in names(model, range(len(model.rows))) if "layer_2)/m" in n]
    assert found.focused == "sites" and len(found.lines) == len(found.shown)
    assert "“layer_2)/m” (esc: all)" in found.status
    assert browse(model, "slash", *"tanh").focused == "search"
    again = browse(model, "slash", *"tanh", "enter", "escape")
    assert len(again.shown) == len(model.rows) and again.focused == "sites"


@needs_textual
def test_a_search_that_finds_nothing_says_so(model):
    found = browse(model, "slash", *"nowhere", "enter", "down", "enter", "g", "y")
    assert found.shown == found.lines == [] and found.at is None
    assert "no site passes the filters" in found.details


@needs_textual
def test_only_nan_or_inf_by_one_key_and_all_again_by_the_same(model):
    wanted = names(model, Filters(only="NaN or inf").passing(model, 0))
    assert browse(model, "n").shown == wanted
    assert len(browse(model, "n", "n").shown) == len(model.rows)


@needs_textual
def test_menus_choose_primitive_dtype_and_what_a_site_must_be(model):
    first = model.tally("primitive")[0][0]
    assert browse(model, "p", "down", "enter").shown == names(
        model, Filters(primitive=first).passing(model, 0)
    )
    there = [dtype for dtype, _ in model.tally("dtype")].index("bf16") + 1
    assert browse(model, "d", *["down"] * there, "enter").shown == names(
        model, Filters(dtype="bf16").passing(model, 0)
    )
    assert browse(model, "o", "down", "down", "enter").shown == names(
        model, Filters(only="beyond the format").passing(model, 0)
    )
    assert len(browse(model, "p", "down", "escape").shown) == len(model.rows)


@needs_textual
def test_the_pass_goes_from_both_to_forward_to_backward_to_both(model):
    ways = [browse(model, *"b" * times).shown for times in range(4)]
    backward = [e.site.name for e in model.entries if e.site.backward]
    assert ways[2] == backward and not set(ways[1]) & set(backward)
    assert ways[0] == ways[3] and len(ways[1]) + len(ways[2]) == len(ways[0])


@needs_textual
def test_sorting_starts_at_the_top_and_can_be_reversed(model):
    found = browse(model, "end", "s", "l", "enter")
    everything = range(len(model.rows))
    assert found.shown == names(model, sorted_sites(model, everything, "largest", False))
    assert found.at == found.shown[0] and "largest magnitude first ·" in found.status
    turned = browse(model, "s", "l", "enter", "r")
    assert turned.shown == names(model, sorted_sites(model, everything, "largest", True))
    assert "largest magnitude first, reversed" in turned.status


@needs_textual
def test_the_cursor_stays_at_its_site_when_filters_change(model):
    found = browse(model, *["down"] * 9)
    assert found.at == found.shown[9]
    assert browse(model, *["down"] * 9, "slash", *found.at.rpartition("/")[2]).at == found.at


@needs_textual
def test_a_closed_branch_says_the_worst_of_what_is_inside(model):
    closed = browse(model, "t", "minus").tree
    line = closed.split("\n")[0]
    assert line.startswith("▾ all") and "NaN" in line and "∞" in line and "▲" in line
    assert len(closed.split()) < len(browse(model, "t", "plus").tree.split())
    node = next(n for n in model.scopes.walk() if n.path == "transpose(jvp(layer_2))")
    (line,) = [each for each in closed.split("\n") if node.label in each]
    assert "NaN" in line


@needs_textual
def test_scopes_open_and_close_and_choose():
    named = dict.fromkeys(["a/b/x", "a/c/y", "d/z", "w"], (0.0, 1.0, False))
    found = model_of(made(named))

    everything = browse(found, "t").tree
    assert [word for word in everything.split() if word in {*"abcd", "all"}] == [
        *("all", "a", "b", "c", "d")
    ]
    inside_a = browse(found, "t", "down", "left").tree
    assert "▸ a" in inside_a and " b " not in inside_a
    assert "▾ a" in browse(found, "t", "down", "left", "right").tree
    assert "▸ all" in browse(found, "t", "down", "down", "left", "left", "left", "space").tree
    chosen = browse(found, "t", "down", "enter")
    assert chosen.shown == ["a/b/x", "a/c/y"] and "in a (esc: all)" in chosen.status
    assert browse(found, "t", "down", "enter", "enter").shown == list(named)


@needs_textual
def test_marks_are_of_the_format_that_is_chosen(model):
    found = browse(model, "slash", *"2)/m", "enter", "f", *["down"] * 4, "enter")
    assert "▲ int8" in found.status and "▲" in found.lines[0]
    assert "▲" not in browse(model, "slash", *"2)/m", "enter").lines[0]


BAR = "███"


@needs_textual
def test_names_are_not_cut_before_types_and_bars_go(model):
    wide, middle, narrow = (browse(model, "t", "t", size=(w, 40)) for w in (130, 76, 50))
    assert BAR in wide.table and "f32" in wide.table
    assert BAR in middle.table and "f32" not in middle.table
    assert BAR not in narrow.table and "min" in narrow.table
    assert all(any(n in line for line in middle.lines) for n in middle.shown[:20] if len(n) <= 38)


@needs_textual
def test_enter_goes_to_the_details_and_g_to_a_neighbour_even_a_hidden_one(model):
    name = "jvp(layer_2)/tanh"
    there = ("slash", *"2)/t", "enter")
    assert browse(model, *there).at == name
    assert browse(model, *there, "enter").focused == "details"
    gone = browse(model, *there, "g", "enter")
    assert gone.at == "jvp(layer_2)/mul" and gone.details.startswith(gone.at)
    assert browse(model, *there, "g", "enter", "u").at == name


@needs_textual
def test_tab_goes_round_and_parts_can_be_hidden(model):
    assert [browse(model, *["tab"] * k).focused for k in range(4)] == [
        *("sites", "details", "tree", "sites")
    ]
    assert browse(model, "t", "t").tree == ""
    assert browse(model, "z", "z").details == "" and browse(model, "z", "z", "z").details


@needs_textual
@pytest.mark.parametrize("size", [(40, 12), (80, 24), (100, 30), (240, 60)])
def test_every_size_of_a_terminal_shows_names_and_details(model, size):
    found = browse(model, size=size)
    assert len(found.lines) >= 3 and found.details
    assert bool(found.tree) == (size[0] >= 100)
    assert browse(model, "t", size=size).tree
    assert all(len(line) <= size[0] for line in found.table.split("\n"))


@needs_textual
def test_help_says_every_key(model):
    from jax_ranges.report.view.app import Browser
    from jax_ranges.report.view.keys import Keys, key_text

    browser = Browser(model)

    async def steps() -> str:
        async with browser.run_test(size=(120, 80)) as pilot:
            await pilot.press("question_mark")
            await pilot.pause()
            assert isinstance(browser.screen, Keys)
            said = drawn(browser.screen.query_one("Static"))
            await pilot.press("escape")
            assert not isinstance(browser.screen, Keys)
            return said

    said = asyncio.run(steps())
    for binding in Browser.BINDINGS:
        assert any(
            line.strip().startswith(key_text(binding.key)) and binding.tooltip.strip() in line
            for line in said.split("\n")
        ), binding


@needs_textual
def test_a_second_enter_that_was_on_its_way_does_nothing(model):
    from textual.widgets import OptionList

    from jax_ranges.report.view.app import Browser

    browser = Browser(model)

    async def steps() -> None:
        async with browser.run_test() as pilot:
            await pilot.press("s", "down")
            options = browser.screen.query_one(OptionList)
            options.action_select()
            options.action_select()
            await pilot.pause()
            assert browser.sort == "name" and len(browser.screen_stack) == 1
            browser.action_keys()
            await pilot.pause()
            keys = browser.screen
            keys.action_leave()
            keys.action_leave()
            await pilot.pause()
            assert len(browser.screen_stack) == 1

    asyncio.run(steps())


@needs_textual
@pytest.mark.parametrize("action", ["sort", "keys"])
def test_details_may_be_on_their_way_when_a_menu_opens(model, action):
    from jax_ranges.report.view.app import Browser

    browser = Browser(model)

    async def steps() -> None:
        async with browser.run_test() as pilot:
            await pilot.pause(0.2)
            browser.table.to(5)  # details follow a moment later
            await browser.run_action(action)
            await pilot.pause(0.2)
            await pilot.press("escape")
            await pilot.pause()
            content = drawn(browser.query_one("#detail"))
            assert content.startswith(names(model, [5])[0])

    asyncio.run(steps())


@needs_textual
def test_what_moved_is_shown_first_and_the_rest_on_request(moved):
    found = browse(moved)
    assert set(found.shown[:2]) == {"b/new", "b/old"} and found.shown[2:] == ["a/x", "a/y"]
    assert "changed (esc: all)" in found.status and "what moved most first" in found.status
    assert "widened" in found.table and "[0, 1]" in found.table and "[0, 9]" in found.table
    assert "Δ2" in found.tree
    assert "absent" in found.table
    assert "b/z" in browse(moved, "c").shown and "c" not in browse(moved, "c").focused


@needs_textual
def test_where_nothing_moved_all_is_shown(ranges):
    found = browse(model_of(ranges, ranges), "end")
    assert len(found.shown) == len(ranges) and "What moved\nchange  nothing" in found.details


@needs_textual
@pytest.mark.parametrize(
    "name", ["[red]a[/red]/op", "a\x1b[31m/op", "漢字/ünï", "long_" * 90 + "/op"]
)
def test_names_are_shown_as_they_are(name):
    found = browse(model_of(made({name: (0.0, 1.0, False), "b/op": (0.0, 2.0, False)})), "y")
    assert found.at == name and "\x1b" not in found.table + found.tree + found.details
    if name.startswith("["):
        assert all("[red]a[/red]" in part for part in (found.table, found.tree, found.details))


def many(count: int) -> Model:
    named = {
        f"net/layer_{i // 100}/block_{i // 10 % 10}/op.{i % 10}": (-1.0, float(i), i % 99 == 5)
        for i in range(count)
    }
    return model_of(made(named))


@needs_textual
def test_of_ten_thousand_sites_only_those_in_sight_are_drawn(monkeypatch):
    from jax_ranges.report.view.sites import SiteTable

    asked: list[int] = []
    line = SiteTable.line

    def counting(self: SiteTable, i: int, width: int) -> Any:
        asked.append(i)
        return line(self, i, width)

    monkeypatch.setattr(SiteTable, "line", counting)
    found = browse(many(10_000), "end", "s", "l", "enter", "slash", *"r_7", "enter", "n")
    assert found.shown and len(found.shown) < 100
    assert len(asked) < 2_000, "some twenty screens of forty lines were drawn"


@needs_textual
def test_clicks_move_choose_and_open(model):
    from jax_ranges.report.view.app import Browser

    browser = Browser(model)

    async def steps() -> None:
        async with browser.run_test(size=(130, 44)) as pilot:
            table, tree = (browser.query_one(f"#{part}") for part in ("sites", "tree"))
            await pilot.click("#sites", offset=(5, 4))
            assert table.cursor == 3 and browser.focused is table
            before = tree.count
            await pilot.click("#tree", offset=(0, 0))
            assert tree.count < before
            await pilot.click("#tree", offset=(0, 0))
            assert tree.count == before

    asyncio.run(steps())


@needs_textual
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_the_command_runs_in_a_terminal_and_q_leaves_it(tmp_path, ranges):
    import pty

    ranges.select("tanh").save(tmp_path / "r.json")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jax_ranges", "view", str(tmp_path / "r.json"), "--format", "int8"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    said = b""
    while b"quit" not in said:  # the footer is drawn
        said += os.read(ours, 65536)
    os.write(ours, b"q")
    while process.poll() is None:
        said += read_or_end(ours)
    os.close(ours)
    assert process.returncode == 0 and b"r.json" in said and b"int8" in said


def read_or_end(terminal: int) -> bytes:
    """What is there; nothing when the other side has closed, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
