"""The command line: as a user types it, in a process of its own, and in this one for breadth."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from glob import glob
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import jax_ranges as jr
from jax_ranges import __main__ as command_line
from jax_ranges import handover
from jax_ranges.__main__ import main
from jax_ranges.diff import diff
from jax_ranges.files import rendered
from jax_ranges.report import view as viewer
from jax_ranges.report.console import report

ROOT = Path(__file__).parent.parent


def model(x):
    with jax.named_scope("Encoder"):
        with jax.named_scope("attn"):
            y = jnp.log(x)
        z = jnp.exp(y) * 3.0
    return z.astype(jnp.bfloat16) + 1


def ranges_of(*values):
    return jr.ranges(model)(jnp.array(values))[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With the files of two runs, and in it."""
    monkeypatch.chdir(tmp_path)
    ranges_of(1.0, 2.0).save("a.json")
    ranges_of(0.0, 4.0).save("b.csv")
    jax.vmap(jr.ranges(jnp.negative))(jnp.ones(2))[1].save("stacked.json")
    Path("bad.json").write_text("{")
    Path("short.txt").write_text("0 sin 0 sin 1.0 2.0\n1 cos 0 cos 1.0\n")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def typed(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line in a shell; `jax-ranges` is what the installed script runs."""
    script = "import sys; from jax_ranges.__main__ import main; sys.exit(main())"
    shell = f'jax-ranges() {{ {shlex.quote(sys.executable)} -c {shlex.quote(script)} "$@"; }}\n'
    line = line.replace("python -m", f"{shlex.quote(sys.executable)} -m")
    return subprocess.run(
        ["bash", "-c", shell + line],
        capture_output=True,
        text=True,
        check=False,
        env=environment(**more),
    )


def called(capsys, line: str) -> tuple[int, str, str]:
    code = main(shlex.split(line))
    return code, *capsys.readouterr()


# -- as a user types it -----------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", ["jax-ranges", "python -m jax_ranges"])
def test_a_session_in_a_shell(command):
    shown = typed(f"{command} show a.json")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Encoder/attn/log" in shown.stdout
    assert "\x1b" not in shown.stdout  # colour is for terminals
    assert typed(f"{command} diff a.json a.json").returncode == 0
    assert typed(f"{command} diff a.json b.csv --threshold 0.1").returncode == 1
    merged = typed(f"{command} merge a.json b.csv -o c.csv && {command} export c.csv --caffe2")
    assert merged.returncode == 0
    said = "jax-ranges: the output: the ranges are written, but not dtypes other than float32"
    assert merged.stderr.startswith(said) and merged.stderr.count("\n") == 1
    assert merged.stdout == rendered(ranges_of(0.0, 4.0) | ranges_of(1.0, 2.0), "text")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "line",
    [
        "show a.json b.csv --sort amax",
        "diff a.json b.csv --threshold inf",
        "merge a.json b.csv -o c.json",
        "export b.csv --json",
        "html a.json --before b.csv",
    ],
)
def test_no_accelerator_is_asked_for(line):
    """There is no such platform: to initialise it is an error."""
    found = typed(f"jax-ranges {line}", JAX_PLATFORMS="nonsense")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.usefixtures("folder")
def test_no_backend_is_needed_at_all_to_show_and_to_compare():
    code = (
        "import sys, jax_ranges.__main__ as m\n"
        "sys.exit(m.main(['show', 'a.json']) or m.main(['diff', 'a.json', 'a.json']))"
    )
    found = typed(f"{sys.executable} -c {shlex.quote(code)}", JAX_PLATFORMS="nonsense")
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("show missing.json", "jax-ranges: missing.json: No such file or directory\n"),
        ("show bad.json", "jax-ranges: bad.json is damaged or no file of ranges: Expecting"),
        ("show a.json short.txt", "short.txt is damaged: line 2: 5 fields instead of 6"),
        ("merge a.json -o missing/c.csv", "missing: there is no such folder\n"),
        ("show", "the following arguments are required: FILE"),
        ("", "the following arguments are required: COMMAND"),
        ("export a.json", "one of the arguments --csv --caffe2 --json --for is required"),
    ],
)
def test_what_goes_wrong_is_said_without_a_traceback_and_the_code_is_2(line, message):
    found = typed(f"jax-ranges {line}")
    assert (found.returncode, found.stdout) == (2, "")
    assert message in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.usefixtures("folder")
def test_a_reader_that_goes_away_is_no_trouble():
    command = [sys.executable, "-m", "jax_ranges", "diff", "a.json", "b.csv"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment(), **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_ctrl_c_is_130_without_a_traceback(folder):
    os.mkfifo(folder / "pipe")
    # A process in the background of a script, as CI's may be, starts with ctrl-C switched off.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('jax_ranges', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "show", "pipe"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        with open(folder / "pipe", "w") as pipe:
            # More than a pipe holds: once it is written, the command is past its imports, and
            # reads. Another thread of it may get the signal, so what ends the reading is the end.
            pipe.write(" " * (1 << 20))
            pipe.flush()
            process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 130


# -- show -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_show_prints_the_report(capsys):
    code, out, _ = called(
        capsys, "show a.json b.csv --sort amax --width 100 --limit 3 -s Encoder/*"
    )
    console = Console(width=100)
    with console.capture() as captured:
        report(["a.json", "b.csv"], select="Encoder/*", sort="amax", limit=3, console=console)
    assert (code, out) == (0, captured.get())
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.usefixtures("folder")
def test_show_has_a_tree_and_all_orders(capsys):
    assert "└" in called(capsys, "show a.json --tree")[1]
    orders = [called(capsys, f"show b.csv --sort {o}")[1] for o in ("program", "name", "nan")]
    assert len(set(orders)) == 3
    assert called(capsys, "show b.csv --limit 0")[0] == 0


@pytest.mark.usefixtures("folder")
def test_show_json_is_a_file_of_ranges_sorted_and_cut(capsys):
    code, out, _ = called(capsys, "show a.json --json --sort amax --limit 2")
    sites = json.loads(out)["sites"]
    assert [site["name"] for site in sites] == ["add", "Encoder/mul"]
    Path("again.json").write_text(out)
    assert jr.load("again.json")["add"] == ranges_of(1.0, 2.0)["add"]
    assert code == 0
    stacked = json.loads(called(capsys, "show stacked.json --json")[1])["sites"][0]
    assert stacked["max"] == [-1.0, -1.0]


# -- diff -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
def test_diff_has_the_exit_code_that_ci_needs(capsys):
    code, out, _ = called(capsys, "diff a.json b.csv --width 80")
    assert code == 1
    assert "inf appeared" in out
    assert called(capsys, "diff b.csv b.csv")[:2] == (0, "0 of 5 sites changed · 0 beyond 0\n")
    assert called(capsys, "diff a.json b.csv --threshold 1e9")[0] == 1  # inf
    assert called(capsys, "diff a.json b.csv --threshold inf")[0] == 0
    assert called(capsys, "diff a.json b.csv --threshold 1.1 -s add -s Encoder/mul")[0] == 0


@pytest.mark.usefixtures("folder")
def test_diff_json_is_for_programs(capsys):
    code, out, _ = called(capsys, "diff a.json b.csv --json --threshold 0.5")
    assert code == 1
    assert json.loads(out) == diff("a.json", "b.csv", threshold=0.5).to_json()


@pytest.mark.usefixtures("folder")
def test_diff_selects_what_is_in_one_file_only(capsys):
    called(capsys, "merge a.json -s Encoder/* -o part.json")
    code, out, _ = called(capsys, "diff a.json part.json -s add")
    assert code == 1
    assert "went" in out
    code, _, err = called(capsys, "diff a.json part.json -s nothing")
    assert code == 2
    assert "select=['nothing'] selects none of the" in err


@pytest.mark.usefixtures("folder")
def test_diff_shows_no_more_than_the_limit(capsys):
    out = called(capsys, "diff a.json b.csv --limit 1")[1]
    assert "… 4 more" in out


# -- merge and export -------------------------------------------------------------------------


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("file", ["c.json", "c.csv"])
def test_merge_writes_what_the_ending_says(capsys, file):
    assert called(capsys, f"merge a.json b.csv -o {file}") == (0, "", "")
    merged = ranges_of(0.0, 4.0) | ranges_of(1.0, 2.0)
    assert {name: repr(found) for name, found in jr.load(file).items()} == {
        name: repr(found) for name, found in merged.items()
    }
    assert called(capsys, f"merge a.json b.csv -o {file} --select log") == (0, "", "")
    assert list(jr.load(file)) == ["Encoder/attn/log"]


@pytest.mark.usefixtures("folder")
def test_what_a_format_does_not_hold_is_said_and_the_rest_is_written(capsys):
    code, out, error = called(capsys, "merge a.json b.csv -o c.txt")
    assert (code, out) == (0, "")
    assert error.startswith("jax-ranges: c.txt: the ranges are written, but not dtypes other than")
    assert "nor infinities" in error and error.count("\n") == 1
    assert (
        jr.load("c.txt")["Encoder/mul"]
        == (ranges_of(0.0, 4.0) | ranges_of(1.0, 2.0))["Encoder/mul"]
    )
    jr.ranges(model, stats=(jr.MinMax(), jr.Health()))(jnp.ones(2))[1].save("health.json")
    code, out, error = called(capsys, "export health.json --csv")
    assert (code, out) == (0, rendered(ranges_of(1.0, 1.0), "csv"))
    assert error == (
        "jax-ranges: the output: the ranges are written, but not what Health() took. A .json file "
        "holds all of it\n"
    )
    assert called(capsys, "export health.json --json -o all.json") == (0, "", "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["m.parquet", "m.html", "m.jsonl"])
def test_merge_writes_no_format_that_there_is_not(capsys, name):
    code, out, error = called(capsys, f"merge a.json missing.json -o {name}")
    assert (code, out) == (2, "") and error.count("\n") == 1
    assert f"'{name}': no format of ranges has the ending" in error and ".minmax" in error
    assert not Path(name).exists()


@pytest.mark.usefixtures("folder")
def test_export_writes_any_format_to_the_output_or_a_file(capsys):
    ranges = jr.load("a.json")
    for flag, as_ in (("--csv", "csv"), ("--caffe2", "text"), ("--json", "json")):
        assert called(capsys, f"export a.json {flag}")[:2] == (0, rendered(ranges, as_))
        assert called(capsys, f"export a.json {flag} -o out.any")[:2] == (0, "")
        assert Path("out.any").read_text() == rendered(ranges, as_)
    rows = list(csv.DictReader(called(capsys, "export stacked.json --csv")[1].splitlines()))
    assert [(row["name"], row["max"]) for row in rows] == [("neg", "-1.0")]


@pytest.mark.usefixtures("folder")
def test_export_hands_scales_over(capsys):
    ranges = jr.load("a.json").reduce()
    for tool, expected in {
        "tensorrt": handover.tensorrt_cache(ranges),
        "caffe2-qparams": handover.caffe2_qparams(ranges),
        "scales": json.dumps(handover.scales(ranges), indent=1) + "\n",
        "onnxruntime": json.dumps(handover.onnxruntime_ranges(ranges), indent=1) + "\n",
    }.items():
        assert called(capsys, f"export a.json --for {tool}") == (0, expected, "")
        assert called(capsys, f"export a.json --for {tool} -o out.any") == (0, "", "")
        assert Path("out.any").read_text() == expected
    measured = jr.ranges(model, stats=(jr.MinMax(), jr.Histogram(bins=8)))(jnp.array([1.0, 2.0]))[1]
    measured.save("histograms.json")
    expected = handover.caffe2_histograms(measured)
    assert called(capsys, "export histograms.json --for caffe2-histograms") == (0, expected, "")


@pytest.mark.usefixtures("folder")
def test_export_of_scales_takes_names_and_says_what_is_unfit(capsys):
    ranges = jr.load("a.json")
    Path("names.json").write_text('{"Encoder/exp": "Y"}')
    out = handover.tensorrt_cache(ranges, {"Encoder/exp": "Y"})
    assert called(capsys, "export a.json --for tensorrt --names names.json") == (0, out, "")
    code, out, error = called(capsys, "export b.csv --for scales")
    assert (code, out) == (2, "") and "'Encoder/attn/log' (an infinity was seen)" in error
    code, out, error = called(capsys, "export b.csv --for scales --unfit skip")
    assert code == 0 and "Encoder/attn/log" not in json.loads(out)
    assert error.startswith("jax-ranges: 1 of ") and "they are left out" in error

    Path("names.json").write_text('{"Encoder/ex": "Y"}')
    code, _, error = called(capsys, "export a.json --for scales --names names.json")
    assert code == 2 and "names= has 'Encoder/ex', which is no site; the nearest are" in error
    for text, message in {
        "[1]": "is no JSON object of",
        '{"a": 1}': "is no",
        "{": "is no JSON: ",
    }.items():
        Path("names.json").write_text(text)
        code, _, error = called(capsys, "export a.json --for scales --names names.json")
        assert code == 2 and f"names.json {message}" in error
    code, _, error = called(capsys, "export a.json --csv --unfit skip")
    assert code == 2 and "--names and --unfit go with --for, and this is csv" in error


@pytest.mark.usefixtures("folder")
def test_the_delimiter_is_for_text(capsys):
    out = called(capsys, r"export a.json --caffe2 --delimiter '\t'")[1]
    assert out == rendered(jr.load("a.json"), "text", "\t")
    for line, message in (
        (
            "export a.json --csv --delimiter ';'",
            "--delimiter is for Caffe2's text, and this is csv",
        ),
        ("merge a.json -o c.json --delimiter ';'", "and this is json"),
        ("export a.json --caffe2 --delimiter x", "the delimiter must not occur in the fields"),
        ("export a.json --caffe2 --delimiter ''", "the delimiter must be one character or more"),
    ):
        code, _, err = called(capsys, line)
        assert code == 2
        assert message in err


# -- usage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "show a --sort size",
        "show a --limit -1",
        "show a --limit x",
        "show a --width 0",
        "show a --tree --json",
        "diff a",
        "diff a b --threshold x",
        "merge a",
        "export a --csv --json",
        "sho a",
    ],
)
def test_wrong_usage_is_2(capsys, line):
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(line))
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("usage: jax-ranges")


@pytest.mark.usefixtures("folder")
def test_a_threshold_that_is_no_score_is_2(capsys):
    for wrong in ("-1", "nan"):
        code, _, err = called(capsys, f"diff a.json b.csv --threshold={wrong}")
        assert code == 2
        assert "the threshold is a score" in err


def help_of(capsys, *command: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert not exit_.value.code
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_help_teaches(capsys):
    for command in ("show", "diff", "view", "merge", "export"):
        assert command in help_of(capsys)
        text = help_of(capsys, command)
        assert f"examples:\n  jax-ranges {command} " in text
        assert max(map(len, text.splitlines())) <= 100


@pytest.fixture
def browser(monkeypatch):
    """A terminal, and a browser that reads what it is given, and is left at once."""
    monkeypatch.setattr(command_line, "has_terminal", lambda: True)
    monkeypatch.setattr(viewer, "check_installed", lambda: None)
    monkeypatch.setattr(viewer, "view", viewer.model_of)


COMMANDS = [(), ("show",), ("diff",), ("view",), ("merge",), ("export",)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_the_help_are_right(capsys, browser, folder, command):
    del browser
    for name in ("r", "expected", "b", "host_0", "host_1", "new", "old"):
        (folder / f"{name}.json").write_text((folder / "a.json").read_text())
    (folder / "dump_1.txt").write_text((folder / "b.csv").read_text())
    lines = re.findall(r"^ +jax-ranges (.*?)(?:  .*)?$", help_of(capsys, *command), re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line.partition(" |")[0])
        arguments = [each for word in words for each in sorted(glob(word)) or [word]]
        assert main(arguments) == 0, line
        capsys.readouterr()
