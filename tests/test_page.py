"""The HTML page: its data, which are plain values, and the page itself in a headless Chromium."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jax_ranges as jr
from chromium import Chromium, started
from jax_ranges.__main__ import main
from jax_ranges.ranges import from_states
from jax_ranges.report.page import DEFAULT_FORMATS, page
from jax_ranges.report.page.document import MOST_POINTS, document
from jax_ranges.report.page.families import families, outlier
from jax_ranges.report.page.template import embedded
from jax_ranges.report.rows import rows_of
from jax_ranges.site import Site
from jax_ranges.stats import MinMax

UNSEEN = (math.inf, -math.inf, False)
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"'><svg/onload=window.hacked=1>&amp;&lt;",
    "{{document}}{{script}}<!--",
    "漢字 ünïcode \N{PILE OF POO} \u202egnirts \u2028",
    "long_" * 400,
)


def made(named: dict[str, tuple[float, float, bool]], dtype: Any = np.float32) -> jr.Ranges:
    """Ranges of these (min, max, nan) at sites of these names."""
    of, stat = np.dtype(dtype), MinMax()
    sites = [Site(name, name.split("/")[-1].split(".")[0], 0, (8, 16), of) for name in named]
    states: list[Any] = [
        {stat: stat.state(of.type(lo), of.type(hi), np.asarray(nan), of, np)}
        for lo, hi, nan in named.values()
    ]
    return from_states(sites, states)


def layers(sizes: list[float]) -> jr.Ranges:
    """The same two operations in each layer, of these largest values."""
    named = {}
    for i, size in enumerate(sizes):
        named[f"net/layer_{i}/mlp/exp"] = (0.0, 1.0 + i / 100, False)
        named[f"net/layer_{i}/mlp/mul"] = (-size / 2, size, False)
    return made(named)


def told(ranges: jr.Ranges, before: jr.Ranges | None = None) -> dict[str, Any]:
    """The document as a reader of the page gets it: through JSON."""
    formats = [jr.format_of(name) for name in DEFAULT_FORMATS]
    return json.loads(embedded(document(ranges, before, formats, "title")))


def names_in(told: dict[str, Any]) -> list[str]:
    def path(scope: int) -> str:
        if scope < 0:
            return ""
        label, above = told["scopes"][scope]
        return f"{path(above)}{label}/"

    return [path(site["scope"]) + site["label"] for site in told["sites"]]


# -- the document -----------------------------------------------------------------------------


def test_scopes_and_labels_make_up_the_names_again() -> None:
    names = ["a/b/add", "a/mul", "add", "transpose(jvp(x/y))/z/exp", "a/b/c/add", "a/b/sub"]
    found = told(made(dict.fromkeys(names, (0.0, 1.0, False))))
    assert names_in(found) == names
    assert len({(label, above) for label, above in found["scopes"]}) == len(found["scopes"])
    assert all(above < i for i, (_, above) in enumerate(found["scopes"]))


def test_numbers_are_exact_texts(x64: None) -> None:
    del x64
    (floats,) = told(made({"a": (0.1, 1e-45, False)} | {"a": (-0.1, math.inf, False)}))["sites"]
    assert floats["seen"] == {"min": "-0.1", "max": "inf"}
    big = 2**63 + 1
    (integers,) = told(jr.ranges(jnp.bitwise_not)(jnp.uint64(~big & (2**64 - 1)))[1])["sites"]
    assert integers["seen"] == {"min": str(big), "max": str(big)}
    (double,) = told(jr.ranges(jnp.negative)(jnp.float64(1 / 3))[1])["sites"]
    assert float(double["seen"]["min"]) == -1 / 3


def test_what_was_not_observed_has_nothing_seen_and_only_nan_no_numbers() -> None:
    unseen, nan = told(made({"a": UNSEEN, "b": (math.inf, -math.inf, True)}))["sites"]
    assert "seen" not in unseen and nan["seen"] == {"nan": True}


def test_operands_are_indices_or_names_of_what_is_no_site() -> None:
    _, ranges = jr.ranges(lambda x: jnp.exp(-x) + x)(jnp.ones(2))
    neg, exp, add = told(ranges)["sites"]
    assert (neg["operands"], exp["operands"]) == (["input/x"], [0])
    assert add["operands"] == [1, "input/x"]


ENDS = st.floats(width=32, allow_nan=False)


@given(ENDS, ENDS)
def test_overflow_is_what_lies_beyond_the_ends_of_numpys_and_ml_dtypes_formats(
    a: float, b: float
) -> None:
    lo, hi = min(a, b), max(a, b)
    (site,) = told(made({"a": (lo, hi, False)}))["sites"]
    ends = [(float(jnp.finfo(f).min), float(jnp.finfo(f).max)) for f in DEFAULT_FORMATS[:-1]]
    ends.append((float(jnp.iinfo("int8").min), float(jnp.iinfo("int8").max)))
    expected = [i for i, (least, most) in enumerate(ends) if lo < least or hi > most]
    assert site.get("over", []) == expected


def test_integers_are_not_judged_by_formats() -> None:
    (site,) = told(made({"a": (-(2**30), 2**30, False)}, np.int32))["sites"]
    assert "over" not in site and "float" not in site


@pytest.mark.parametrize("count", [1, 5, MOST_POINTS, MOST_POINTS + 1, 1000])
def test_iterations_are_all_there_or_merged_so_many_at_a_time(count: int) -> None:
    x = np.random.default_rng(count).normal(size=count).astype(np.float32)
    _, ranges = jax.vmap(jr.ranges(jnp.negative))(jnp.asarray(x))
    (site,) = told(ranges)["sites"]
    several = math.ceil(count / MOST_POINTS)
    parts = [-x[k : k + several] for k in range(0, count, several)]
    assert site["lead"] == [count] and len(site["each"]) == len(parts) <= MOST_POINTS
    for each, part in zip(site["each"], parts, strict=True):
        ends = np.float32(each["min"]), np.float32(each["max"])
        assert ends == (part.min(), part.max())


def test_nested_iterations_go_by_the_last_axis_first_and_keep_nan_and_the_unseen() -> None:
    x = jnp.array([[1.0, jnp.nan, 3.0], [4.0, 5.0, jnp.inf]])
    _, ranges = jax.vmap(jax.vmap(jr.ranges(jnp.negative)))(x)
    (site,) = told(ranges)["sites"]
    assert [each.get("min") for each in site["each"]] == [
        "-1.0",
        None,
        "-3.0",
        "-4.0",
        "-5.0",
        "-inf",
    ]
    assert site["each"][1] == {"nan": True} and site["lead"] == [2, 3]
    (empty,) = told(jax.vmap(jr.ranges(jnp.negative))(jnp.ones((0, 2)))[1])["sites"]
    assert "each" not in empty and "seen" not in empty


@given(st.lists(st.floats(width=32), min_size=6, max_size=6))
def test_exponents_are_counted_from_the_first_to_the_last_that_there_are(values: Any) -> None:
    x = np.array(values, np.float32)
    stats = (jr.MinMax(), jr.Exponents())
    (site,) = told(jax.vmap(jr.ranges(lambda x: x[None], stats=stats))(jnp.asarray(x))[1])["sites"]
    counts = site["exponents"]
    finite = x[np.isfinite(x) & (x != 0)]
    found = {
        (sign, counts["first"] + k): n
        for sign, side in ((1, "positive"), (-1, "negative"))
        for k, n in enumerate(counts.get(side, []))
        if n
    }
    expected: dict[tuple[int, int], int] = {}
    for value in finite:
        key = (int(np.sign(value)), math.frexp(abs(float(value)))[1] - 1)
        expected[key] = expected.get(key, 0) + 1
    assert found == expected
    others = [counts[name] for name in ("zero", "nan", "pos_inf", "neg_inf")]
    masks = (x == 0, np.isnan(x), x == np.inf, x == -np.inf)
    assert others == [int(mask.sum()) for mask in masks]
    if finite.size:
        sums = np.add(counts["positive"], counts["negative"])
        assert sums[0] and sums[-1]


def test_a_comparison_says_what_jr_diff_says_and_keeps_sites_of_either() -> None:
    before = made({"a": (0.0, 1.0, False), "b": (0.0, 1.0, False), "gone": (-1.0, 500.0, False)})
    after = made({"a": (0.0, 3.0, False), "b": (0.0, 1.0, True), "new": (0.0, 1.0, False)})
    found = told(after, before)
    rows = {row.name: row for row in jr.diff(before, after).rows}
    sites = dict(zip(names_in(found), found["sites"], strict=True))
    assert set(sites) == set(rows) and found["compared"]
    for name, site in sites.items():
        assert tuple(site["changes"]) == rows[name].changes
        assert float(site["score"]) == rows[name].score
    assert sites["a"]["before"] == {"min": "0.0", "max": "1.0"}
    assert "before" not in sites["new"]
    # What is gone was seen before only, and overflows nothing now.
    assert sites["gone"]["before"] == {"min": "-1.0", "max": "500.0"}
    assert not sites["gone"]["seen"] and not sites["gone"]["over"]


def test_ranges_without_values_or_without_min_and_max_are_refused() -> None:
    _, unranged = jr.ranges(jnp.exp, stats=jr.Health())(jnp.ones(2))
    with pytest.raises(ValueError, match=r"MinMax\(\) among their.*without MinMax"):
        unranged.to_html()

    @jax.jit
    def step(x: Any) -> Any:
        with pytest.raises(ValueError, match="these are traced"):
            jr.ranges(jnp.exp)(x)[1].to_html()
        return x

    step(jnp.ones(2))
    with pytest.raises(ValueError, match="at least one format"):
        layers([1.0]).to_html(formats=())
    with pytest.raises(ValueError, match="no format 'float9'"):
        layers([1.0]).to_html(formats=("float9",))


# -- which layer stands out -------------------------------------------------------------------


def test_the_layer_that_stands_out_is_found() -> None:
    found = outlier(rows_of(layers([1.0, 2.0, 90.0, 3.0])))
    assert found is not None
    assert (found.layer, found.site, found.ratio) == ("net/layer_2", 5, 45.0)
    assert (found.index, found.sizes, found.top) == (None, (1.0, 2.0, 90.0, 3.0), 2)


def test_no_layer_stands_out_among_equals_nor_among_two() -> None:
    assert outlier(rows_of(layers([1.0, 1.1, 1.2, 1.0]))) is None
    assert outlier(rows_of(layers([1.0, 90.0]))) is None
    mask = float(np.finfo(np.float32).min)  # in all layers: huge, and no outlier
    masked = {f"layer_{i}/add": (mask, float(i), False) for i in range(5)}
    assert outlier(rows_of(made(masked))) is None


def test_names_that_look_alike_when_printed_are_a_family_in_no_layer() -> None:
    named = {f"a{c}/add": (0.0, size, False) for c, size in (("\n", 1.0), ("\t", 1.0), ("\r", 9.0))}
    found = outlier(rows_of(made(named)))
    assert found is not None and (found.site, found.layer) == (2, "")


def test_an_iteration_of_a_loop_stands_out_too() -> None:
    def deep(x: Any) -> Any:
        steps = jnp.array([1.0, 1.0, 50.0, 1.0])
        return jax.lax.scan(lambda c, s: (c, c * s), x, steps)[1]

    _, ranges = jr.ranges(deep, loops="stack")(jnp.float32(2.0))
    found = outlier(rows_of(ranges))
    assert found is not None
    assert (found.index, found.ratio, found.sizes) == (2, 50.0, (2.0, 2.0, 100.0, 2.0))


def test_what_is_not_finite_is_no_outlier_and_hides_none() -> None:
    sizes = [1.0, math.inf, 2.0, 40.0, 2.0]
    named = {f"l_{i}/add": (0.0, size, size == 2.0) for i, size in enumerate(sizes)}
    found = outlier(rows_of(made(named | {"l_9/add": UNSEEN})))
    assert found is not None
    assert (found.layer, found.ratio) == ("l_3", 20.0)
    assert found.sizes == (1.0, None, 2.0, 40.0, 2.0, None)


def test_families_differ_in_the_numbers_of_their_scopes_only() -> None:
    names = ["l_0/a/add", "l_0/a/add.1", "l_1/a/add", "l_1/b/add", "l_10/a/add", "add", "add.1"]
    rows = rows_of(made(dict.fromkeys(names, (0.0, 1.0, False))))
    assert families(rows) == [[0, 2, 4]]


# -- the text ---------------------------------------------------------------------------------


@given(st.text())
def test_no_text_ends_the_script_that_holds_it(text: str) -> None:
    for hostile in (text, text.join(("</script>", "<!--<script>"))):
        held = embedded({"name": hostile})
        assert not set("<>&") & set(held) and held.isascii()
        assert json.loads(held) == {"name": hostile}


def test_the_page_holds_hostile_names_and_titles_as_data_only() -> None:
    text = page(made(dict.fromkeys(HOSTILE, (0.0, 1.0, False))), title=HOSTILE[0])
    assert text.count("<script") == 2 and text.count("</script>") == 2
    (data,) = re.findall(r'id="document">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["sites"][1]["label"] == HOSTILE[1]
    (title,) = re.findall("<title>(.*)</title>", text)
    assert unescape(title) == HOSTILE[0]


def test_the_page_names_no_address_but_that_of_svg() -> None:
    text = page(layers([1.0, 2.0]))
    assert set(re.findall(r"\w+://[^\s\"'`]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_to_html_returns_the_text_or_writes_it(tmp_path: Path) -> None:
    ranges = layers([1.0, 2.0])
    file = tmp_path / "r.html"
    file.write_text("older")
    assert ranges.to_html(file, title="mine") is None
    assert (
        file.read_text(encoding="utf-8")
        == ranges.to_html(title="mine")
        == page(ranges, title="mine")
    )
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(FileNotFoundError):
        ranges.to_html(tmp_path / "none" / "r.html")


def data_of(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    (data,) = re.findall(r'id="document">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


def test_the_command_line_writes_pages(tmp_path: Path, capsys: Any) -> None:
    old, new, out = (str(tmp_path / name) for name in ("old.json", "new.csv", "r.html"))
    layers([1.0, 2.0]).save(old)
    layers([4.0, 2.0, 1.0]).save(new)
    assert main(["html", old, new, "-o", out]) == 0
    merged = data_of(Path(out))
    assert (len(merged["sites"]), merged["title"], merged["compared"]) == (
        6,
        "old.json, new.csv",
        False,
    )
    line = [
        "html",
        new,
        "--before",
        old,
        "--format",
        "int4",
        "-s",
        "mul",
        "--title",
        "T",
        "-o",
        out,
    ]
    assert main(line) == 0
    moved = data_of(Path(out))
    assert [site["changes"] for site in moved["sites"]] == [["widened"], [], ["appeared"]]
    assert [fmt["name"] for fmt in moved["formats"]] == ["int4"] and moved["title"] == "T"
    assert main(["html", old]) == 0
    assert capsys.readouterr().out.startswith("<!doctype html>")
    assert main(["html", old, "--format", "float9"]) == 2
    assert "no format 'float9'" in capsys.readouterr().err


# -- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    yield from started(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def shown(chromium: Chromium, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of ranges; whatever the test does, the page must not complain or ask."""
    file = tmp_path / "page.html"

    def show(ranges: jr.Ranges, **options: Any) -> Chromium:
        sizes = {name: options.pop(name) for name in ("width", "dark") if name in options}
        ranges.to_html(file, **options)
        chromium.show(file, **sizes)
        return chromium

    yield show
    assert chromium.complaints() == []
    assert set(chromium.requests(file)) <= {file.as_uri(), "data:,"}


LABELS = "#body tr:not(.blank) td.name .label"
PROGRAM_SITES = 12


def program() -> jr.Ranges:
    """Forward and backward, three dtypes, a NaN, an infinity, one not observed, an outlier."""
    model = {
        f"net/layer_{i}/{op}": (-1.0 - i, 2.0, False) for i in range(3) for op in ("dot", "add")
    }
    model["net/layer_1/square"] = (0.0, 5000.0, False)
    model["net/head/log"] = (-math.inf, 2.0, True)
    model["net/head/never"] = UNSEEN
    other = made({"index/iota": (0, 99, False)}, np.int32)
    half = made({"net/head/cast": (0.0, 100.0, False)}, np.float16)
    back = Site(
        "transpose(jvp(net))/head/neg",
        "neg",
        0,
        (),
        np.dtype("f4"),
        "/home/me/m.py:7",
        backward=True,
    )
    stat = MinMax()
    state: Any = {
        stat: stat.state(np.float32(-3), np.float32(7), np.asarray(False), back.dtype, np)
    }
    found = made(model) | other | half | from_states([back], [state])
    assert len(found) == PROGRAM_SITES
    return found


def sites_in(page: Chromium) -> list[str]:
    return page.texts("#body tr:not(.blank) td.name")


def test_a_page_opens_and_says_what_overflows_and_which_layer_stands_out(shown: Any) -> None:
    page = shown(layers([1.0, 900.0, 3.0, 2.0]), title="A model")
    assert page.text("#title") == "A model" and "8 operations" in page.text("#subtitle")
    figures = page.texts(".format .figure")
    assert figures == ["▲ 1", "✓ 0", "✓ 0", "✓ 0", "▲ 1"]
    card = page.text("#outlier")
    assert "net/layer_1" in card and "450× the median of the 3 others" in card
    page.click(".format", "float8_e4m3fn")
    assert sites_in(page) == ["net/layer_1/mlp/mul"]
    assert page.text("#count") == "1 of 8"
    page.click("#outlier")
    assert "net/layer_1/mlp/mul" in page.text("#details h2")


def test_columns_sort_both_ways_and_then_not_at_all(shown: Any) -> None:
    ranges = program()
    page = shown(ranges)
    in_program = sites_in(page)
    assert in_program == list(ranges)
    known = [(row.max, row.name) for row in rows_of(ranges) if row.max is not None]
    page.click("th button", "Max")
    assert page.attribute("th:has(.arrow:not(:empty))", "aria-sort") == "descending"
    largest = [name for _, name in sorted(known, key=lambda pair: -pair[0])]
    assert sites_in(page)[: len(known)] == largest
    assert sites_in(page)[-1] == "net/head/never"  # what has no numbers is last either way
    page.click("th button", "Max")
    assert sites_in(page)[: len(known)] == [name for _, name in sorted(known, key=lambda p: p[0])]
    assert sites_in(page)[-1] == "net/head/never"
    page.click("th button", "Max")
    assert sites_in(page) == in_program
    page.click("th button", "Operation")
    assert sites_in(page) == sorted(in_program)


def test_search_and_filters_narrow_and_clear(shown: Any) -> None:
    page = shown(program())
    page.click("#search")
    page.type("layer_1 d")
    assert sites_in(page) == ["net/layer_1/dot", "net/layer_1/add"]
    page.click("#clear")
    assert len(sites_in(page)) == PROGRAM_SITES and not page.visible("#clear")
    for menu, value, expected in (
        ("#primitive", "dot", [f"net/layer_{i}/dot" for i in range(3)]),
        ("#dtype", "i32", ["index/iota"]),
        ("#direction", "backward", ["transpose(jvp(net))/head/neg"]),
        ("#only", "trouble", ["net/head/log"]),
        ("#only", "unseen", ["net/head/never"]),
        ("#only", "over", ["net/layer_1/square", "net/head/log"]),
    ):
        page.choose(menu, value)
        assert sites_in(page) == expected, (menu, value)
        page.click("#clear")
    page.click("#search")
    page.type("nothing has this name")
    assert page.visible("#nothing") and page.text("#count") == f"0 of {PROGRAM_SITES}"
    page.click("#clear-nothing")
    assert len(sites_in(page)) == PROGRAM_SITES
    page.click("#search")
    page.type("m.py:7")  # sources are searched, too
    assert sites_in(page) == ["transpose(jvp(net))/head/neg"]


def branch(label: str) -> str:
    return f'#tree li[title^="{label}:"]'


def test_branches_close_and_still_say_what_is_worst_inside(shown: Any) -> None:
    page = shown(program())
    assert page.visible(branch("net/layer_1"))
    page.click(f"{branch('net')} .knob")
    assert not page.visible(branch("net/layer_1"))
    assert page.attribute(branch("net"), "aria-expanded") == "false"
    closed = page.text(branch("net"))
    for worst in ("NaN", "∞", "▲2", "5000"):
        assert worst in closed
    page.click(f"{branch('net')} .knob")
    assert page.attribute(branch("net"), "aria-expanded") == "true"
    page.click(branch("net/layer_1"))
    assert [name.split("/")[-1] for name in sites_in(page)] == ["dot", "add", "square"]
    page.click(branch("net/layer_1"))
    assert len(sites_in(page)) == PROGRAM_SITES
    page.click("#close-all")
    assert page.texts("#tree .label") == ["all", "net", "index", "transpose(jvp(net))/head"]
    page.click("#open-all")
    assert len(page.texts("#tree .label")) == 1 + 7


def test_details_show_exact_numbers_formats_and_the_way_to_neighbours(shown: Any) -> None:
    def model(x: Any) -> Any:
        with jax.named_scope("a"):
            y = jnp.exp(x)
        return y * 0.1

    _, ranges = jr.ranges(model)(jnp.array([0.1, 7.0]))
    page = shown(ranges)
    page.click("#body tr", "exp")
    details = page.text("#details")
    exact = told(ranges)["sites"][0]["seen"]
    assert exact["min"] in details and exact["max"] in details
    assert "float8_e4m3fn\t▲ 2.4× too large" in details and "float8_e5m2\t✓ fits" in details
    assert "input/x" in details and f"{Path(__file__).name}:" in details
    page.click("#details button.link", "mul")
    assert page.text("#details h2") == "mul"
    page.click("#close")
    assert not page.visible("#details")


def test_arguments_are_found_by_their_paths_and_are_in_the_details(shown: Any) -> None:
    dense = jr.ranges(lambda params, x: jnp.exp(x @ params["kernel"].T))
    page = shown(dense({"kernel": jnp.ones((2, 3))}, jnp.ones((4, 3)))[1])
    page.click("#search")
    page.type("params/kernel")
    assert sites_in(page) == ["transpose", "dot_general"]
    page.click("#body tr", "dot_general")
    assert page.texts("#details section:has(h3) .links li")[:2] == ["x", "params/kernel"]


def test_the_keyboard_does_it_all(shown: Any) -> None:
    page = shown(program())
    names = sites_in(page)
    page.press("/")
    assert page.do("return document.activeElement.id") == "search"
    page.type("layer")
    page.press("Enter", "ArrowDown", "ArrowDown", "ArrowUp", "Enter")
    assert page.do("return document.querySelector('#details h2').textContent") == "net/layer_0/add"
    assert page.do("return document.activeElement.id") == "close"
    page.press("Escape")
    assert not page.visible("#details") and page.attribute("#search", "value") is None
    page.press("Escape")
    assert sites_in(page) == names
    page.press("End")
    active = page.attribute("#scroller", "aria-activedescendant")
    assert page.do("return document.getElementById(arguments[0]).matches('.active')", active)
    page.press("t", "ArrowDown", "ArrowLeft")
    assert page.attribute(branch("net"), "aria-expanded") == "false"
    page.press("ArrowRight", "ArrowDown", "Enter")
    assert page.text("#count") == f"2 of {PROGRAM_SITES}"
    page.press("?")
    assert page.visible("#keys")
    page.press("Escape")
    assert not page.visible("#keys")
    assert page.text("#count") == f"2 of {PROGRAM_SITES}"  # closing the help closes nothing else


def test_a_button_that_draws_the_page_anew_keeps_the_focus(shown: Any) -> None:
    page = shown(layers([1.0, 900.0, 3.0, 2.0]))
    focus = "document.querySelectorAll(arguments[0])[arguments[1]].focus()"
    focused = "return [...document.querySelectorAll(arguments[0])].indexOf(document.activeElement)"
    for buttons, which in ((".format", 4), ("th button", 1)):
        page.do(focus, buttons, which)
        page.press("Enter")
        assert page.do(focused, buttons) == which
    assert page.attribute(".format:nth-child(5)", "aria-pressed") == "true"
    page.click(f"{branch('net')} .knob")
    assert page.do("return document.activeElement.id") == "tree"


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_dark_or_light_as_the_reader_prefers_and_as_it_is_told(
    shown: Any, dark: bool
) -> None:
    page = shown(layers([1.0, 2.0]), dark=dark)
    paper = "return getComputedStyle(document.body).backgroundColor"
    assert is_dark(page.do(paper)) == dark
    page.click("#theme")
    assert is_dark(page.do(paper)) != dark
    page.press("d")
    assert is_dark(page.do(paper)) == dark


def is_dark(colour: str) -> bool:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128


def test_nan_infinities_and_the_unseen_are_said_in_words_and_signs(shown: Any) -> None:
    page = shown(program())
    lines = dict(zip(sites_in(page), page.texts("#body tr:not(.blank)"), strict=True))
    assert "NaN" in lines["net/head/log"] and "∞" in lines["net/head/log"]
    assert "not observed" in lines["net/head/never"]
    assert "▲" in lines["net/layer_1/square"] and "▲" not in lines["net/layer_1/dot"]
    assert "↩" in lines["transpose(jvp(net))/head/neg"]
    assert page.do("return document.querySelectorAll('#body tr.unseen').length") == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_names_are_shown_as_text(shown: Any, width: int) -> None:
    ranges = made({f"{name}/add": (0.0, 1000.0, False) for name in HOSTILE})
    page = shown(ranges, title=HOSTILE[1], width=width)
    page.click("#body tr", "add")
    assert page.do("return window.hacked") is None
    assert page.text("#title") == HOSTILE[1]
    drawn = {site.rpartition("/")[0] for site in sites_in(page)}
    shown_names = {row.scope for row in rows_of(ranges)}
    assert drawn == shown_names and HOSTILE[0] in drawn
    assert page.do("return document.querySelectorAll('main img, main script').length") == 0
    assert page.do("return document.documentElement.scrollWidth <= innerWidth")


def test_a_script_that_is_not_the_pages_own_does_not_run(shown: Any, chromium: Chromium) -> None:
    page = shown(layers([1.0]))
    add = "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; "
    page.do(add + "document.body.append(s)")
    assert page.do("return window.hacked") is None
    (refused,) = chromium.complaints()
    assert "Content Security Policy" in refused


def many(count: int) -> jr.Ranges:
    ops = ("dot_general", "add", "mul", "exp", "sub")
    named = {
        f"net/block_{i // 50}/{ops[i % 5]}.{i % 50}": (-(i % 37) - 1.0, i + 1.0, i % 999 == 0)
        for i in range(count)
    }
    return made(named)


def test_of_ten_thousand_sites_only_those_in_view_are_in_the_document(shown: Any) -> None:
    page = shown(many(10_000))
    assert page.text("#count") == "10,000 operations"
    assert 20 < len(sites_in(page)) < 60
    page.do("document.getElementById('scroller').focus()")
    page.press("End")
    page.settle()
    assert sites_in(page)[-1] == "net/block_199/sub.49" and len(sites_in(page)) < 60
    page.click("th button", "Max")
    assert sites_in(page)[0] == "net/block_199/sub.49"
    page.click("#search")
    page.type("block_7/ exp")
    assert page.text("#count") == "10 of 10,000"
    assert page.attribute("#scroller", "aria-rowcount") == "11"


# What the first line of the heat map says at each pixel of its width.
HOVER = """
const strip = document.querySelector("#body .strip"), box = strip.getBoundingClientRect();
return Array.from({length: strip.clientWidth}, (_, x) => {
    strip.dispatchEvent(new MouseEvent("mousemove", {clientX: box.left + x}));
    return strip.title;
})"""


def test_a_heat_map_is_there_where_exponents_were_counted(shown: Any) -> None:
    stats = (jr.MinMax(), jr.Exponents())
    _, ranges = jr.ranges(lambda x: (x * 2.0, x > 0), stats=stats)(jnp.array([0.0, 1.0, 3.0, 3.5]))
    page = shown(ranges)
    page.press("h")
    assert page.attribute("#view-heat", "aria-pressed") == "true"
    hovered = {text.split("\n")[1] for text in page.do(HOVER)}
    assert hovered == {"0 values, 0%", "1 values, 25%", "2 values, 50%"}  # none; 2; 6 and 7
    assert "zero: 1 (25%)" in (page.attribute("#body .zeros", "title") or "")
    page.click("#body tr", "mul")
    assert "4 values, 1 zero" in page.text("#details")
    page.click("#view-range")
    assert page.do("return document.querySelectorAll('#body .strip').length") == 0


def test_no_heat_map_is_offered_where_nothing_was_counted(shown: Any) -> None:
    page = shown(layers([1.0]))
    assert not page.visible("#view-heat")
    page.press("h")
    assert page.do("return document.querySelectorAll('#body .strip').length") == 0


def test_stacked_loops_are_drawn_by_iteration(shown: Any) -> None:
    def deep(x: Any) -> Any:
        steps = jnp.array([1.0, -1.0, 500.0, jnp.nan, 1.0])
        return jax.lax.scan(lambda c, s: (c, c * s), x, steps)[1]

    _, ranges = jr.ranges(deep, loops="stack")(jnp.float32(2.0))
    page = shown(ranges)
    assert "index 2" in page.text("#outlier")
    assert page.do("return document.querySelectorAll('#body .each i').length") == 5
    page.click("#outlier")
    titles = page.texts("#details svg g title")
    expected = [
        "0: 2.0 to 2.0",
        "1: -2.0 to -2.0",
        "2: 1000.0 to 1000.0",
        "3: only NaN",
        "4: 2.0 to 2.0",
    ]
    assert titles == expected
    assert page.texts("#details svg text") == ["NaN"]


def test_more_iterations_than_points_are_drawn_several_at_a_time(shown: Any) -> None:
    x = np.ones(1000, np.float32)
    x[777] = 64.0
    page = shown(jax.vmap(jr.ranges(jnp.exp2))(jnp.log2(jnp.asarray(x)))[1])
    card = page.text("#outlier")
    assert "index 777" in card and "64× the median of the 999 others" in card
    page.click("#outlier")
    titles = page.texts("#details svg g title")
    assert len(titles) == 250 and titles[777 // 4] == "776–779: 1.0 to 64.0"


def test_unsigned_formats_say_what_is_below_zero(shown: Any) -> None:
    page = shown(made({"a": (-1.0, 2.0, False), "b": (-1.0, 300.0, False)}), formats=["uint8"])
    assert page.texts(".format .figure") == ["▲ 2"]
    page.click("#body tr", "a")
    assert "uint8\t▲ below zero" in page.text("#details")
    page.click("#body tr", "b")
    assert "uint8\t▲ 1.2× too large" in page.text("#details")


def test_a_comparison_shows_what_moved_the_worst_first(shown: Any) -> None:
    before = made({"a/x": (0.0, 1.0, False), "a/y": (0.0, 1.0, False), "gone": (0.0, 9.0, False)})
    after = made({"a/x": (0.0, 1.0, False), "a/y": (0.0, 3.0, False)})
    page = shown(after, before=before)
    assert sites_in(page) == ["gone", "a/y", "a/x"]
    assert "went" in page.text("#outlier")
    page.choose("#only", "changed")
    assert sites_in(page) == ["gone", "a/y"]
    page.click("#body tr", "y")
    details = page.text("#details")
    assert "widened, score 2" in details and "0.0 to 1.0" in details and "0.0 to 3.0" in details
    assert page.do("return document.querySelectorAll('#details .bar .before').length") == 1


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280, 1920])
def test_nothing_is_wider_than_the_window(shown: Any, width: int) -> None:
    page = shown(program(), width=width)
    assert page.do("return document.documentElement.scrollWidth <= innerWidth")
    assert page.visible(".format") and page.visible("#outlier") and page.visible("#table")
    page.click("#body tr", "square")
    assert page.visible("#details h2")
    assert page.do("return document.documentElement.scrollWidth <= innerWidth")


def test_an_empty_program_has_a_page(shown: Any) -> None:
    page = shown(jr.ranges(lambda x: x)(jnp.ones(2))[1])
    assert page.text("#count") == "0 operations"
