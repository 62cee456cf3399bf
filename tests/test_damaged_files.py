"""Damaged files of every kind, by every reader: nothing but clear errors comes out.

Good files of each format are changed in every way that we can think of, and read. Either that is a
ValueError that names the file and a place in it, on one line of bearable length, or what was read
is sound: it can be written, and read again.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import shlex
from copy import deepcopy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.__main__ import main
from jax_ranges.files import rendered

STATS = (
    jr.MinMax(),
    jr.Health(),
    jr.Histogram(bins=4),
    jr.Moments(),
    jr.AbsMax(),
    jr.PerChannel(0),
    jr.PerChannel(-1, jr.Health(), block=2),
)


def model(x, w):
    y = jnp.exp(x @ w)
    return jax.lax.scan(lambda c, v: (c + v, (c > v).sum()), jnp.zeros(2), y)


@functools.cache
def measured(**options):
    x = jnp.array([[0.5, -2.0, 8.0], [-0.0, 300.0, 1e-3]])
    return jr.ranges(model, inputs=True, **options)(x, jnp.ones((3, 2)))[1]


def recipe():
    weights = jr.Dynamic("int4", channels=True)
    q = jr.qparams(jr.Range(np.float32([-1, -2]), np.float32([1, 3]), np.zeros(2, bool)), "int8")
    rules = jr.Recipe(
        {"exp": (None, "float8_e4m3fn"), "*/add": "q3.4", "dot_general": (q, weights)}
    )
    return jr.Recipe.from_ranges(measured(), "int8") + rules


def recipe_text(folder):
    recipe().save(folder / "recipe.json")
    return (folder / "recipe.json").read_text()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good file of each kind, and what reads it."""
    six = rendered(measured(), "text")
    five = "".join(re.sub(r"^(\d+) \S+", r"\1", line) for line in six.splitlines(keepends=True))
    eight = "".join(f"{line} float32 ok\n" for line in six.splitlines() if "e+38" not in line)
    return {
        "json": rendered(measured(stats=STATS, loops="stack"), "json", about={"calls": 3}),
        "plain json": rendered(measured(), "json"),
        "csv": rendered(measured(), "csv"),
        "six words": six,
        "six words, with commas": rendered(measured(), "text", ", "),
        "five words": five,
        "eight words": eight,
        "recipe": recipe_text(tmp_path_factory.mktemp("good")),
    }


KINDS = [
    *("json", "plain json", "csv", "six words", "six words, with commas", "five words"),
    *("eight words", "recipe"),
]
JSON_KINDS = ["json", "plain json", "recipe"]

PLACE = re.compile(
    r"line \d+|sites\[\d+\]|site '|rule \d+|statistics|format|version|char \d+|rules|there is no|"
    r"nested|header|sites is|occurs twice|it has the site|it is |object|UTF-16"
)


def read(kind, file):
    """What is in a file, if it is sound; None if it is damaged, which is said clearly."""
    reader = jr.Recipe.load if kind == "recipe" else jr.load
    try:
        found = reader(file)
    except ValueError as error:
        said = str(error)
        assert said.startswith(str(file)), said
        assert PLACE.search(said.removeprefix(str(file))), said
        assert len(said.splitlines()) == 1 and len(said) < len(str(file)) + 700, said
        return None
    return found


def check(kind, file, data):
    file.write_bytes(data)
    found = read(kind, file)
    if found is None:
        return False
    again = file.with_name("again.json")
    if kind == "recipe":
        found.save(again)
        assert jr.Recipe.load(again) == found
    else:
        text = rendered(found, "json")
        again.write_text(text)
        assert rendered(jr.load(again), "json") == text
        for as_ in ("csv", "text"):
            if jr.MinMax() in found.stats or not found.stats:
                rendered(found, as_)
    return True


# -- of bytes and of words --------------------------------------------------------------------

WORDS = [
    *("", "0", "-1", "1", "2", "-0.0", "1e400", "-1e400", "1e39", "1e-400", "9" * 401, "9" * 5000),
    *("-" + "9" * 401, "0." + "9" * 5000, "nan", "NaN", "-nan", "inf", "-Infinity", "Infinity"),
    *("null", "true", "True", "false", "[]", "{}", "[[]]", '"x"', '"', "'", ",", "\n", "\r", "\t"),
    *("1_0", "0x10", "--1", "+1", "1.5", ".5", "5.", "٣", "²", "é", "\x00", "\ufeff", "\u2028"),
    *(
        "float128",
        "float64",
        "int8",
        "int4",
        "complex64",
        "bool",
        "object",
        "i4,i4",
        "9" * 5000 + "f",
    ),
    *("float8_e4m3fn", "O", "str", "%", "%8", "%FF", "%ED%A0%80", "a b", "1x2", "x", "0x0"),
    *("[" * 70 + "]" * 70, "[" * 3000 + "]" * 3000, '{"a":' * 60 + "1" + "}" * 60),
]

TOKEN = re.compile(r'"[^"\n]*"|[^\s,:"\[\]{}]+')


def damaged_bytes(data, rng):
    """One change of bytes: cut off, changed, taken out, put in, doubled."""
    at, to = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    few = bytes(rng.integers(0, 256, rng.integers(1, 4), np.uint8))
    changes = (
        data[:at],
        data[at:],
        data[:at] + few + data[at + len(few) :],
        data[:at] + few + data[at:],
        data[:at] + data[min(to, at + 30) :],
        data[:to] + data[at:],
        data[:at] + bytes([data[at % len(data)] ^ 1 << int(rng.integers(8))]) + data[at + 1 :],
    )
    return changes[rng.integers(len(changes))]


def damaged_words(text, rng):
    """One word is another, or is missing, or is another word of the same file."""
    words = list(TOKEN.finditer(text))
    found = words[rng.integers(len(words))]
    other = [*WORDS, words[rng.integers(len(words))][0]]
    new = other[rng.integers(len(other))]
    if found[0].startswith('"') and rng.integers(2):
        new = json.dumps(new)
    return text[: found.start()] + new + text[found.end() :]


def damaged_lines(text, rng):
    """Lines are missing, doubled, in another order, or joined."""
    lines = text.splitlines(keepends=True)
    i, j = rng.integers(len(lines), size=2)
    how = rng.integers(5)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(j, lines[i])
    elif how == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 3:
        lines[i] = lines[i].rstrip("\n")
    else:
        lines[i] = "\n" + lines[i].replace("\n", "\r\n")
    return "".join(lines)


def damaged(text, rng):
    for _ in range(rng.integers(1, 3)):
        how = rng.integers(5)
        if how < 2:
            text = damaged_words(text, rng) if text.split() else text
        elif how == 2 and text:
            text = damaged_lines(text, rng)
        else:
            return damaged_bytes(text.encode("utf-8", "surrogatepass") or b"x", rng)
    return text.encode("utf-8", "surrogatepass")


def check_damaged(kind, text, folder, seeds):
    sound = [
        check(kind, folder / "r.any", damaged(text, np.random.default_rng(seed))) for seed in seeds
    ]
    return sum(sound), len(sound)


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_of_bytes_words_and_lines(good, tmp_path, kind):
    sound, count = check_damaged(kind, good[kind], tmp_path, range(100))
    assert 0 < sound < count / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changes_of_bytes_words_and_lines(good, tmp_path, kind):
    check_damaged(kind, good[kind], tmp_path, range(100, 2500))


@pytest.mark.parametrize("kind", KINDS)
def test_every_length_of_a_file(good, tmp_path, kind):
    data = good[kind].encode()
    step = max(len(data) // 60, 1)
    for length in {*range(0, len(data), step), *range(len(data) - 5, len(data) + 1)}:
        check(kind, tmp_path / "r.any", data[:length])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=60))
def test_any_bytes(tmp_path_factory, kind, data):
    check(kind, tmp_path_factory.mktemp("b") / "r.any", data)


# -- of JSON, at every place ------------------------------------------------------------------

VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, 10**19, 2**63, -(2**63), 10**400, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "inf", "nan", "-inf", "1", "9" * 5000),
    *(
        "int8",
        "float64",
        "bool",
        "complex64",
        "float128",
        "dynamic",
        "Health",
        "*",
        "\ud800",
        "\x00",
    ),
    *([], [[]], [0], [1, 2, 3], [1, [2]], [[1], [2, 3]], [None], ["x"], [True], [{}], {}, {"a": 1}),
    *({"name": "Health"}, {"name": "PerChannel", "of": {"name": "PerChannel"}}, {"name": []}),
    *({"name": "Histogram", "bins": 1 << 40}, {"name": "PerChannel", "axis": 10**30}),
]


def paths(value, path=()):
    """Where something is in a document: of long lists only the ends."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*path, key))
    elif isinstance(value, list):
        for i in sorted({0, 1, len(value) - 1} & set(range(len(value)))):
            yield from paths(value[i], (*path, i))


def at(document, path):
    for key in path:
        document = document[key]
    return document


def with_value(document, path, value):
    if not path:
        return value
    document = deepcopy(document)
    at(document, path[:-1])[path[-1]] = value
    return document


def with_change(document, path, rng):
    """Another value, the value of another place, nothing, or it in a list."""
    where = [*paths(document)]
    own = at(document, path)
    others = (
        VALUES[rng.integers(len(VALUES))],
        at(document, where[rng.integers(len(where))]),
        [own],
        [own, own],
        {"format": "int8", "scale": own},
    )
    how = rng.integers(len(others) + 1)
    if how < len(others) or not path:
        return with_value(document, path, others[how % len(others)])
    document = deepcopy(document)
    del at(document, path[:-1])[path[-1]]
    return document


def small(kind, text):
    """With few enough sites that every place can be tried."""
    document = json.loads(text)
    key = "rules" if kind == "recipe" else "sites"
    document[key] = document[key][-4:]
    return document


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_another_value_at_every_place(good, tmp_path, kind):
    document = small(kind, good[kind])
    rng = np.random.default_rng(1)
    for path in paths(document):
        for value in [VALUES[i] for i in rng.permutation(len(VALUES))[:6]]:
            changed = with_value(document, path, value)
            check(kind, tmp_path / "r.json", json.dumps(changed).encode())


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSON_KINDS)
def test_every_other_value_at_every_place(good, tmp_path, kind):
    document = small(kind, good[kind])
    for path in paths(document):
        for value in VALUES:
            changed = with_value(document, path, value)
            check(kind, tmp_path / "r.json", json.dumps(changed).encode())


def check_several_places(kind, text, file, seeds):
    document = small(kind, text)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        changed = document
        for _ in range(rng.integers(1, 4)):
            where = [*paths(changed)]
            changed = with_change(changed, where[rng.integers(len(where))], rng)
        check(kind, file, json.dumps(changed).encode())


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_several_places_at_once(good, tmp_path, kind):
    check_several_places(kind, good[kind], tmp_path / "r.json", range(150))


@pytest.mark.slow
@pytest.mark.parametrize("kind", JSON_KINDS)
def test_several_places_at_once_many_times(good, tmp_path, kind):
    check_several_places(kind, good[kind], tmp_path / "r.json", range(150, 4000))


@pytest.mark.parametrize("kind", JSON_KINDS)
def test_a_key_that_occurs_twice_is_damage(good, tmp_path, kind):
    document = json.dumps(small(kind, good[kind]))
    keys = list(re.finditer(r'"(\w+)": ', document))
    for found in keys[:: len(keys) // 20]:
        twice = document[: found.start()] + f'"{found[1]}": 0, ' + document[found.start() :]
        assert not check(kind, tmp_path / "r.json", twice.encode()), found


# -- of whole files ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_other_files(good, tmp_path, kind):
    text = good[kind]
    for data in (
        b"",
        gzip.compress(text.encode()),
        text.encode("utf-16"),
        text.encode("utf-32"),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        b"PK\x03\x04\x14\x00",
        b"[" * 100_000,
        b'{"format":' * 100_000,
        b'{"format": "jax_ranges", "version": 2, "sites": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b'{"format": "jax_ranges.recipe", "version": 1, "rules": ' + b"[" * 70 + b"]" * 70 + b"}",
        b"0 " * 100_000,
        b"\x00" * 1000,
        b"name,primitive\n",
        b'name,"',
        b"null",
        b"[1]",
        b"1",
        b'"x"',
        text.encode() + b"\xff",
        text.encode() + text.encode(),
    ):
        assert not check(kind, tmp_path / "r.any", data), data[:40]


@pytest.mark.parametrize("kind", KINDS)
def test_what_other_programs_do_to_a_file_is_no_damage(good, tmp_path, kind):
    text = good[kind]
    for data in (
        text.encode("utf-8-sig"),
        text.replace("\n", "\r\n").encode(),
        text.rstrip("\n").encode(),
        text.encode() + b"\n\n",
    ):
        assert check(kind, tmp_path / "r.any", data)


@pytest.mark.parametrize("reader", [jr.load, jr.Recipe.load, jr.Recipe.from_ranges, jr.report])
def test_what_is_no_file_is_an_os_error(tmp_path, reader):
    with pytest.raises(IsADirectoryError):
        reader(tmp_path)
    with pytest.raises(FileNotFoundError):
        reader(tmp_path / "missing.json")


@pytest.mark.parametrize("text", ["{", '{"format": "jax_ranges", "version": 2, "sites": [3]}'])
def test_all_that_takes_a_file_says_which_is_damaged(tmp_path, text):
    file, fine = tmp_path / "r.json", tmp_path / "fine.json"
    file.write_text(text)
    ranges = measured()
    ranges.save(fine)
    for use in (
        lambda: jr.load(fine, file),
        lambda: jr.diff(fine, file),
        lambda: jr.diff(file, fine),
        lambda: jr.report(file),
        lambda: jr.guard(model, file),
        lambda: jr.Recipe.from_ranges(file),
        lambda: jr.MovingAverage(0.1).of([fine, file]),
        lambda: ranges.to_html(before=file),
        lambda: jr.Recipe.load(file),
        lambda: jr.simulate(model, file)(jnp.ones((2, 3)), jnp.ones((3, 2))),
    ):
        with pytest.raises(ValueError, match=re.escape(str(file))):
            use()


# -- the command line -------------------------------------------------------------------------

COMMANDS = [
    "show r.any",
    "show r.any --json",
    "show r.any --tree --sort amax --reads",
    "diff good.json r.any",
    "diff r.any good.json --json",
    "merge good.json r.any -o out.json",
    "merge good.json r.any -o out.txt",
    "export r.any --csv",
    "export r.any --caffe2",
    "export r.any --for scales --unfit skip",
    "export good.json --for scales --unfit skip --names r.any",
    "html r.any",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With a good file, and in it."""
    monkeypatch.chdir(tmp_path)
    measured().save("good.json")
    return tmp_path


def check_commands(capsys, data):
    Path("r.any").write_bytes(data)
    for line in COMMANDS:
        code = main(shlex.split(line))
        _, error = capsys.readouterr()
        assert code in ((0, 1, 2) if line.startswith("diff") else (0, 2)), line
        assert all(said.startswith("jax-ranges: ") for said in error.splitlines()), (line, error)
        assert code != 2 or len(error.splitlines()) == 1, (line, error)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_says_it_on_one_line(good, capsys, kind):
    for seed in range(6):
        check_commands(capsys, damaged(good[kind], np.random.default_rng(seed)))


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_says_it_on_one_line_many_times(good, capsys, kind):
    for seed in range(1000, 1060):
        check_commands(capsys, damaged(good[kind], np.random.default_rng(seed)))


def test_the_command_line_and_what_is_no_file(folder, capsys):
    (folder / "r.any").mkdir()
    for line in COMMANDS:
        assert main(shlex.split(line)) == 2
        out, error = capsys.readouterr()
        assert (out, error) == ("", "jax-ranges: r.any: Is a directory\n"), line
