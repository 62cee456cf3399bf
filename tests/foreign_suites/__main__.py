"""Run test suites of other packages through jax_ranges, and say what differs.

    python -m tests.foreign_suites optax haiku [--sample 0.1] [--seconds 300] [-k expression]

runs each test plainly and, if it passes, again with each tool: all that it jits, differentiates or
vectorizes goes through `jr.ranges`, `jr.Net`, `jr.find_nonfinite` and `jr.simulate` (with a recipe
that changes nothing). It prints what passed plainly and failed then, but for what `explained.py`
gives a reason for; the reasons that no longer hold; and the row for tests/README.md. It exits with
1 if there is anything to print but the row.

The suites of optax and haiku are in their wheels. For the others check out, of the version that is
installed, the repository, or its folder of tests, as `--sources`/<package>.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax

from .results import Summary, read
from .suites import SUITES, Suite
from .tools import TOOLS

ROOT = Path(__file__).parents[2]

# A process that dies is followed by another, which leaves out the test at which it did.
MOST_PROCESSES = 10


def main() -> int:
    options, passed_on = _parser().parse_known_args()
    summaries = []
    for name in options.suites:
        suite = SUITES[name]
        with tempfile.TemporaryDirectory() as folder:
            out = (options.out or Path(folder)) / f"{name}.jsonl"
            if not options.only_count:
                run_suite(suite, options.sources, out, [*pytest_options(options), *passed_on])
            summary = Summary.of(name, read(out))
        print(summary.text())
        print(summary.row(name, _version(suite), jax.__version__), flush=True)
        summaries.append(summary)
    return int(not all(summary.clean for summary in summaries))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.foreign_suites", epilog="Other options are pytest's."
    )
    parser.add_argument(
        "suites", nargs="+", choices=SUITES, metavar="suite", help=", ".join(SUITES)
    )
    parser.add_argument("--with", dest="tools", default=",".join(TOOLS), help="tools, by commas")
    parser.add_argument("--sample", type=float, default=1.0, help="the part of the tests to run")
    parser.add_argument("--seed", default="0", help="which part, and in which order")
    parser.add_argument("--seconds", type=float, default=0, help="begin no test after so many")
    parser.add_argument("--limit", type=int, default=60, help="seconds that a test may take")
    parser.add_argument("--sources", type=Path, default=Path("/tmp/sources"))
    parser.add_argument("--out", type=Path, help="a folder that keeps the results: run on there")
    parser.add_argument("--again", action="store_true", help="run what failed, says --out")
    parser.add_argument("--only-count", action="store_true", help="those that are in --out")
    return parser


def pytest_options(options: argparse.Namespace) -> list[str]:
    given = {
        "with": options.tools,
        "sample": options.sample,
        "seed": options.seed,
        "seconds": options.seconds,
        "limit": options.limit,
    }
    again = ["--observed-again"] if options.again else []
    return again + [f"--observed-{name}={value}" for name, value in given.items()]


def run_suite(suite: Suite, sources: Path, out: Path, arguments: list[str]) -> None:
    """Run a suite in processes of its own, its results to `out`.

    Raises:
      FileNotFoundError: its tests are not there.
      RuntimeError: pytest could not collect them.
    """
    folder = suite.folder(sources)
    # The plugin is not loaded as `tests.foreign_suites`: `tests` may be the suite's own folder.
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | dict(suite.environment) | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "foreign_suites.plugin"]
    command += ["-p", "no:cacheprovider", "--tb=short", f"--observed-out={out}", *arguments]
    command += [*suite.arguments, *map(str, suite.found(sources))]
    for _ in range(MOST_PROCESSES):
        run = subprocess.run(command, env=environment, cwd=folder.parent, check=False)
        if run.returncode in (0, 1, 5):  # all passed; some did not; there were none
            return
        if run.returncode >= 0:
            raise RuntimeError(f"pytest ended with {run.returncode}: {' '.join(command)}")
    raise RuntimeError(f"{suite.name} ended {MOST_PROCESSES} processes, see {out}")


def _version(suite: Suite) -> str:
    distributions = importlib.metadata.packages_distributions()[suite.package]
    return f"{suite.package} {importlib.metadata.version(distributions[0])}"


if __name__ == "__main__":
    sys.exit(main())
