"""Files: exact round trips in three formats, clear errors, and writing that loses nothing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

import jax_ranges as jr
from jax_ranges.diff import diff
from jax_ranges.files import LossWarning, rendered, save
from jax_ranges.ranges import from_states
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, extrema_of
from values import NARROW, WIDE, is_complex, is_float, random_array, specials

ENDINGS = (".json", ".csv", ".txt")
FLOAT32 = np.dtype(np.float32)
FLT_MAX = np.finfo(np.float32).max


def made(arrays, names=None):
    """Ranges of these arrays, also of dtypes that JAX has only with x64."""
    names = names or [f"site_{i}" for i in range(len(arrays))]
    sites = [Site(n, "add", 0, a.shape, a.dtype) for n, a in zip(names, arrays, strict=True)]
    return from_states(sites, [{MinMax(): extrema_of(a)} for a in arrays])


def written_and_read(ranges, file, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        save(ranges, file, **options)
    return jr.load(file)


def in_six_words(ranges):
    """What text holds of ranges: the finite float32 that are nearest, and nothing of NaN."""
    states = []
    for site in ranges.sites:
        found = ranges[site.name]
        lo, hi = (np.array(x).astype(np.float64) for x in (found.min, found.max))
        with np.errstate(over="ignore"):
            seen = np.float32([lo, hi] if found.min <= found.max else [])
        states.append({MinMax(): extrema_of(np.clip(seen, -FLT_MAX, FLT_MAX))})
    return from_states([replace(site, dtype=FLOAT32) for site in ranges.sites], states)


def held_by(ending, ranges):
    return in_six_words(ranges) if ending == ".txt" else ranges


def assert_same(loaded, ranges):
    """min, max and nan bit for bit: -0.0 is not 0.0."""
    assert list(loaded) == list(ranges)
    for name, site, other in zip(ranges, ranges.sites, loaded.sites, strict=True):
        assert (other.dtype, other.primitive, other.output) == (
            *(site.dtype, site.primitive, site.output),
        )
        for mine, theirs in zip(*map(jax.tree.leaves, (ranges[name], loaded[name])), strict=True):
            assert mine.dtype == theirs.dtype
            assert np.asarray(mine).tobytes() == np.asarray(theirs).tobytes(), (name, site.dtype)


# -- round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [*NARROW, *WIDE], ids=str)
def test_every_dtype_comes_back_exactly(tmp_path, dtype, ending):
    rng = np.random.default_rng(0)
    arrays = [random_array(dtype, (size,), rng) for size in (1, 1, 1, 1, 2, 2, 3, 5, 0)]
    if not is_complex(dtype) and (is_float(dtype) or dtype == np.float64):
        arrays += [specials(dtype)[[i]] for i in range(len(specials(dtype)))] + [specials(dtype)]
    loaded = written_and_read(made(arrays), tmp_path / f"r{ending}")
    assert_same(loaded, held_by(ending, made(arrays)))
    assert_same(written_and_read(loaded, tmp_path / f"again{ending}"), loaded)


@pytest.mark.parametrize("ending", ENDINGS)
@given(st.lists(st.floats(width=32), max_size=4), st.lists(st.floats(), max_size=4))
def test_all_floats_come_back_exactly(tmp_path_factory, ending, narrow, wide):
    ranges = made([np.array(narrow, np.float32), np.array(wide, np.float64)])
    loaded = written_and_read(ranges, tmp_path_factory.mktemp("f") / f"r{ending}")
    assert_same(loaded, held_by(ending, ranges))


@pytest.mark.parametrize("ending", [".json", ".csv"])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_the_ends_of_64_bits_come_back_exactly(tmp_path, ending, dtype):
    info = np.iinfo(dtype)
    values = [info.min, info.min + 1, 2**53 + 1, info.max - 1, info.max]
    if dtype == np.uint64:
        values.append(2**63 + 1)
    ranges = made([np.array([value], dtype) for value in values])
    loaded = written_and_read(ranges, tmp_path / f"r{ending}")
    assert [int(loaded[name].max) for name in loaded] == values


def test_text_that_is_read_by_way_of_float64_is_not_the_neighbour(tmp_path):
    """The shortest digits of this float32, 7.038531e-26, are; they need to be longer."""
    value = np.uint32(0x15AE43FD).view(np.float32)
    assert np.float32(float(str(value))) != value
    ranges = made([np.array([value])])
    for ending in ENDINGS:
        assert_same(written_and_read(ranges, tmp_path / f"r{ending}"), ranges)


def model(x):
    def step(carry, x):
        return carry + x, jnp.log(x)

    with jax.named_scope("two words"):
        (a, b), c = lax.sort((x, -x)), lax.sort(x)
    with jax.named_scope("50%"):
        d = lax.cond(x[0] > 100.0, lambda: x * 2, lambda: x / 2)
    return a, b, c, d, lax.scan(step, x[0], x)


def measured(**options):
    x = jnp.array([0.5, -2.0, 8.0])
    return jr.ranges(jax.grad(lambda x: jnp.sum(jax.tree.leaves(model(x))[0])), **options)(x)[1]


@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_leading_axes_are_merged_where_a_line_has_no_place_for_them(tmp_path, ending):
    stacked = jr.ranges(model, loops="stack")(jnp.array([0.5, -2.0, 8.0]))[1]
    assert stacked["scan/log"].max.shape == (3,)
    merged = held_by(ending, stacked.reduce())
    assert_same(written_and_read(stacked, tmp_path / f"r{ending}"), merged)
    assert_same(written_and_read(stacked, tmp_path / "r.json"), stacked)
    none = jax.tree.map(lambda leaf: leaf[:0], jax.vmap(jr.ranges(jnp.sin))(jnp.ones(2))[1])
    assert not written_and_read(none, tmp_path / f"n{ending}")["sin"].observed
    zeros = jax.vmap(jr.ranges(jnp.negative))(jnp.array([0.0, -0.0, 0.0]))[1]
    assert_same(written_and_read(zeros, tmp_path / f"z{ending}"), zeros.reduce())


@pytest.mark.parametrize("ending", [".csv", ".txt"])
def test_what_the_formats_know_of_a_site(tmp_path, ending):
    ranges = measured(inputs=True)
    loaded = written_and_read(ranges, tmp_path / f"r{ending}")
    assert any(site.backward for site in ranges.sites)
    for site, other in zip(ranges.sites, loaded.sites, strict=True):
        assert (other.name, other.backward) == (site.name, site.backward)
        if ending == ".csv":
            assert (other.shape, other.source) == (site.shape, site.source)
        else:
            assert (other.shape, other.source, other.operands) == ((), "", ())


AWKWARD = ["a b", "a%20b", "a\tb", "a\rb", "a\nb", 'a"b', "a,b", "a;b", "a|b", "ä/é", "\u2028", "~"]
AWKWARD += ["", "%", "\ud800", "\\ud800", "\\uud800", "\udfff\ud800", "\x00", "\x1c", "\x85", "-"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("delimiter", [" ", "\t", ",", ", ", "|", "~", "||", " | "])
def test_awkward_names_come_back_with_any_delimiter(tmp_path, ending, delimiter):
    ranges = made([np.ones(1, np.float32)] * len(AWKWARD), AWKWARD)
    assert_same(written_and_read(ranges, tmp_path / f"r{ending}", delimiter=delimiter), ranges)


# Surrogates too, but for pairs in the right order: JSON makes one character of those.
ANY_TEXT = st.text(st.characters(exclude_categories=())).filter(
    lambda text: not re.search("[\ud800-\udbff][\udc00-\udfff]", text)
)


@pytest.mark.parametrize("ending", ENDINGS)
@given(st.lists(ANY_TEXT, unique=True, min_size=1), ANY_TEXT, st.sampled_from([" ", "\t", ","]))
def test_any_name_comes_back(tmp_path_factory, ending, names, primitive, delimiter):
    sites = [Site(name, primitive, 0, (), FLOAT32, source=primitive) for name in names]
    ranges = from_states(sites, [{MinMax(): extrema_of(np.ones(1, np.float32))}] * len(sites))
    file = tmp_path_factory.mktemp("n") / f"r{ending}"
    loaded = written_and_read(ranges, file, delimiter=delimiter)
    assert_same(loaded, ranges)
    if ending != ".txt":
        assert {site.source for site in loaded.sites} == {primitive}
    elif delimiter != ",":
        lines = file.read_bytes().decode().split("\n")[:-1]
        assert {len(words_of(line)) for line in lines} == {6}


def words_of(line):
    """The words that C++ reads with `>>`."""
    return [word for word in re.split("[ \t\v\f\r\n]+", line) if word]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_sites_are_a_file_too(tmp_path, ending):
    assert not len(written_and_read(from_states([], []), tmp_path / f"r{ending}"))


@pytest.mark.parametrize("ending", ENDINGS)
@given(st.lists(st.sampled_from([*NARROW, *WIDE]), max_size=6), st.integers(0, 2**32 - 1))
def test_any_ranges_come_back(tmp_path_factory, ending, dtypes, seed):
    """All dtypes at once, of no value or some, specials likely."""
    rng = np.random.default_rng(seed)
    arrays = []
    for dtype in dtypes:
        pool = random_array(dtype, (4,), rng)
        if is_float(dtype):
            pool = np.concatenate([pool, specials(dtype)])
        arrays.append(rng.choice(pool, rng.integers(4)))
    ranges = made(arrays)
    file = tmp_path_factory.mktemp("a") / f"r{ending}"
    assert_same(written_and_read(ranges, file), held_by(ending, ranges))


@pytest.mark.parametrize("as_", ["json", "csv", "text"])
def test_from_zero_to_minus_zero_both_were_seen(tmp_path, as_):
    """A program to which the two are the same may write them in either order."""
    ranges = made([np.array([-0.0, 0.0], np.float32)], ["a"])
    text = rendered(ranges, as_)
    turned = re.sub(r"-0(\.0)?(\D+)0(\.0)?", r"0\1\g<2>-0\3", text)
    assert turned != text
    (tmp_path / "r").write_text(turned)
    assert_same(jr.load(tmp_path / "r"), ranges)


def test_several_files_of_several_formats_load_merged(tmp_path):
    files = [tmp_path / f"r{ending}" for ending in ENDINGS]
    each = [jr.ranges(jnp.negative)(jnp.array([i, 2.0]))[1] for i in (-5.0, 0.0, 9.0)]
    for ranges, file in zip(each, files, strict=True):
        ranges.save(file)
    assert jr.load(*files)["neg"] == (each[0] | each[1] | each[2])["neg"]


# -- what the files look like -----------------------------------------------------------------


def shown():
    """One of each kind, with outputs of one operation."""
    sites = [
        Site("input/x", "input", 0, (2, 3), FLOAT32),
        Site("two words/sort", "sort", 0, (3,), FLOAT32, "model.py:7"),
        Site("two words/sort[1]", "sort", 1, (3,), np.dtype(np.int8), "model.py:7"),
        Site("100%", "mul", 0, (), np.dtype(ml_dtypes.bfloat16)),
        Site("transpose(jvp(f))/gt", "gt", 0, (), np.dtype(bool), backward=True),
        Site("mul.1", "mul", 0, (4,), np.dtype(np.int32)),
    ]
    arrays = [[0.1, -np.inf], [1e-45, np.nan], [-7, 100], [np.nan], [True, False], []]
    states = [
        {MinMax(): extrema_of(np.array(a, np.float32).astype(s.dtype))}
        for s, a in zip(sites, arrays, strict=True)
    ]
    return from_states(sites, states)


def test_text_has_the_lines_of_the_ancestor():
    assert rendered(shown(), "text") == textwrap.dedent(
        """\
        0 input 0 input/x -3.4028235e+38 0.1
        1 sort 0 two%20words/sort 1e-45 1e-45
        1 sort 1 two%20words/sort[1] -7 100
        2 mul 0 100%25 3.4028235e+38 -3.4028235e+38
        3 gt 0 transpose(jvp(f))/gt 0 1
        4 mul 0 mul.1 3.4028235e+38 -3.4028235e+38
        """
    )
    tabs = rendered(shown(), "text", "\t")
    assert tabs.startswith("0\tinput\t0\tinput/x\t-3.4028235e+38\t0.1\n")


def test_csv_is_what_pythons_module_reads():
    text = rendered(shown(), "csv")
    assert text == textwrap.dedent(
        """\
        name,primitive,output,shape,dtype,min,max,nan,observed,source,backward
        input/x,input,0,2x3,float32,-inf,0.1,false,true,,false
        two words/sort,sort,0,3,float32,1e-45,1e-45,true,true,model.py:7,false
        two words/sort[1],sort,1,3,int8,-7,100,false,true,model.py:7,false
        100%,mul,0,,bfloat16,,,true,true,,false
        transpose(jvp(f))/gt,gt,0,,bool,0,1,false,true,,true
        mul.1,mul,0,4,int32,,,false,false,,false
        """
    )
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == list(shown())


def test_json_says_at_the_top_what_else_there_is_to_say(tmp_path):
    about = {"time": 1.5e9, "calls": 7, "host": "a", "total": True, "none": None}
    file = tmp_path / "r.json"
    assert_same(written_and_read(shown(), file, about=about), shown())
    document = json.loads(file.read_text())
    assert (document["about"], document["version"]) == (about, 2)
    shown().save(file)
    assert "about" not in json.loads(file.read_text())
    for wrong in ({"a": [1]}, {"a": np.float32(1)}, {"a": float("nan")}, {1: 2}, {"a": -np.inf}):
        with pytest.raises(ValueError, match="about takes strings, finite numbers.*got"):
            save(shown(), file, about=wrong)


def plain():
    """Ranges that all formats hold."""
    return made([np.array([-1.5, 0.1], np.float32), np.zeros(0, np.float32)], ["a", "b"])


def test_the_ending_chooses_the_format(tmp_path):
    starts = {"r.json": "{", "r.JSON": "{", "r.csv": "name,", "r.Csv": "name,"}
    starts |= dict.fromkeys(("r.txt", "r", "r.minmax", "r.TXT", "json", ".csv"), "0 add")
    for name, start in starts.items():
        plain().save(tmp_path / name)
        assert (tmp_path / name).read_text().startswith(start)


@pytest.mark.parametrize("name", ["r.html", "r.jsonl", "m.parquet", "r.json.gz", "r.tx", "r.1"])
def test_an_ending_that_no_format_has_is_an_error_before_anything_is_done(tmp_path, name):
    message = f"{name}': no format of ranges has the ending.*json.*csv.*txt, .minmax or no ending"
    with pytest.raises(ValueError, match=message):
        plain().save(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        jr.Net(jnp.sin, dump_file=tmp_path / name)
    net = jr.Net(jnp.sin)
    net(1.0)
    for dump in (net.dump, net.dump_and_reset):
        with pytest.raises(ValueError, match=message):
            dump(tmp_path / name)
    assert net.get_info()["sin"].observed
    assert not list(tmp_path.iterdir())


def test_the_content_tells_the_format_whatever_the_ending(tmp_path):
    for i, as_ in enumerate(("json", "csv", "text")):
        file = tmp_path / f"{i}.csv"
        file.write_text(rendered(shown(), as_), encoding="utf-8")
        assert_same(jr.load(file), in_six_words(shown()) if as_ == "text" else shown())


def test_files_that_went_through_other_programs_are_read(tmp_path):
    for as_ in ("json", "csv", "text"):
        text = rendered(shown(), as_).replace("\n", "\r\n").replace(",true,", ",TRUE,")
        (tmp_path / as_).write_bytes(b"\xef\xbb\xbf" + text.removesuffix("\r\n").encode())
        expected = in_six_words(shown()) if as_ == "text" else shown()
        assert_same(jr.load(tmp_path / as_), expected)


@pytest.mark.parametrize(
    "delimiter",
    ["", "\n", " \n", "\r", "a", "0", ".", "+", "-", "_", "%", "/", "(", "[", "é", " 1"],
)
def test_a_delimiter_that_fields_may_hold_is_refused(tmp_path, delimiter):
    with pytest.raises(ValueError, match="the delimiter must"):
        save(shown(), tmp_path / "r.txt", delimiter=delimiter)
    assert not list(tmp_path.iterdir())


def test_a_delimiter_that_is_no_string_is_a_type_error(tmp_path):
    with pytest.raises(TypeError, match="the delimiter must be a string; got 3"):
        save(shown(), tmp_path / "r.txt", delimiter=3)  # pyright: ignore[reportArgumentType]


# -- damaged files ----------------------------------------------------------------------------

LINE = "0 sin 0 sin -1.0 1.0 float32 ok\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or no file of ranges"),
        ("hello", "damaged or no file of ranges.*'hello' does not begin with a number"),
        (LINE + "1 sin 0 sin.1 -1", r"damaged: line 2: 5 fields instead of 8: op_index op_type"),
        (LINE + "1 sin 0 sin.1 -1.0 1.0 float32 o", "line 2: the mark 'o' does not go with min"),
        (LINE + "1 sin 0 sin.1 -1.0 1.0 float3", "line 2: 7 fields instead of 8"),
        ("0 sin 0 sin -1.0 1.0\n1 sin 0 sin", "line 2: 4 fields instead of 6: op_index op_type"),
        ("0 0 sin -1.0 1.0\n0 sin 0 sin -1 1", "line 2: 6 fields instead of 5: op_index output"),
        ("0 sin 0 sin", r"line 1: 4 fields instead of 6 \(op_index .* or 5 \(.* or 8 \(.* mark"),
        ("0 sin 0 sin -1 1 0.5 127 8\n", "line 1: 9 fields instead of 6"),
        ("0 sin 0 sin nan nan\n", "line 1: nan is no float32"),
        ("0 sin 0 sin 1_0 20\n", "line 1: 1_0 is no float32"),
        ("0 sin 0 sin 2 1\n", "line 1: the min 2 is above the max 1"),
        ("0 sin 0 sin 1 1e400\n", "line 1: 1e400 is no float32"),
        ("0 sin -1 sin 1 2\n", "line 1: output_idx is '-1', not a number from 0 on"),
        (LINE + LINE.replace(" ", ","), "line 2: 1 fields instead of 8"),
        (LINE.replace("1.0 f", "one f"), "line 1: one is no float32"),
        (LINE.replace("1.0 f", "nan f"), "line 1: nan is no float32"),
        (LINE.replace("1.0 f", "1e39 f"), "line 1: 1e39 is no float32"),
        (LINE.replace("1.0 f", "-2.0 f"), "line 1: the min -1.0 is above the max -2.0"),
        (LINE.replace("float32", "float33"), "line 1: float33 is no dtype"),
        (LINE.replace("float32", "object"), "line 1: object is no dtype of numbers"),
        (LINE.replace("float32", "int8"), "line 1: -1.0 is no int8"),
        ("0 a 0 a 0 300 int8 ok\n", "line 1: 300 is no int8"),
        ("0 a 0 a 0 9 int4 ok\n", "line 1: 9 is no int4"),
        ("0 a 0 a 0 1e6 float8_e4m3fn ok\n", "line 1: 1e6 is no float8_e4m3fn"),
        (LINE.replace("ok", "unobserved"), "'unobserved' does not go with min -1.0 and max 1.0"),
        (LINE.replace("-1.0 1.0", "inf -inf"), "'ok' does not go with min inf and max -inf"),
        (LINE.replace(" 0 ", " zero "), "line 1: output_idx is 'zero', not a number from 0 on"),
        (LINE + LINE, r"has the site 'sin' 2 times.*jr\.load one by one"),
    ],
)
def test_damaged_text_is_an_error_that_names_the_line(tmp_path, text, message):
    file = tmp_path / "r.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        jr.load(file)
    assert str(error.value).startswith(f"{file} is damaged")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name,primitive", "name,kind", "is CSV, but not of ranges: its header is not name,pri"),
        ("100,false,true,model.py:7,false", "100,false", "line 4: 8 fields instead of 11"),
        ("sort,0,3,", "sort,0,y,", "line 3: a dimension is 'y', not a number from 0 on"),
        ("-7,100", "-7,one", "line 4: one is no int8"),
        ("-7,100", "-7,", "line 4:  is no int8"),
        ("-7,100", "100,-7", "line 4: the min 100 is above the max -7"),
        ("bool,0,1,false,true", "bool,0,1,false,false", "do not go with observed=false"),
        ("bool,0,1,false,true", "bool,0,1,false,maybe", "line 6: 'maybe' is neither true nor"),
        ("bool,0,1,false", "bool,0,2,false", "line 6: 2 is no bool"),
        ("bfloat16", "float17", "line 5: float17 is no dtype"),
        ("two words/sort,", '"two words/sort,', "line 7: unexpected end of data"),
    ],
)
def test_damaged_csv_is_an_error_that_names_the_line(tmp_path, old, new, message):
    text = rendered(shown(), "csv")
    assert old in text
    file = tmp_path / "r.csv"
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        jr.load(file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("min", "abc", "sites\\[0\\], 'input/x': min is 'abc', not a number, null, \"inf\""),
        ("min", "1", "sites\\[0\\], 'input/x': min is '1', not a number"),
        ("min", True, "site 'input/x': True is no float32"),
        ("min", 10**400, "site 'input/x': 1000.*000 is no float32"),
        ("min", 1e39, "site 'input/x': 1e\\+39 is no float32"),
        ("max", -1e9, "site 'input/x': its min is above its max"),
        ("max", None, "min, max and nan do not belong together"),
        ("nan", [True], "min, max and nan do not belong together"),
        ("dtype", "int8", "site 'input/x': -1.5 is no int8"),
        ("dtype", "str", "sites\\[0\\], 'input/x': str is no dtype"),
        ("dtype", "9" * 5000, "'99.*\\.\\.\\..*99' is no dtype"),
        ("dtype", "float128", "float128 is no dtype"),
        ("shape", 3, "shape is 3, not of type list"),
        ("shape", [-1], "shape has -1 in it, not a number from 0 on"),
        ("output", -1, "output has -1 in it"),
        ("min", [[0.5], [0.5, 1.0]], "lists of different lengths"),
    ],
)
def test_damaged_json_is_an_error_that_names_the_site(tmp_path, key, value, message):
    file = tmp_path / "r.json"
    made([np.array([-1.5], np.float32)], ["input/x"]).save(file)
    document = json.loads(file.read_text())
    document["sites"][0][key] = value
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        jr.load(file)


def test_a_file_that_is_no_text_is_a_clear_error(tmp_path):
    file = tmp_path / "r.json"
    file.write_bytes(b"\x80\x81\x00")
    with pytest.raises(ValueError, match=r"r\.json is damaged: line 1 is no UTF-8.* byte 0x80"):
        jr.load(file)
    file.write_bytes(b"0 a 0 a 1 2\n1 b 0 \xffb 1 2\n")
    with pytest.raises(ValueError, match=r"r\.json is damaged: line 2 is no UTF-8.* byte 0xff"):
        jr.load(file)
    for data, what in {
        gzip.compress(b"{}"): "compressed by gzip",
        "0 a 0 a 1 2".encode("utf-16"): "in UTF-16",
        b"PK\x03\x04": "a zip archive",
    }.items():
        file.write_bytes(data)
        with pytest.raises(ValueError, match=rf"r\.json is damaged: it is {what}"):
            jr.load(file)
    with pytest.raises(FileNotFoundError):
        jr.load(tmp_path / "missing")


# -- writing ----------------------------------------------------------------------------------

BEGINNING = """
import os, resource, signal, sys
import jax.numpy as jnp
import jax_ranges as jr
_, ranges = jr.ranges(jnp.sin)(jnp.arange(3.0))
"""


def in_a_process(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BEGINNING + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_killed_while_it_writes_leaves_the_old_file_whole(tmp_path, ending):
    file = tmp_path / f"r{ending}"
    plain().save(file)
    code = """
    os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
    ranges.save(sys.argv[1])
    """
    assert in_a_process(code, file).returncode == -signal.SIGKILL
    assert_same(jr.load(file), plain())


def test_a_full_disk_is_an_error_that_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "r.txt"
    plain().save(file)
    code = """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))
    try:
        ranges.save(sys.argv[1])
    except OSError as error:
        print("OSError", error)
    """
    found = in_a_process(code, file)
    assert found.stdout == "OSError [Errno 27] File too large\n", found.stderr
    assert list(tmp_path.iterdir()) == [file]
    assert_same(jr.load(file), plain())


def test_the_first_error_is_told_though_the_temporary_file_cannot_be_removed(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    def also_fails(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fails)
    monkeypatch.setattr(Path, "unlink", also_fails)
    with pytest.raises(OSError, match="No space left"):
        plain().save(tmp_path / "r.json")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*missing'"):
        plain().save(tmp_path / "missing" / "r.json")
    with pytest.raises(IsADirectoryError):
        plain().save(tmp_path)


def test_files_have_the_usual_mode_and_links_stay_links(tmp_path):
    usual, file, link = tmp_path / "usual", tmp_path / "r.txt", tmp_path / "latest.txt"
    usual.touch()
    plain().save(file)
    assert file.stat().st_mode == usual.stat().st_mode
    link.symlink_to(file.name)
    ranges = jr.ranges(jnp.sin)(jnp.arange(3.0))[1]
    ranges.save(link)
    assert link.is_symlink()
    assert_same(jr.load(file), ranges)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777, 0o444])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_saving_over_a_file_keeps_its_permission_bits(tmp_path, mode, through_a_link):
    file, link = tmp_path / "r.json", tmp_path / "link.json"
    file.write_text("old")
    file.chmod(mode)
    link.symlink_to(file.name)
    plain().save(link if through_a_link else file)
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert link.is_symlink() and len(list(tmp_path.iterdir())) == 2
    assert_same(jr.load(file), plain())


def test_links_that_lead_to_no_file(tmp_path):
    link, target = tmp_path / "link.json", tmp_path / "later.json"
    link.symlink_to(target)
    plain().save(link)
    assert link.is_symlink()
    assert_same(jr.load(target), plain())
    target.unlink()
    target.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links"):
        plain().save(link)
    assert link.is_symlink() and target.is_symlink()


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    code = """
    os.umask(0o027)
    ranges.save(sys.argv[1])
    """
    found = in_a_process(code, tmp_path / "r.json")
    assert found.returncode == 0, found.stderr
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_saving_over_a_file_keeps_its_owner_and_group(tmp_path):
    file = tmp_path / "r.json"
    file.write_text("old")
    os.chown(file, 12345, 23456)
    plain().save(file)
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_what_may_not_be_given_away_is_written_all_the_same(tmp_path, monkeypatch):
    """Another one's file in a folder that is shared."""

    def refuses(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuses)
    file = tmp_path / "r.json"
    file.write_text("old")
    file.chmod(0o660)
    plain().save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
    assert_same(jr.load(file), plain())


def test_nobody_reads_a_private_file_while_it_is_written(tmp_path, monkeypatch):
    file, modes = tmp_path / "r.json", []
    file.write_text("old")
    file.chmod(0o600)
    sync = os.fsync

    def looking(descriptor):
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", looking)
    plain().save(file)
    assert modes == [0o600]


def test_a_device_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        plain().save(pipe)
        assert reader.stdout is not None
        assert reader.stdout.read() == rendered(plain(), "text")
    assert pipe.is_fifo()


def test_traced_ranges_cannot_be_saved(tmp_path):
    def f(x):
        out, ranges = jr.ranges(jnp.sin)(x)
        ranges.save(tmp_path / "r.txt")
        return out

    with pytest.raises(ValueError, match="these ranges are traced.*save them outside"):
        jax.jit(f)(jnp.ones(2))
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Zeros(jr.Statistic):
    def identity(self, dtype):
        return np.zeros((), np.int32)

    def measure(self, value):
        return jnp.sum(value == 0, dtype=jnp.int32)

    def merge(self, a, b):
        return a + b


def test_statistics_of_ones_own_have_no_place_in_files_but_do_not_hinder_a_comparison(tmp_path):
    _, both = jr.ranges(jnp.sin, stats=(jr.MinMax(), Zeros()))(jnp.ones(2))
    _, without = jr.ranges(jnp.sin, stats=(Zeros(),))(jnp.ones(2))
    with pytest.raises(ValueError, match=r"files hold the statistics that come.*Zeros\(\)"):
        both.save(tmp_path / "r.json")
    for name in ("r.txt", "r.csv"):
        with pytest.warns(LossWarning, match=rf"{name}: the ranges are written.*what Zeros\(\) t"):
            both.save(tmp_path / name)
        assert jr.load(tmp_path / name)["sin"] == both["sin"]
        with pytest.raises(ValueError, match=r"hold the ranges of MinMax, not \[Zeros\(\)\]"):
            without.save(tmp_path / name)
    assert not diff(both, jr.ranges(jnp.sin)(jnp.ones(2))[1]).changed
    with pytest.raises(ValueError, match=r"MinMax\(\) was not among the statistics"):
        diff(without, both)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", None), ("shape", "x"), ("nan", "yes"), ("name", 5), ("output", True)],
)
def test_a_json_field_of_another_type_is_damage(tmp_path, field, value):
    file = tmp_path / "r.json"
    jr.ranges(jnp.sin)(jnp.ones(2))[1].save(file)
    document = json.loads(file.read_text())
    document["sites"][0][field] = value
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=rf"r.json is damaged: .*{field}"):
        jr.load(file)


def test_json_that_is_too_deep_is_foreign(tmp_path):
    (tmp_path / "r.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="r.json is damaged or no file of ranges"):
        jr.load(tmp_path / "r.json")
