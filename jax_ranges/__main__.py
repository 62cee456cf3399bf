"""The command line: `jax-ranges`, or `python -m jax_ranges`.

Every command makes a text and an exit code from files of ranges, which are small: nothing is
printed before all is known to be well. No accelerator is touched, so a look at the ranges of a
run takes no device from it.

Exit codes: 0 fine; 1 `diff` found differences beyond the threshold; 2 wrong usage or a file that
cannot be read or written; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from jax_ranges.diff import Diff, diff
from jax_ranges.files import as_json, format_of, load, rendering
from jax_ranges.files.atomic import write_atomically
from jax_ranges.files.losses import message_of
from jax_ranges.files.reading import decoded, parsed_json
from jax_ranges.files.records import records_of
from jax_ranges.ranges import Ranges, UnknownSiteError
from jax_ranges.site import chosen

Result = tuple[str, int]
"""What goes to standard output, and the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; `argv` is that of the process if None.

    SystemExit, as argparse has it, after `--help` (0) and for wrong usage (2).
    """
    if argv is None:  # the process is ours; it may run beside one that has the accelerator
        jax.config.update("jax_platforms", "cpu")
        if isinstance(sys.stdout, io.TextIOWrapper):  # names may have what no encoding has
            sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(argv)
    try:
        text, code = options.run(options)
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at exit
        return 141
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, UnknownSiteError, ModuleNotFoundError) as error:
        _say_line(_message(error))
        return 2
    except Exception:  # a mistake of ours; Python's 1 would say that there are differences
        traceback.print_exc()
        return 2
    return code


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _say_line(message: object) -> None:
    """On one line of standard error."""
    print("jax-ranges:", " ".join(str(message).splitlines()), file=sys.stderr)


# -- commands ---------------------------------------------------------------------------------


def _show(options: argparse.Namespace) -> Result:
    from jax_ranges.report.console import report_view

    ranges = _loaded(options)
    if options.json:
        return _sorted_json(ranges, options), 0
    how = {"sort": options.sort, "tree": options.tree, "limit": options.limit}
    view = report_view(ranges, **how, reads=options.reads)
    return _drawn(view, options.width), 0


def _sorted_json(ranges: Ranges, options: argparse.Namespace) -> str:
    from jax_ranges.report.order import excerpt
    from jax_ranges.report.rows import rows_of

    records = records_of(ranges, merged=False)
    part = excerpt(rows_of(ranges), options.sort, options.limit)
    return as_json.write([records[i] for i in part.shown])


def _diff(options: argparse.Namespace) -> Result:
    from jax_ranges.report.diff_table import diff_table

    found = _selected(diff(options.a, options.b, options.threshold), options.select)
    code = 1 if found.violations else 0
    if options.json:
        return json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n", code
    return _drawn(diff_table(found, options.limit), options.width), code


def _selected(found: Diff, select: list[str] | None) -> Diff:
    """Not of the files before they are compared: what is selected may be in one of them only."""
    picked = chosen([row.site for row in found.rows], select)
    return replace(found, rows=tuple(found.rows[i] for i in picked))


def _merge(options: argparse.Namespace) -> Result:
    return _written(options, format_of(options.output))


def _export(options: argparse.Namespace) -> Result:
    if options.as_ not in HANDED and (options.names, options.unfit) != (None, None):
        raise ValueError(f"--names and --unfit go with --for, and this is {options.as_}")
    return _written(options, options.as_)


def _written(options: argparse.Namespace, as_: Any) -> Result:
    if options.delimiter is not None and as_ != "text":
        raise ValueError(f"--delimiter is for Caffe2's text, and this is {as_}")
    delimiter = " " if options.delimiter is None else options.delimiter.replace("\\t", "\t")
    ranges = _loaded(options)
    if as_ in HANDED:
        text = _handed(ranges, options)
    else:
        text, losses = rendering(ranges, as_, delimiter)
        if losses:
            _say_line(message_of(options.output or "the output", losses))
    if options.output is None:
        return text, 0
    write_atomically(Path(options.output), text)
    return "", 0


def _html(options: argparse.Namespace) -> Result:
    before = None if options.before is None else _selected_of(load(options.before), options)
    title = options.title or ", ".join(Path(file).name for file in options.files)
    formats = options.format or None
    text = _loaded(options).to_html(options.output, before=before, formats=formats, title=title)
    return text or "", 0


def _view(options: argparse.Namespace) -> Result:
    from jax_ranges.report.page import DEFAULT_FORMATS
    from jax_ranges.report.view import check_installed, view

    check_installed()  # before files are read, which may take a while
    if not has_terminal():
        raise ValueError("view takes a terminal to read keys from; `jax-ranges show` prints")
    before = None if options.before is None else _selected_of(load(options.before), options)
    title = ", ".join(Path(file).name for file in options.files)
    view(_loaded(options), before, options.format or DEFAULT_FORMATS, title)
    return "", 0


def has_terminal() -> bool:
    """Whether somebody can press keys and see what comes of it."""
    return sys.stdin.isatty() and sys.stdout.isatty()


HANDED = {
    "scales": "JSON of int8 scales and zero points by name",
    "onnxruntime": "the cache of quantize_static",
    "tensorrt": "a calibration cache",
    "caffe2-qparams": "lines of quantization parameters",
    "caffe2-histograms": "lines of histograms",
}
"""What is handed over to other tools; see `jax_ranges.handover`, which knows more of them."""


def _handed(ranges: Ranges, options: argparse.Namespace) -> str:
    from jax_ranges import handover

    write: dict[str, Callable[..., Any]] = {
        "scales": handover.scales,
        "onnxruntime": handover.onnxruntime_ranges,
        "tensorrt": handover.tensorrt_cache,
        "caffe2-qparams": handover.caffe2_qparams,
        "caffe2-histograms": handover.caffe2_histograms,
    }
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", handover.UnfitSiteWarning)
        made = write[options.as_](ranges, _names(options.names), unfit=options.unfit or "error")
    for each in said:
        _say_line(each.message)
    return made if isinstance(made, str) else json.dumps(made, indent=1) + "\n"


def _names(file: str | None) -> dict[str, str] | None:
    if file is None:
        return None
    data = Path(file).read_bytes()
    try:
        names = parsed_json(decoded(data))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if not (isinstance(names, dict) and all(isinstance(name, str) for name in names.values())):
        raise ValueError(f'{file} is no JSON object of names by site, {{"encoder/add": "y", ...}}')
    return names


def _loaded(options: argparse.Namespace) -> Ranges:
    return _selected_of(load(*options.files), options)


def _selected_of(ranges: Ranges, options: argparse.Namespace) -> Ranges:
    return ranges.select(options.select) if options.select else ranges


def _drawn(view: Any, width: int | None) -> str:
    # Not printed at once: when the reader of a pipe goes away, rich ends the process with 1,
    # which says of `diff` that it found differences.
    from rich.console import Console

    from jax_ranges.report.console import standard_output

    console = standard_output() if width is None else Console(width=width)
    with console.capture() as captured:
        console.print(view)
    return captured.get()


# -- usage ------------------------------------------------------------------------------------

DESCRIPTION = """\
Look at, compare, merge and convert files of numeric ranges, as jax_ranges saves them:
ranges.save("r.json"), or the dumps of jr.Net. The format of a file (JSON, CSV, Caffe2's text) is
known by its content. Several files are merged by site name."""

EPILOG = """\
examples:
  jax-ranges show r.json --sort amax --limit 20      the largest values first
  jax-ranges show dump_*.txt --select 'Encoder/*'    what several runs saw in one part
  jax-ranges diff expected.json r.json --threshold 0.1 || echo "ranges moved"
  jax-ranges html r.json -o r.html                   a page to look at, search and share
  jax-ranges view r.json                             browse them in this terminal
  jax-ranges merge host_*.json -o all.json           one range a site over all hosts
  jax-ranges export r.json --caffe2 -o r.minmax      for what reads Caffe2's dumps

`jax-ranges COMMAND --help` says more of each.

exit codes: 0 fine; 1 diff found differences beyond the threshold; 2 wrong usage, or a file that
cannot be read or written (with a message on standard error)."""

SHOW = """\
Print the range of every site as a table, or as a tree by scope: min, max, whether there was a
NaN, and a bar on a scale of powers of two that is the same for all."""

SHOW_EPILOG = """\
examples:
  jax-ranges show r.json
  jax-ranges show r.json --tree
  jax-ranges show r.json --sort nan --limit 10                where the trouble is
  jax-ranges show r.json --select dot_general --select 'Encoder/*'
  jax-ranges show r.json --json | jq '.sites[] | select(.max == "inf") | .name'"""

DIFF = """\
Say what moved from the ranges in A to those in B, site by site, the worst first.

The score of a site is how far its range in B reaches beyond that in A, relative to the largest
magnitude in A: from [-2, 10] to [-2, 10.1] it is 0.01. It is inf where a NaN or an infinity
appeared, where numbers are that A has none for, and for sites in one file only. What narrowed
scores 0; compare B with A to have it scored."""

DIFF_EPILOG = """\
examples:
  jax-ranges diff expected.json r.json
  jax-ranges diff expected.json r.json --threshold 0.1        in CI: exit code 1 if a site
                                                              grew by more than a tenth
  jax-ranges diff a.json b.json --json | jq -r '.changed[].name'

exit codes: 0 no score exceeds the threshold; 1 some do; 2 a file cannot be read."""

HTML = """\
Write one HTML page that opens in any browser, offline: the tree of scopes, a table that sorts,
searches and filters, the limits of number formats over every range, and what else the file
holds: counts of exponents as a heat map, the iterations of stacked loops as plots."""

HTML_EPILOG = """\
examples:
  jax-ranges html r.json -o r.html
  jax-ranges html new.json --before old.json -o moved.html       what moved, too
  jax-ranges html r.json --format int8 --format float8_e5m2 -o r.html"""

VIEW = """\
Browse ranges in this terminal, with the keyboard: the tree of scopes with the worst of what is
inside, a table that sorts, searches and filters, and all that is known of one site: its operands,
charts of the exponents or bins that were counted, and what the number formats would do. `?` says
the keys. It takes textual: pip install 'jax-ranges[view]'."""

VIEW_EPILOG = """\
examples:
  jax-ranges view r.json
  jax-ranges view new.json --before old.json      what moved, the worst first
  jax-ranges view r.json --format int8            sites beyond int8 are marked"""

MERGE = """\
Merge files of ranges by site name: the least min, the largest max, any NaN. Sites that are in
some of the files only are kept. The ending of OUT chooses its format: .json, .csv, or .txt,
.minmax or none for Caffe2's text."""

MERGE_EPILOG = """\
examples:
  jax-ranges merge host_0.json host_1.json -o all.json
  jax-ranges merge dump_*.txt -o all.csv"""

EXPORT = """\
Write ranges in another format, to standard output or to a file. JSON holds everything, CSV the
same ranges exactly, those of stacked loops merged, and Caffe2's text, which has six words a line,
their numbers as float32. What is left out is said on standard error.

Or hand scales over to other tools, stacked ranges merged. That a site was not observed, or saw a
NaN or an infinity, is an error then."""

EXPORT_EPILOG = """\
examples:
  jax-ranges export r.json --csv -o r.csv
  jax-ranges export r.json --caffe2 --delimiter '\\t' | cut -f 4-
  jax-ranges export dump_*.txt --json -o all.json
  jax-ranges export r.json --for tensorrt --unfit skip -o calibration.cache"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jax-ranges",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, short: str, long: str, epilog: str) -> Any:
        made = commands.add_parser(
            name,
            help=short,
            description=long,
            epilog=epilog,
            formatter_class=parser.formatter_class,
        )
        made.set_defaults(run=run)
        made.add_argument(
            *("--select", "-s"),
            action="append",
            metavar="GLOB",
            help="only these sites: a glob of names ('Encoder/*') or a primitive "
            "('dot_general'); repeat it for more",
        )
        return made

    _show_options(command("show", _show, "print ranges as a table or a tree", SHOW, SHOW_EPILOG))
    _diff_options(command("diff", _diff, "say what moved between two files", DIFF, DIFF_EPILOG))
    _html_options(command("html", _html, "write a page for the browser", HTML, HTML_EPILOG))
    _view_options(command("view", _view, "browse in this terminal", VIEW, VIEW_EPILOG))
    _merge_options(command("merge", _merge, "merge files by site name", MERGE, MERGE_EPILOG))
    _export_options(command("export", _export, "write another format", EXPORT, EXPORT_EPILOG))
    return parser


Parser = argparse.ArgumentParser


def _show_options(parser: Parser) -> None:
    _files(parser)
    parser.add_argument(
        "--sort",
        choices=("program", "width", "amax", "nan", "name"),
        default="program",
        help="program order (the default); width, amax (largest magnitude), nan (NaN and "
        "infinities): the most first; or name",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--tree", "-t", action="store_true", help="sites below their scopes")
    parser.add_argument(
        "--reads", action="store_true", help="also show which arguments each operation reads"
    )
    _json(either)
    _limits(parser)


def _diff_options(parser: Parser) -> None:
    parser.add_argument("a", metavar="A", help="the file with the ranges as expected")
    parser.add_argument("b", metavar="B", help="the file with the ranges to compare")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="T",
        help="scores up to this are fine (default: 0, so any growth counts)",
    )
    _json(parser)
    _limits(parser)


def _html_options(parser: Parser) -> None:
    _files(parser)
    parser.add_argument("--output", "-o", metavar="OUT", help="the file (default: standard output)")
    _before(parser)
    _formats(parser, "whose limits are drawn")
    parser.add_argument("--title", metavar="TEXT", help="of the page (default: the files' names)")


def _view_options(parser: Parser) -> None:
    _files(parser)
    _before(parser)
    _formats(parser, "by which sites are judged, the first one until f picks another")


def _merge_options(parser: Parser) -> None:
    _files(parser)
    parser.add_argument("--output", "-o", required=True, metavar="OUT", help="the file to write")
    _delimiter(parser)


def _export_options(parser: Parser) -> None:
    _files(parser)
    formats = parser.add_mutually_exclusive_group(required=True)
    for flag, as_, what in (
        ("--csv", "csv", "comma-separated values with a header"),
        ("--caffe2", "text", "lines of op_index op_type output_idx tensor_name min max"),
        ("--json", "json", "JSON, all there is"),
    ):
        formats.add_argument(flag, dest="as_", action="store_const", const=as_, help=what)
    tools = "; ".join(f"{tool}: {what}" for tool, what in HANDED.items())
    formats.add_argument("--for", dest="as_", choices=HANDED, metavar="TOOL", help=tools)
    parser.add_argument("--output", "-o", metavar="OUT", help="the file (default: standard output)")
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="with --for: JSON with the tool's names of tensors, by site; these sites only",
    )
    parser.add_argument(
        "--unfit",
        choices=("error", "skip"),
        help="with --for: skip leaves out sites that no scale can be made of (default: error)",
    )
    _delimiter(parser)


def _files(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file of ranges; several merge")


def _before(parser: Parser) -> None:
    parser.add_argument("--before", metavar="FILE", help="older ranges: show what moved since then")


def _formats(parser: Parser, what: str) -> None:
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME",
        help=f"{what} ('float8_e4m3fn', 'int8', ...); repeat it for more",
    )


def _delimiter(parser: Parser) -> None:
    parser.add_argument(
        "--delimiter",
        metavar="D",
        help="between the fields of Caffe2's text (default: a space); '\\t' is a tab",
    )


def _json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="JSON for other programs")


def _limits(parser: Parser) -> None:
    parser.add_argument(
        "--limit", "-n", type=_at_least(0), metavar="N", help="show no more sites than N"
    )
    parser.add_argument(
        "--width",
        type=_at_least(1),
        metavar="COLUMNS",
        help="of the table (default: the terminal's)",
    )


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
        return int(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
