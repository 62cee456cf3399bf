"""`jr.report`: golden texts, the orders, trees, and what stands on a console and what does not.

The golden texts are made anew with `UPDATE_GOLDEN=1 pytest tests/test_console.py`.
"""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live

import jax_ranges as jr
from jax_ranges.report.console import report, report_view
from jax_ranges.report.order import ORDERS, excerpt
from jax_ranges.report.rows import Row, name_parts, rows_of
from jax_ranges.report.tables import plain, ranges_table
from jax_ranges.report.tree import tree_lines
from test_report import ARGUMENTS, UNSEEN, made, program
from tests.compare import assert_golden


@pytest.fixture(scope="module")
def ranges() -> jr.Ranges:
    return jr.ranges(program(), loops="stack")(*ARGUMENTS)[1]


ONLY_NAN = (math.inf, -math.inf, True)


def lines_of(ranges: jr.Ranges, width: int = 80, **how: Any) -> list[str]:
    """The lines between the heading and the caption."""
    return plain(report_view(ranges, **how), width=width).split("\n")[2:-1]


def names_of(ranges: jr.Ranges, **how: Any) -> list[str]:
    """The names that a table shows, a wide one lest any is cut."""
    return [line.split()[0] for line in lines_of(ranges, width=300, **how)]


# -- golden texts -----------------------------------------------------------------------------

REPORTS: dict[str, dict[str, Any]] = {
    "tree": {"tree": True},
    "tree_amax_limit": {"tree": True, "sort": "amax", "limit": 6},
    "width": {"sort": "width"},
    "amax": {"sort": "amax"},
    "nan": {"sort": "nan"},
    "name": {"sort": "name"},
    "limit": {"limit": 7},
    "select": {"select": ["Encoder/*", "sqrt"], "sort": "nan"},
}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("name", REPORTS)
def test_a_report_is_as_it_was(ranges: jr.Ranges, name: str, width: int) -> None:
    text = plain(report_view(ranges, **REPORTS[name]), width=width)
    assert_golden(f"report_{name}_{width}.txt", text)


def test_a_report_of_everything_in_program_order_is_the_table(ranges: jr.Ranges) -> None:
    for width in (80, 160):
        table = plain(ranges_table(ranges), width=width)
        assert plain(report_view(ranges), width=width) == table


@pytest.mark.parametrize("width", [1, 10, 20, 40, 60, 80, 100, 120, 300])
@pytest.mark.parametrize("name", REPORTS)
def test_no_line_is_wider_than_the_terminal(ranges: jr.Ranges, name: str, width: int) -> None:
    text = plain(report_view(ranges, **REPORTS[name]), width=width)
    assert max(map(cell_len, text.split("\n"))) <= width


# -- orders -----------------------------------------------------------------------------------

NUMBERS = made(
    (0, 1, False), UNSEEN, (-8, 2, False), ONLY_NAN, (5, 9, True), (-math.inf, 0, False),
    (math.inf, math.inf, False), (-0.5, 0.5, False),
    names=["one", "unseen", "wide", "only_nan", "nan", "inf", "all_inf", "half"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("program", ["one", "unseen", "wide", "only_nan", "nan", "inf", "all_inf", "half"]),
        ("width", ["inf", "all_inf", "wide", "nan", "one", "half", "only_nan", "unseen"]),
        ("amax", ["inf", "all_inf", "nan", "wide", "one", "half", "only_nan", "unseen"]),
        ("nan", ["only_nan", "nan", "inf", "all_inf", "one", "unseen", "wide", "half"]),
        ("name", ["all_inf", "half", "inf", "nan", "one", "only_nan", "unseen", "wide"]),
    ],
)
def test_sites_are_sorted(sort: str, names: list[str]) -> None:
    assert names_of(NUMBERS, sort=sort) == names
    assert names_of(NUMBERS, sort=sort, tree=True) == names


def test_every_order_has_a_test_and_says_what_it_is() -> None:
    assert list(ORDERS) == ["program", "width", "amax", "nan", "name"]
    for sort in ("width", "amax", "nan", "name"):
        caption = plain(report_view(NUMBERS, sort=sort), width=200).split("\n")[-1]
        assert caption.startswith(f"8 sites, {ORDERS[sort].says} · 1 not observed")


def test_floats_come_before_integers_which_are_indices_and_random_bits() -> None:
    def mixed(x: Any) -> Any:
        return x + 1, x > 0, x.astype(jnp.float32) / 1000.0

    _, ranges = jr.ranges(mixed)(jnp.array([1, 500]))
    for sort in ("amax", "width"):
        assert names_of(ranges, sort=sort) == ["convert_element_type", "div", "add", "gt"]


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["l_10/add", "l_2/add.1", "l_2/add", "l_2/add.10", "l_2/add.9", "l_" + "9" * 5000, "l"]
    ranges = made(*[(0, 1, False)] * 7, names=names)
    rows = rows_of(ranges)
    found = [rows[i].name[:10] for i in excerpt(rows, "name").shown]
    assert found == [
        "l",
        "l_2/add",
        "l_2/add.1",
        "l_2/add.9",
        "l_2/add.10",
        "l_10/add",
        "l_99999999",
    ]


@pytest.mark.parametrize("sort", ["size", "", None, ["amax"]])
def test_an_order_that_there_is_none_of_is_an_error(sort: Any) -> None:
    there_are = "there are 'program', 'width', 'amax', 'nan' and 'name'"
    with pytest.raises(
        ValueError, match=re.escape(f"sort={sort!r} is no order of a report; {there_are}")
    ):
        report_view(NUMBERS, sort=sort)


def test_a_wrong_order_is_an_error_inside_jit_too() -> None:
    @jax.jit
    def step(x: Any) -> Any:
        out, ranges = jr.ranges(jnp.exp)(x)
        with pytest.raises(ValueError, match="is no order"):
            report_view(ranges, sort="size")
        return out

    step(jnp.ones(2))


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sort", "limit", "shown"),
    [
        ("program", 4, ["one", "unseen", "…", "all_inf", "half"]),
        ("program", 3, ["one", "unseen", "…", "half"]),
        ("program", 1, ["one", "…"]),
        ("program", 0, ["…"]),
        ("program", 7, ["one", "unseen", "wide", "only_nan", "nan", "inf", "all_inf", "half"]),
        ("amax", 3, ["inf", "all_inf", "nan", "…"]),
        ("amax", 7, ["inf", "all_inf", "nan", "wide", "one", "half", "only_nan", "…"]),
        ("amax", 0, ["…"]),
        ("amax", 8, ["inf", "all_inf", "nan", "wide", "one", "half", "only_nan", "unseen"]),
    ],
)  # fmt: skip
def test_a_limit_keeps_the_first_as_sorted_or_both_ends(
    sort: str, limit: int, shown: list[str]
) -> None:
    assert names_of(NUMBERS, sort=sort, limit=limit) == shown


def test_what_is_left_out_is_counted() -> None:
    *_, last, caption = plain(report_view(NUMBERS, sort="amax", limit=2), width=200).split("\n")
    assert last == "… 6 more, 1 not observed, 2 with NaN"
    assert caption == (
        "8 sites, largest first · 1 not observed · 2 with NaN · 2 with inf · largest 9 at nan"
    )
    middle = lines_of(NUMBERS, limit=2)[1]
    assert middle == "… 6 more, 1 not observed, 2 with NaN, 2 with inf"


@pytest.mark.parametrize("limit", [-1, 2.5, "3"])
def test_a_limit_that_is_no_number_of_sites_is_an_error(limit: Any) -> None:
    expected = f"limit is a number of sites, or None for all of them; got {limit!r}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        report_view(NUMBERS, limit=limit)


# -- trees ------------------------------------------------------------------------------------


def tree_of(*names: str, **how: Any) -> list[str]:
    rows = rows_of(made(*[(-k, 1, False) for k in range(len(names))], names=names))
    lines = tree_lines(rows, excerpt(rows, **how))
    return [line.guide + line.label + _count(line.row) for line in lines]


def _count(row: Row) -> str:
    return f" {row.sites}" if row.sites > 1 else ""


def test_a_tree_has_scopes_and_sites_as_leaves() -> None:
    assert tree_of("a/x", "a/b/x", "a/b/y", "c", "d/x", "d/y") == [
        "a/ 3",
        "├ x",
        "└ b/ 2",
        "  ├ x",
        "  └ y",
        "c",
        "d/ 2",
        "├ x",
        "└ y",
    ]


def test_what_has_one_child_only_is_joined_with_it() -> None:
    assert tree_of("a/b/c/x", "a/b/c/y", "d/e/x") == ["a/b/c/ 2", "├ x", "└ y", "d/e/x"]


def test_a_scope_that_is_entered_again_is_one_scope() -> None:
    assert tree_of("a/x", "b", "a/y") == ["a/ 2", "├ x", "└ y", "b"]


def test_siblings_are_sorted_as_the_first_within_them() -> None:
    names = ["a/x", "a/y", "b/z/x", "b/z/y", "b/x", "c"]
    assert tree_of(*names, sort="amax") == [
        "c",
        "b/ 3",
        "├ x",
        "└ z/ 2",
        "  ├ y",
        "  └ x",
        "a/ 2",
        "├ x",
        "└ y",
    ]


def test_scopes_count_what_a_limit_leaves_out() -> None:
    assert tree_of("a/x", "a/b/y", "a/b/z", "c", sort="amax", limit=2) == [
        "c",
        "a/ 3",
        "└ b/ 2",
        "  └ z",
    ]


def test_a_scope_and_a_site_of_one_name_stay_apart() -> None:
    assert tree_of("a/b", "a/b/c", "a/b/d") == ["a/ 3", "├ b", "└ b/ 2", "  ├ c", "  └ d"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("add", ["add"]),
        ("a/b/add", ["a", "b", "add"]),
        ("transpose(jvp(a/b))/c/add", ["transpose(jvp(a/b))", "c", "add"]),
        ("c(d/e/add", ["c(d", "e", "add"]),
        ("a)/(b/add", ["a)", "(b", "add"]),
        ("a//add", ["a", "", "add"]),
        ("///add", ["", "", "", "add"]),
        ("", [""]),
    ],
)
def test_names_are_parted_at_slashes_outside_of_brackets(name: str, parts: list[str]) -> None:
    assert name_parts(name) == parts
    assert "/".join(parts) == name


def test_scopes_of_odd_names_make_a_tree() -> None:
    def odd(x: Any) -> Any:
        with jax.named_scope("a/b"), jax.named_scope("[bold]c(d/"), jax.named_scope("e\n\x1b[31m"):
            return jnp.sum(jnp.sin(x) * 2)

    _, ranges = jr.ranges(jax.grad(odd))(jnp.ones(2))
    text = plain(report_view(ranges, tree=True), width=160)
    assert "jvp(a/b)/[bold]c(d//e\ufffd\ufffd[31m/ " in text
    assert "\x1b" not in text


def test_a_scope_says_what_is_wrong_in_it() -> None:
    names = ["a/x", "a/y", "b/x", "b/y", "c/x", "c/y", "d/x", "d/y"]
    extrema = [(0, 7, False), ONLY_NAN, (0, math.inf, False), UNSEEN, UNSEEN, UNSEEN]
    ranges = made(*extrema, ONLY_NAN, UNSEEN, names=names)
    scopes = [line for line in lines_of(ranges, tree=True) if line[1] == "/"]
    assert [scope.split()[:6] for scope in scopes] == [
        ["a/", "2", "sites", "amax", "7", "NaN"],
        ["b/", "2", "sites", "amax", "inf", "█" * 24 + "∞"],
        ["c/", "2", "sites", "not", "observed"],
        ["d/", "2", "sites", "nan", "nan", "NaN"],
    ]


def test_the_largest_value_of_a_scope_is_that_of_its_floats() -> None:
    @jax.named_scope("a")
    def mixed(x: Any) -> Any:
        return x + 1000, x.astype(jnp.float32) - 3.0

    _, ranges = jr.ranges(mixed)(jnp.arange(2))
    assert lines_of(ranges, tree=True)[0].split()[:5] == ["a/", "3", "sites", "amax", "3"]


# -- what a table holds -----------------------------------------------------------------------


def test_stacked_loops_show_their_course_at_80_columns() -> None:
    def deep(x: Any) -> Any:
        with jax.named_scope("encoder_of_many_layers/attention"):
            return jax.lax.scan(lambda c, _: (c * 4.0, None), x, length=12)[0]

    _, ranges = jr.ranges(deep, loops="stack")(jnp.ones((256, 1024, 1024)))
    for tree in (False, True):
        head, _, *lines = plain(report_view(ranges, tree=tree), width=80).split("\n")
        assert head.split()[-1] == "each"
        assert re.search(r" 12 [▁-█]{8,12}$", lines[0])


def test_names_of_wide_characters_keep_their_ends_and_the_columns_in_line() -> None:
    names = ["漢字" * 30 + "/add", "漢字/層/add", "漢字/層/mul", "abcd/add"]
    ranges = made(*[(0, 1, False)] * 4, names=names)
    for tree in (False, True):
        lines = lines_of(ranges, tree=tree)
        assert "…/add" in lines[0]
        where = [cell_len(line[: line.index("[2]")]) for line in lines if "[2]" in line]
        assert len(set(where)) == 1


@pytest.mark.parametrize("how", [{}, {"tree": True}, {"sort": "amax", "limit": 3}])
def test_a_report_of_nothing_says_so(how: dict[str, Any]) -> None:
    _, ranges = jr.ranges(lambda x: x)(jnp.ones(2))
    assert plain(report_view(ranges, **how)).startswith("0 sites")


@pytest.mark.parametrize("tree", [False, True])
def test_a_report_of_one_site_is_one_line(tree: bool) -> None:
    (line,) = lines_of(made((0, 1, False), names=["a/b/add"]), tree=tree)
    assert line.split()[:5] == ["a/b/add", "[2]", "f32", "0", "1"]


def test_select_selects_as_ranges_do(ranges: jr.Ranges) -> None:
    assert names_of(ranges, select="scan/*") == ["scan/mul", "scan/add"]
    assert names_of(ranges, select=lambda site: site.dtype == bool) == ["gt"]
    with pytest.raises(ValueError, match="select='nothing' selects none of the 19 sites"):
        report_view(ranges, select="nothing")


def test_a_report_inside_jit_says_that_it_is_traced() -> None:
    seen = []

    @jax.jit
    def step(x: Any) -> Any:
        out, ranges = jr.ranges(jnp.exp)(x)
        seen.append(plain(report_view(ranges, tree=True, sort="amax", select="exp")))
        return out

    step(jnp.ones(2))
    assert seen == ["Ranges: 1 site (traced)"]


# -- files ------------------------------------------------------------------------------------


def test_files_are_read_and_several_are_merged(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    first, second = made((0, 1, False)), made((-5, 0, False))
    first.save(a)
    second.save(b)
    assert plain(report_view(a)) == plain(report_view(str(a))) == plain(report_view(first))
    merged = plain(report_view(first | second))
    for files in ([a, b], (str(a), b), iter([a, b])):
        assert plain(report_view(files)) == merged


def test_a_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        report("missing.json")


@pytest.mark.parametrize(
    ("given", "got"),
    [
        (3, "3 of type int"),
        ([], "[] of type list"),
        ({"r.json": 1}, "{'r.json': 1} of type dict"),
        (["r.json", 3], "['r.json', 3] of type list"),
        (
            (1.0, NUMBERS),
            "a tuple that ends in Ranges; jr.ranges(f)(...) returns a pair (out, ranges)",
        ),
    ],
)
def test_what_is_not_ranges_is_an_error(given: Any, got: str) -> None:
    expected = f"a report is of jr.Ranges, of a file or of several; got {got}"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        report(given)


# -- consoles ---------------------------------------------------------------------------------


def printed(ranges: jr.Ranges, **console: Any) -> str:
    file = io.StringIO()
    report(ranges, tree=True, sort="nan", console=Console(file=file, _environ={}, **console))
    return file.getvalue()


def test_there_is_colour_on_a_terminal_and_nowhere_else(ranges: jr.Ranges) -> None:
    terminal = {"force_terminal": True, "color_system": "standard", "width": 100}
    text = printed(ranges, **terminal)
    assert re.search(r"\x1b\[1;31m[^\x1b]*NaN", text)
    assert re.search(r"\x1b\[1;31m[^\x1b]*inf", text)
    assert re.search(r"\x1b\[2m[^\x1b]*not observed", text)  # dim
    assert "\x1b[1mEncoder/" in text
    assert "\x1b" not in printed(ranges, width=100)
    no_colour = printed(ranges, **terminal, no_color=True)
    assert not re.search(r"\x1b\[[\d;]*3\d", no_colour)


def test_lines_do_not_end_in_blanks(ranges: jr.Ranges) -> None:
    assert not re.search(r" $", printed(ranges, width=100), re.MULTILINE)


def test_a_terminal_without_unicode_gets_other_characters(ranges: jr.Ranges) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    report(ranges, tree=True, console=Console(file=file, width=120, _environ={}))
    file.seek(0)
    text = file.read()
    assert "| ` attention_of_many_heads/" in text and "####" in text and "?" not in text


REPORT = """
import sys, jax_ranges as jr
from jax_ranges.report.console import report
report(sys.argv[1], tree=True)
"""


@pytest.fixture
def saved(ranges: jr.Ranges, tmp_path: Path) -> Path:
    ranges.save(tmp_path / "r.json")
    return tmp_path / "r.json"


def command(file: Path) -> list[str]:
    return [sys.executable, "-c", REPORT, str(file)]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    root = str(Path(__file__).parents[1])
    return {**kept, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8", "JAX_PLATFORMS": "cpu", **more}


def piped(file: Path, **more: str) -> str:
    run = subprocess.run(
        command(file), stdin=subprocess.DEVNULL, capture_output=True, env=environment(**more)
    )
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout.decode()


def test_a_pipe_gets_plain_text_160_columns_wide_or_as_columns_says(saved: Path) -> None:
    loaded = report_view(jr.load(saved), tree=True)
    assert piped(saved).rstrip("\n") == plain(loaded, width=160)
    assert piped(saved, COLUMNS="80").rstrip("\n") == plain(loaded, width=80)


def test_a_terminal_gets_colour_in_its_own_width(saved: Path) -> None:
    shown = on_a_terminal(command(saved), environment(TERM="xterm-256color"), columns=80)
    assert "\x1b[" in shown
    bare = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r\n", "\n").rstrip("\n")
    assert bare == plain(report_view(jr.load(saved), tree=True), width=80)


def on_a_terminal(args: list[str], env: dict[str, str], columns: int) -> str:
    """What a program writes to a terminal that is so wide."""
    pty = pytest.importorskip("pty")  # not on Windows
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(args, stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        written = b""
        while chunk := _read(ours):
            written += chunk
    os.close(ours)
    return written.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


# -- redrawing --------------------------------------------------------------------------------


def test_a_live_display_redraws_it() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=40, force_terminal=True, color_system="standard")
    with Live(console=console, auto_refresh=False) as live:
        for k in (1, 2):
            live.update(report_view(made((0, 10**k, False)), tree=True), refresh=True)
    drawn = re.findall(r"largest (\d+) at", file.getvalue())
    assert drawn == ["10", "100", "100"]  # and once more at the end
    assert "\x1b[1A" in file.getvalue()  # over what was there


def test_ranges_stay_as_they_were() -> None:
    before = [np.copy(leaf) for leaf in jax.tree.leaves(NUMBERS)]
    report_view(NUMBERS, sort="amax", tree=True, limit=2)
    for old, new in zip(before, jax.tree.leaves(NUMBERS), strict=True):
        np.testing.assert_array_equal(old, new)
