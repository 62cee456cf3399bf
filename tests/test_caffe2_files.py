"""Text files: what Caffe2's reader makes of ours and ours of Caffe2's, and what is lost is said."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.files import LossWarning, rendered
from jax_ranges.ranges import from_states
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, extrema_of
from values import NARROW, WIDE, is_float, random_array, specials

FLOAT32 = np.dtype(np.float32)
FLT_MAX = float(np.finfo(np.float32).max)

# As Caffe2's RegisterQuantizationParamsNetObserver reads: the words of the first line decide
# between the two kinds of lines, and then it takes word after word.
READER = r"""
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

int main(int, char** arguments) {
    std::ifstream file(arguments[1]);
    std::string line, word, type = "-", name;
    std::getline(file, line);
    file.seekg(0);
    std::istringstream first(line);
    int words = 0, index, output;
    while (first >> word) ++words;
    if (words != 6 && words != 5) return 1;
    float least, most;
    while (file >> index) {
        if (words == 6) file >> type;
        if (!(file >> output >> name >> least >> most)) return 2;
        std::printf("%d %s %d %s %a %a\n", index, type.c_str(), output, name.c_str(), least, most);
    }
    return file.eof() ? 0 : 3;
}
"""


@pytest.fixture(scope="module")
def caffe2(tmp_path_factory):
    """What C++ reads of a text: for each line its words, the last two as numbers."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.cc").write_text(READER)
    subprocess.run([compiler, folder / "reader.cc", "-o", folder / "reader"], check=True)

    def read(text):
        (folder / "dump").write_bytes(text.encode())
        command = [folder / "reader", folder / "dump"]
        found = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        lines = [line.split(" ") for line in found.splitlines()]
        return [(*line[:4], *map(np.float32, map(float.fromhex, line[4:]))) for line in lines]

    return read


def made(arrays, names=None):
    names = names or [f"site_{i}" for i in range(len(arrays))]
    sites = [Site(n, "add", 0, a.shape, a.dtype) for n, a in zip(names, arrays, strict=True)]
    return from_states(sites, [{MinMax(): extrema_of(a)} for a in arrays])


def in_float32(found):
    """A range's ends as Caffe2 holds them."""
    if not found.min <= found.max:
        return np.float32(FLT_MAX), np.float32(-FLT_MAX)
    with np.errstate(over="ignore"):
        ends = np.array([found.min, found.max]).astype(np.float32)
    return tuple(np.clip(ends, -FLT_MAX, FLT_MAX))


def assert_read_exactly(read, ranges, delimiter=" "):
    found = read(rendered(ranges, "text", delimiter))
    assert len(found) == len(ranges)
    for (_, kind, output, _, *ends), site in zip(found, ranges.sites, strict=True):
        assert (kind, int(output)) == (site.primitive, site.output)
        expected = in_float32(ranges[site.name])
        assert [end.tobytes() for end in ends] == [end.tobytes() for end in expected], site


# -- Caffe2's reader, and ours ----------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [" ", "\t", "  "])
def test_caffe2s_reader_reads_every_value_of_every_dtype(caffe2, delimiter):
    rng = np.random.default_rng(5)
    arrays = []
    for dtype in (*NARROW, *WIDE):
        arrays += [random_array(dtype, (size,), rng) for size in (1, 1, 2, 3, 0)]
        if is_float(dtype):
            arrays += [specials(dtype)[[i]] for i in range(len(specials(dtype)))]
    arrays += [np.array(x) for x in ([1e300, 1e301], [-1e300], [1e-300], [3.4028235677973366e38])]
    arrays += [np.array([2**53 + 1, 2**63 - 1]), np.array([2**64 - 1], np.uint64)]
    assert_read_exactly(caffe2, made(arrays), delimiter)


@settings(max_examples=40)  # a process each
@given(xs=st.lists(st.floats(width=32) | st.floats(), min_size=1))
def test_caffe2s_reader_reads_any_number(caffe2, xs):
    assert_read_exactly(caffe2, made([np.array([x]) for x in xs]))
    with np.errstate(over="ignore"):
        assert_read_exactly(caffe2, made([np.array([x]).astype(np.float32) for x in xs]))


def test_caffe2s_reader_reads_operations_and_outputs_in_order(caffe2):
    _, ranges = jr.ranges(lambda x: jax.lax.sort((jnp.sin(x), x)), inputs=True)(jnp.arange(3.0))
    found = caffe2(rendered(ranges, "text"))
    assert [line[:4] for line in found] == [
        ("0", "input", "0", "input/x"),
        ("1", "sin", "0", "sin"),
        ("2", "sort", "0", "sort"),
        ("2", "sort", "1", "sort[1]"),
    ]


@settings(max_examples=40)
@given(name=st.text(), primitive=st.text())
def test_names_are_one_word_each(caffe2, name, primitive):
    site = Site(name, primitive, 0, (), FLOAT32)
    ranges = from_states([site], [{MinMax(): extrema_of(np.ones(1, np.float32))}])
    ((index, kind, output, word, *_),) = caffe2(rendered(ranges, "text"))
    assert (index, output) == ("0", "0")
    if kind == primitive and word == name:
        return  # as they are; or else encoded, which our reader takes back
    assert "%" in kind + word


def read_back(tmp_path, text):
    (tmp_path / "r.minmax").write_text(text)
    return jr.load(tmp_path / "r.minmax")


SEEN = """\
0 Conv 0 gpu_0/conv1_w -1.5 0.12345
1 Relu 0 gpu_0/relu 0 3.40282e+38
2 Split 0 a 3.40282e+38 -3.40282e+38
2 Split 1 b 1e-45 2.5
3 Div 0 c -inf inf
"""


def test_files_of_the_ancestor_are_read(tmp_path, caffe2):
    ranges = read_back(tmp_path, SEEN)
    assert {name: (found.min, found.max) for name, found in ranges.items() if found.observed} == {
        "gpu_0/conv1_w": (np.float32(-1.5), np.float32(0.12345)),
        "gpu_0/relu": (0, np.float32(3.40282e38)),
        "b": (np.float32(1e-45), 2.5),
        "c": (-np.inf, np.inf),
    }
    assert not ranges["a"].observed
    sites = [(site.primitive, site.output, site.dtype) for site in ranges.sites]
    assert sites[2:4] == [("Split", 0, FLOAT32), ("Split", 1, FLOAT32)]
    without_c = SEEN[: SEEN.index("3 Div")]
    assert rendered(read_back(tmp_path, without_c), "text") == without_c.replace(
        "3.40282e+38 -3.40282e+38", "3.4028235e+38 -3.4028235e+38"
    )
    assert_read_exactly(caffe2, read_back(tmp_path, without_c))


def test_lines_of_five_words_are_read(tmp_path):
    """Without the type: older files, and the global ones, which are sorted by name."""
    ranges = read_back(tmp_path, "0 0 conv1 -1.5 2\n1 0 pool 3.40282e+38 -3.40282e+38\n2 0 x 1 1\n")
    assert (ranges["conv1"].min, ranges["conv1"].max, ranges["x"].max) == (-1.5, 2, 1)
    assert [ranges[name].observed for name in ranges] == [True, False, True]
    assert {site.primitive for site in ranges.sites} == {""}
    again = tmp_path / "again.txt"
    ranges.save(again)
    assert jr.load(again)["conv1"] == ranges["conv1"]


def test_the_eight_words_that_this_package_used_to_write_are_read(tmp_path):
    ranges = read_back(
        tmp_path,
        "0 input 0 input/x -inf 0.1 float32 ok\n"
        "1 sort 0 two%20words/sort 1e-45 1e-45 float32 nan\n"
        "1 sort 1 two%20words/sort[1] -7 100 int8 ok\n"
        "2 mul 0 100%25 inf -inf bfloat16 nan\n"
        "3 mul 0 mul.1 inf -inf int32 unobserved\n",
    )
    assert list(ranges) == ["input/x", "two words/sort", "two words/sort[1]", "100%", "mul.1"]
    assert [str(site.dtype) for site in ranges.sites] == [
        *("float32", "float32", "int8", "bfloat16", "int32")
    ]
    assert ranges["two words/sort[1]"] == jr.Range(np.int8(-7), np.int8(100), np.False_)
    assert [ranges[name].nan.item() for name in ranges] == [False, True, False, True, False]
    assert [ranges[name].observed.item() for name in ranges] == [True] * 4 + [False]


@pytest.mark.parametrize(
    "text",
    [
        "0 add 0 a 1 2\r\n1 add 0 b 1 2\r\n",
        "0\tadd\t0\ta\t1\t2\n1\tadd\t0\tb\t1\t2\n",
        "  0  add 0 a   1 2 \n\n1 add 0 b 1 2\n\n\n",
        "0, add, 0, a, 1, 2\n1, add, 0, b, 1, 2",
        "\ufeff0 add 0 a 1 2\n1 add 0 b 1 2\n",
    ],
)
def test_lines_that_went_through_other_programs_are_read(tmp_path, text):
    (tmp_path / "r.txt").write_bytes(text.encode())
    assert list(jr.load(tmp_path / "r.txt")) == ["a", "b"]


# -- what is lost is said ---------------------------------------------------------------------


def lost(made_ranges, file):
    """What the warning of a dump says, of which there is one at most."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made_ranges.save(file)
    assert len(said) <= 1 and {each.category for each in said} <= {LossWarning}
    assert {each.filename for each in said} <= {__file__}
    return str(said[0].message) if said else ""


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1.5, -2.0], np.float32), []),
        (np.zeros(0, np.float32), []),
        (np.array([1.0, np.nan], np.float32), ["that a NaN was seen (1 site: 'a')"]),
        (np.array([np.nan], np.float32), ["that a NaN was seen"]),
        (np.array([1, 2], np.int32), ["dtypes other than float32 (1 site: 'a')"]),
        (np.array([1], ml_dtypes.bfloat16), ["dtypes other than float32"]),
        (np.array([-np.inf], np.float32), ["infinities and what is beyond float32, which became"]),
        (np.array([1e300]), ["dtypes other than float32", "beyond float32, which became ±3.40"]),
        (np.array([0.1]), ["dtypes other than float32", "all digits of what float32 rounds"]),
        (np.array([2**24 + 1]), ["dtypes other than float32", "all digits of what float32 rounds"]),
        (np.array([2**24 + 2]), ["dtypes other than float32"]),
    ],
)
def test_what_six_words_do_not_hold_is_said(tmp_path, array, words):
    kinds = ("that a NaN", "dtypes other", "infinities and", "all digits")
    ranges = made([array], ["a"])
    said = lost(ranges, tmp_path / "r.txt")
    assert [each in said for each in words] == [True] * len(words)
    assert sum(kind in said for kind in kinds) == len(words)
    assert not words or (
        said.startswith(str(tmp_path / "r.txt")) and ".json file holds all" in said
    )
    for ending in ("json", "csv"):
        assert not lost(ranges, tmp_path / f"r.{ending}")


def test_a_warning_names_some_sites_and_counts_all(tmp_path):
    said = lost(made([np.array([1], np.int8)] * 5), tmp_path / "r.txt")
    assert "dtypes other than float32 (5 sites: 'site_0', 'site_1', 'site_2', ...)" in said


def calls_of(net, *xs):
    for x in xs:
        net(jnp.float32(x))


def said_by(action):
    """The kinds of losses, where they were said, and of which file."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        action()
    assert {each.filename for each in said} <= {__file__}
    return [str(each.message).partition(":")[0].rpartition("/")[2] for each in said]


def test_each_dump_of_a_net_says_what_it_left_out_at_the_users_line(tmp_path):
    net = jr.Net(jnp.log, dump_file=tmp_path / "r.txt")
    calls_of(net, 0.0)
    assert said_by(net.dump) == ["r.txt"]
    assert said_by(lambda: net.dump(tmp_path / "other.minmax")) == ["other.minmax"]
    assert said_by(lambda: net.dump(tmp_path / "other.csv")) == []
    assert said_by(lambda: net.dump_and_reset(tmp_path / "w.txt")) == ["w.txt"]
    calls_of(net, 1.0)
    assert said_by(lambda: net.dump_and_reset(tmp_path / "w.txt")) == []
    assert said_by(net.close) == ["r.txt"]


def test_of_numbered_dumps_each_kind_of_loss_is_said_once(tmp_path):
    net = jr.Net(jnp.log, dump_file=tmp_path / "r.txt", dump_every=1)

    def call(x):
        net(jnp.float32(x))
        net._dumps._flush()

    assert said_by(lambda: [call(x) for x in (1.0, 0.0, 0.0, 0.0, 1.0)]) == ["r_2.txt"]
    assert said_by(lambda: [call(x) for x in (0.0, -1.0, 0.0, -1.0)]) == ["r_7.txt"]
    assert said_by(net.close) == ["r.txt"]


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_statistics_that_a_file_does_not_hold_are_said_once(tmp_path, ending):
    stats = (jr.MinMax(), jr.Health())
    file = tmp_path / f"n.{ending}"
    with pytest.warns(LossWarning, match=rf"n.{ending}.*but not what Health\(\) took. A .json"):
        net = jr.Net(jnp.sin, dump_file=file, stats=stats, dump_every=1)

    def run():
        calls_of(net, 1.0, 2.0)
        net.dump()
        net.close()

    assert said_by(run) == []
    assert jr.load(file)["sin"] == jr.ranges(jnp.sin)(np.float32([1, 2]))[1]["sin"]
    assert said_by(lambda: net.dump(tmp_path / f"o.{ending}", total=True)) == [f"o.{ending}"]
    assert said_by(lambda: jr.Net(jnp.sin, dump_file=tmp_path / "n.json", stats=stats)) == []


def test_losses_that_are_errors_lose_nothing(tmp_path):
    net = jr.Net(jnp.log, dump_file=tmp_path / "r.txt")
    calls_of(net, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LossWarning):
            net.dump_and_reset()
        with pytest.raises(LossWarning):
            net.close()
    assert jr.load(tmp_path / "r.txt")["log"].max == -FLT_MAX


def test_text_is_a_fixed_point_after_one_trip(tmp_path):
    """What is read of text is float32, and is written the same again, with nothing to say."""
    arrays = [np.array(x) for x in ([0.1, 1e300], [2**60 + 1], [np.nan], [True], [np.inf])]
    text = rendered(made(arrays), "text")
    loaded = read_back(tmp_path, text)
    assert not lost(loaded, tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == text


def test_the_text_of_a_real_dump(tmp_path):
    net = jr.Net(lambda x: jnp.tanh(x) * 2, dump_file=tmp_path / "r.minmax")
    net(jnp.array([0.5, -3.0]))
    net.close()
    assert (tmp_path / "r.minmax").read_text() == textwrap.dedent(
        """\
        0 tanh 0 tanh -0.9950547 0.46211717
        1 mul 0 mul -1.9901094 0.92423433
        """
    )
