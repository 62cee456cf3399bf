"""Diff: what happened at each site, its score, its laws, and its texts word for word.

The golden texts are made anew with `UPDATE_GOLDEN=1 pytest tests/test_diff.py`.
"""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.diff import KINDS, Diff, diff
from jax_ranges.ranges import from_states
from jax_ranges.report.diff_table import diff_table
from jax_ranges.report.tables import plain
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, extrema_of
from tests.compare import assert_golden

INF, NAN = math.inf, math.nan
FLOAT64 = np.dtype(np.float64)


def made(sites, dtype=FLOAT64):
    """Ranges of these values, by name; each name may have a dtype of its own: `(values, dtype)`."""
    pairs = {k: v if isinstance(v, tuple) else (v, dtype) for k, v in sites.items()}
    arrays = [np.asarray(values, np.float64).astype(own) for values, own in pairs.values()]
    listed = [
        Site(
            name, name.rpartition("/")[2], 0, (2,), array.dtype, "/home/somebody/model/layers.py:8"
        )
        for name, array in zip(pairs, arrays, strict=True)
    ]
    return from_states(listed, [{MinMax(): extrema_of(array)} for array in arrays])


def of_one(a, b, dtype=FLOAT64):
    (row,) = diff(made({"x": a}, dtype), made({"x": b}, dtype)).rows
    return row


# -- what happened ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "changes", "score"),
    [
        ([0, 10], [0, 10], (), 0),
        ([0, 10], [0, 10.1], ("widened",), 0.01),
        ([-10, 10], [-10.1, 10], ("widened",), 0.01),
        ([-10, 2], [-10, 2.1], ("widened",), 0.01),
        ([-10, 10], [-30, 20], ("widened",), 2),
        ([0, 10], [1, 9], ("narrowed",), 0),
        ([100, 110], [105, 121], ("shifted",), 0.1),
        ([5, 5], [5, 5.05], ("widened",), 0.01),
        ([5, 5], [6, 6], ("shifted",), 0.2),
        ([0, 0], [1, 1], ("shifted",), 1),
        ([0, 0], [0, 1e-300], ("widened",), 1),
        ([0.0], [-0.0], (), 0),
        ([1, 2], [1, NAN], ("nan appeared", "narrowed"), INF),
        ([1, NAN], [1, 1], ("nan gone",), 0),
        ([NAN], [1, 1], ("widened", "nan gone"), INF),
        ([1, 1], [NAN], ("nan appeared", "narrowed"), INF),
        ([1, 2], [1, INF], ("inf appeared", "widened"), INF),
        ([-INF, 2], [1, 2], ("narrowed", "inf gone"), 0),
        ([-INF, 2], [2, INF], ("inf appeared", "shifted", "inf gone"), INF),
        ([-INF, 4], [-INF, 5], ("widened",), 0.25),
        ([INF], [3, INF], ("widened",), INF),
        ([], [1, 2], ("now observed",), INF),
        ([], [NAN], ("nan appeared", "now observed"), INF),
        ([1, INF, NAN], [], ("no longer observed",), 0),
        ([], [], (), 0),
        ([-1e308, 1e308], [-1.5e308, 1e308], ("widened",), 0.5),
        ([5e-324], [1e308], ("shifted",), 1.7976931348623157e308),
        ([1e308], [np.nextafter(1e308, 2e308)], ("shifted",), 2**-52),
    ],
)
def test_what_happened_and_how_much(a, b, changes, score):
    row = of_one(a, b)
    assert row.changes == changes
    assert row.score == pytest.approx(score, rel=0.3 if 0 < score < 1e-9 else 1e-12)


def test_integers_are_compared_exactly():
    before, after = ([np.uint64(2**63)], [np.uint64(2**63 + 1)])
    site = Site("x", "add", 0, (), np.dtype(np.uint64))
    a, b = (from_states([site], [{MinMax(): extrema_of(np.array(x))}]) for x in (before, after))
    (row,) = diff(a, b).changed
    assert 0 < row.score < 2e-19
    assert of_one([0, 1], [0, 1], np.dtype(bool)).changes == ()
    assert of_one([0, 0], [0, 1], np.dtype(bool)).score == 1


def test_sites_of_one_side_only_and_other_dtypes():
    a = made({"same": [1], "gone": [1], "half": ([1], np.float32)})
    b = made({"new": [1], "same": [1], "half": ([1], np.float16)})
    found = diff(a, b)
    assert [(row.name, row.changes, row.score) for row in found.rows] == [
        ("new", ("appeared",), INF),
        ("gone", ("went",), INF),
        ("half", ("other dtype",), 0),
        ("same", (), 0),
    ]
    assert [row.name for row in found.changed] == ["new", "gone", "half"]
    assert [row.name for row in found.violations] == ["new", "gone"]


def test_rows_are_ranked_by_score_then_by_what_is_worse_then_in_program_order():
    a = made({"a": [1], "b": [1], "c": [1], "d": [1], "e": [2], "f": [1]})
    b = made({"a": [1], "b": [1.5], "c": [INF], "d": [NAN], "e": [3], "f": [9]})
    assert [row.name for row in diff(a, b).rows] == ["d", "c", "f", "b", "e", "a"]


def test_leading_axes_are_merged_and_files_are_read(tmp_path):
    xs = jnp.array([1.0, 2.0, 30.0])
    stacked = jax.vmap(jr.ranges(jnp.negative))(xs)[1]
    _, merged = jr.ranges(jnp.negative)(xs)
    assert not diff(stacked, merged).changed
    for name in ("r.json", "r.csv", "r.txt"):
        stacked.save(tmp_path / name)
        assert not diff(tmp_path / name, str(tmp_path / name)).changed
        assert not diff(merged, tmp_path / name).changed


def test_the_threshold_is_a_score():
    a, b = made({"x": [10], "y": [10]}), made({"x": [11], "y": [12]})
    found = diff(a, b, threshold=0.15)
    assert [row.name for row in found.violations] == ["y"]
    assert len(found.exceeds(0.0)) == 2
    assert not found.exceeds(0.2)
    for wrong in (-1.0, NAN):
        with pytest.raises(ValueError, match=f"the threshold is a score.*got {wrong}"):
            diff(a, b, threshold=wrong)


def test_a_program_can_read_it():
    found = diff(made({"x": [1], "y": [1]}), made({"x": [NAN, INF], "z": [2]}), threshold=0.5)
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["violations"] == 3
    assert read["sites"] == 3
    assert read["changed"][0] == {
        "name": "x",
        "changes": ["nan appeared", "inf appeared", "shifted"],
        "score": "inf",
        "before": {"min": 1.0, "max": 1.0, "nan": False, "observed": True, "dtype": "float64"},
        "after": {"min": "inf", "max": "inf", "nan": True, "observed": True, "dtype": "float64"},
    }
    assert [row["before"] is None for row in read["changed"]] == [False, True, False]


# -- the laws ---------------------------------------------------------------------------------

NUMBERS = st.lists(st.floats() | st.sampled_from([0.0, 1.0, -1.0, INF, -INF, NAN]), max_size=4)
PROGRAMS = st.dictionaries(st.sampled_from("abcdef"), NUMBERS)
OPPOSITE = {
    "appeared": "went",
    "nan appeared": "nan gone",
    "inf appeared": "inf gone",
    "now observed": "no longer observed",
    "widened": "narrowed",
    "shifted": "shifted",
    "other dtype": "other dtype",
}
OPPOSITE |= {after: before for before, after in OPPOSITE.items()}


@given(PROGRAMS)
def test_nothing_happens_between_equals(sites):
    ranges = made(sites)
    found = diff(ranges, ranges)
    assert (found.changed, found.violations, len(found.rows)) == ((), (), len(sites))


@given(PROGRAMS, PROGRAMS)
def test_the_other_way_round_the_opposite_happens(a, b):
    there = {row.name: row for row in diff(made(a), made(b)).rows}
    back = {row.name: row for row in diff(made(b), made(a)).rows}
    assert there.keys() == back.keys() == a.keys() | b.keys()
    for name, row in there.items():
        observed = all(record is None or record.observed for record in (row.before, row.after))
        if observed:  # with "no longer observed" all else is gone, and is not told
            assert {OPPOSITE[change] for change in row.changes} == set(back[name].changes)
        assert (row.before, row.after) == (back[name].after, back[name].before)
        assert bool(row.changes) == bool(back[name].changes)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_larger_range_scores_no_less(a, b, more):
    assert of_one(a, b).score <= of_one(a, b + more).score


@given(NUMBERS, NUMBERS)
def test_scores_are_numbers_and_only_growth_has_one(a, b):
    row = of_one(a, b)
    assert row.score >= 0
    assert list(row.changes) == sorted(row.changes, key=KINDS.index)
    inside = not diff(made({"x": a}), made({"x": a}) | made({"x": b})).changed
    assert (row.score == 0) == inside
    growth = {"widened", "shifted", "nan appeared", "inf appeared", "now observed"}
    assert (row.score > 0) == bool(growth & set(row.changes))


@given(NUMBERS, NUMBERS)
def test_a_finite_growth_has_a_finite_score(a, b):
    a, b = ([x for x in xs if math.isfinite(x)] for xs in (a, b))
    assume(a)
    assert math.isfinite(of_one(a, b).score)


SMALL = st.lists(st.floats(-1000, 1000, width=16, allow_subnormal=False), min_size=1, max_size=4)


@given(SMALL, SMALL, st.integers(-100, 100))
def test_scores_do_not_depend_on_the_scale(a, b, exponent):
    scaled = [[math.ldexp(x, exponent) for x in xs] for xs in (a, b)]
    assert of_one(*scaled).score == of_one(a, b).score


@given(SMALL, st.floats(0.01, 100))
def test_so_much_outside_scores_so_much(a, part):
    top = max(map(abs, a))
    assume(top > 0)
    assert of_one(a, [max(a) + part * top]).score == pytest.approx(part)
    assert of_one(a, [min(a) - part * top]).score == pytest.approx(part)


# -- texts ------------------------------------------------------------------------------------

SCOPE = "Encoder/layer_0/attention_of_many_heads"


@pytest.fixture(scope="module")
def moved() -> Diff:
    a = {
        "input/x": [-1, 1],
        f"{SCOPE}/dot_general": ([-3.25, 4], np.float32),
        f"{SCOPE}/exp": [0, 1],
        f"{SCOPE}/div": [0, 1],
        f"{SCOPE}/mul": ([1.00001, 2], np.float32),
        "Encoder/layer_1/add": [-2, 2],
        "Encoder/layer_1/log": [-INF, 2, NAN],
        "cond/branch_0/mul": [1, 2],
        "cond/branch_1/mul": [],
        "old": [NAN],
    }
    b = {
        "input/x": [-1, 1],
        f"{SCOPE}/dot_general": ([-3.25, 4.5], np.float16),
        f"{SCOPE}/exp": [0, INF],
        f"{SCOPE}/div": [0, 1, NAN],
        f"{SCOPE}/mul": ([1.00002, 2], np.float32),
        "Encoder/layer_1/add": [-2.01, 1e-3],
        "Encoder/layer_1/log": [-1, 1],
        "cond/branch_0/mul": [],
        "cond/branch_1/mul": [-1.5, 1e6],
        "a new\x1b[31mone": [5],
    }
    return diff(made(a), made(b), threshold=0.1)


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_is_this_text(moved, width):
    assert_golden(f"diff_{width}.txt", plain(moved, width))


@pytest.mark.parametrize("width", [*range(1, 60, 7), 80, 100, 160, 400])
def test_it_fits_any_width(moved, width):
    lines = plain(diff_table(moved, limit=3), width).split("\n")
    assert max(map(len, lines)) <= max(width, 20)


def test_a_limit_says_what_is_left_out(moved):
    text = plain(diff_table(moved, limit=2), 80)
    assert "… 8 more" in text
    assert len(text.split("\n")) < len(plain(moved, 80).split("\n"))


def test_its_repr_is_plain_text(moved):
    text = repr(moved)
    assert text.startswith("Diff: 10 of 11 sites changed · 6 beyond 0.1 · 1 nan appeared")
    assert "\x1b" not in text
    same = made({"x": [1]})
    assert repr(diff(same, same)) == "Diff: 0 of 1 site changed · 0 beyond 0"
    assert plain(diff(same, same), 80) == "0 of 1 site changed · 0 beyond 0"


def test_names_of_wide_characters_keep_their_ends():
    name = "漢字" * 40 + "/add"
    text = plain(diff(made({name: [1]}), made({name: [2]})), 80)
    assert "…/add" in text
