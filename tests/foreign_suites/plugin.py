"""pytest plugin: each test plainly, then once for each tool; results as JSON lines.

    pytest -p foreign_suites.plugin --observed-out=results.jsonl --observed-with=ranges,net ...

The tests, and the packages that they test, import the `jit` that it puts into jax. See `__main__`.
"""

from __future__ import annotations

import gc
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import pytest
from _pytest.runner import runtestprotocol

from .observed import CURRENT, install
from .results import FAILED, OUT_OF_TIME, PASSED, SKIPPED, Result, append, read
from .tools import TOOLS

# By the ids of JAX's functions what tests are given in their place.
REPLACED: dict[int, Any] = {}

# What the tests compiled is given back after so many.
TESTS_KEPT = 40

# So many of a failure's last characters are kept.
REASON = 6000


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("observed")
    group.addoption("--observed-out", type=Path, help="append the results to this file")
    group.addoption("--observed-with", default=",".join(TOOLS), help="the tools, by commas")
    group.addoption("--observed-sample", type=float, default=1.0, help="part of the tests to run")
    group.addoption("--observed-seconds", type=float, default=0.0, help="stop after so many")
    group.addoption("--observed-limit", type=int, default=60, help="seconds for a test, once")
    group.addoption("--observed-again", action="store_true", help="run what failed before")
    group.addoption("--observed-seed", default="0", help="chooses the sample and the order")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    REPLACED.update(install())


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--observed-out") is not None:
        config.pluginmanager.register(Runs(config), "observed-runs")


class Runs:
    """Runs the tests, several times each."""

    def __init__(self, config: pytest.Config):
        option = config.getoption
        self._out: Path = option("--observed-out")
        self._tools: list[str] = [tool for tool in option("--observed-with").split(",") if tool]
        self._sample, self._seed = option("--observed-sample"), option("--observed-seed")
        self._again: bool = option("--observed-again")
        self._limit, seconds = option("--observed-limit"), option("--observed-seconds")
        self._until = time.monotonic() + seconds if seconds else None
        self._count = 0

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Chooses the sample, in random order; what was run before is left out, or what passed."""
        _replace_imported(items)
        before = read(self._out)
        failed = {result.test for result in before if result.failed}
        left_out = {result.test for result in before} - (failed if self._again else set())
        chosen = [i for i in items if self._number(i) < self._sample and i.nodeid not in left_out]
        if self._again:
            chosen = [item for item in chosen if item.nodeid in failed]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = sorted(chosen, key=self._number)

    def _number(self, item: Any) -> float:
        """A number in [0, 1) that depends on the test's name and the seed only."""
        return zlib.crc32(f"{self._seed} {item.nodeid}".encode()) / 2**32

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> bool:
        if self._until is not None and time.monotonic() > self._until:
            return True
        self._count += 1
        if self._count % TESTS_KEPT == 0:
            jax.clear_caches()
            gc.collect()
        plain = self._run(item, nextitem, None)
        if plain.outcome == PASSED and plain.measured:
            for tool in self._tools:
                item._initrequest()
                self._run(item, nextitem, tool)
        return True

    def _run(self, item: Any, nextitem: Any, tool: str | None) -> Result:
        CURRENT.tool, CURRENT.measured = tool, 0
        CURRENT.wrong.clear()
        append(self._out, Result(item.nodeid, tool))
        started = time.monotonic()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        CURRENT.tool = None
        result = _result(item.nodeid, tool, reports)
        result.seconds = round(time.monotonic() - started, 2)
        append(self._out, result)
        if tool is None:
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
        return result

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: Any) -> Iterator[None]:
        with _alarm(self._limit):
            yield


def _replace_imported(items: list[Any]) -> None:
    """What the tests' modules imported from JAX's own modules, which are as they were."""
    for module in {item.module for item in items if getattr(item, "module", None) is not None}:
        for name, value in list(vars(module).items()):
            if id(value) in REPLACED:
                setattr(module, name, REPLACED[id(value)])


def _result(test: str, tool: str | None, reports: list[pytest.TestReport]) -> Result:
    failed = next((report for report in reports if report.failed), None)
    outcome, why = PASSED, "\n".join(CURRENT.wrong)
    if failed is not None:
        why = failed.longreprtext
        outcome = OUT_OF_TIME if OutOfTime.__name__ in why else FAILED
    elif any(report.skipped for report in reports):
        outcome = SKIPPED
    elif CURRENT.wrong:
        outcome = FAILED
    return Result(test, tool, outcome, CURRENT.measured, why[-REASON:])


class OutOfTime(BaseException):
    """The test took too long. Not an Exception, which a test might expect."""


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise OutOfTime(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
