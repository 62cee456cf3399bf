"""What came out of the runs of tests: JSON lines, and what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .explained import EXPLAINED, Explained

# The outcomes of a run. A process that died leaves the first.
BEGUN, PASSED, SKIPPED, FAILED, OUT_OF_TIME = "begun", "passed", "skipped", "failed", "out of time"


@dataclass
class Result:
    """How one run of a test went.

    Attributes:
      test: pytest's name of it.
      tool: with which it was run; None: plainly.
      measured: how often a function that it jits or transforms was called.
      why: of a failure, its last lines.
    """

    test: str
    tool: str | None
    outcome: str = BEGUN
    measured: int = 0
    why: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it was run with a tool and did not pass."""
        return self.tool is not None and self.outcome not in (PASSED, SKIPPED)


def append(file: Path, result: Result) -> None:
    """Append a line; if the process dies the lines before are there."""
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(result)) + "\n")


def read(file: Path) -> list[Result]:
    """The results of each test when it was last run, plainly and with the tools."""
    last: dict[str, dict[str | None, Result]] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        result = Result(**json.loads(line))
        if result.tool is None:
            last[result.test] = {}
        last[result.test][result.tool] = result
    return [result for of_test in last.values() for result in of_test.values()]


@dataclass(frozen=True)
class Summary:
    """What the results of a suite add up to.

    Attributes:
      ran, passed: tests, plainly.
      measured: of those that passed, the tests in which anything was measured.
      failed: what did not pass then, and nothing explains.
      explained: tests that did not pass, for a reason that is theirs.
      idle: the reasons that explained nothing though a test that they name was measured.
    """

    ran: int
    passed: int
    measured: int
    failed: Sequence[Result]
    explained: int
    idle: Sequence[Explained]

    @classmethod
    def of(
        cls, suite: str, results: Iterable[Result], reasons: Sequence[Explained] = EXPLAINED
    ) -> Summary:
        results = list(results)
        plain = [result for result in results if result.tool is None]
        tried = [r for r in results if r.tool is not None]
        failures = [result for result in tried if result.failed]
        excused = [r for r in failures if any(e.covers(suite, r.test, r.tool) for e in reasons)]
        return cls(
            ran=sum(result.outcome != SKIPPED for result in plain),
            passed=sum(result.outcome == PASSED for result in plain),
            measured=len({result.test for result in tried}),
            failed=[result for result in failures if result not in excused],
            explained=len({result.test for result in excused}),
            idle=[e for e in reasons if _is_idle(e, suite, tried, excused)],
        )

    @property
    def clean(self) -> bool:
        """Whether all is as it should be."""
        return not self.failed and not self.idle

    def row(self, *cells: str) -> str:
        """A line of the table in tests/README.md, which begins with these cells."""
        failed = len({result.test for result in self.failed})
        observed = self.passed - self.explained - failed
        numbers = (self.ran, self.passed, self.measured, observed, self.explained)
        return "| " + " | ".join([*cells, *map(str, numbers)]) + " |"

    def text(self) -> str:
        """What is not as it should be, for a console."""
        kinds = Counter((r.outcome, r.why.rstrip().rpartition("\n")[2]) for r in self.failed)
        lines = [f"{result.tool}: {result.outcome}: {result.test}" for result in self.failed]
        lines += [f"{count:5} {outcome}: {why[:300]}" for (outcome, why), count in kinds.items()]
        return "\n".join(lines + [f"explains nothing: {e.tests}: {e.reason}" for e in self.idle])


def _is_idle(
    reason: Explained, suite: str, tried: Sequence[Result], excused: Sequence[Result]
) -> bool:
    def covers(result: Result) -> bool:
        return result.tool is not None and reason.covers(suite, result.test, result.tool)

    return not reason.rarely and any(map(covers, tried)) and not any(map(covers, excused))
