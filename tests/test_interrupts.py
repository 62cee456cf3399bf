"""Ctrl-C, and signal handlers, at every point of a net's calls and dumps at which they can come.

CPython looks for signals when a function of Python begins, when one written in C has returned,
and in loops. `sys.setprofile` is told of the first two, so an exception raised there, or a call
made there, is what a signal handler would have done there.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr
from jax_ranges.accumulate import _copied

OURS = str(Path(jr.__file__).parent)
STANDARD = ("contextlib.py", "threading.py")  # where ours call them
SECONDS = 60
ONE = np.float32(1)


class Signal:
    """Calls `handler` at the `n`-th point of what this thread does in our code."""

    def __init__(self, n: int, handler: Callable[[], Any]):
        self.left, self.handler = n, handler
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "c_return") or not _is_ours(frame):
            return
        self.left -= 1
        if self.left == 0:
            sys.setprofile(None)
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} ({event})"
            self.handler()


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename.endswith(STANDARD):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OURS)


def in_time(action: Callable[[], Any], where: Callable[[], str]) -> Any:
    """What it returns, in a thread of its own: whoever waits for ever shall not do so here."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(action()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert found, f"it does not end, or fails, after a signal at {where()}"
    return found[0]


def interrupted(action: Callable[[], Any], step: int = 1) -> Iterator[tuple[str, bool]]:
    """Run it again and again, with a Ctrl-C at one point after the other.

    Gives where it was, and whether the action was completed nevertheless.
    """

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    for n in itertools.count(1, step):
        signal, completed = Signal(n, ctrl_c), False
        sys.setprofile(signal)
        try:
            action()
            completed = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        if not signal.where:
            return
        yield signal.where, completed


def handled(action: Callable[[], Any], handler: Callable[[], Any], n: int) -> str:
    """Run it with a signal handler at the n-th point; where that was, "" if there are fewer."""
    signal = Signal(n, handler)

    def run() -> bool:
        sys.setprofile(signal)
        try:
            action()
        finally:
            sys.setprofile(None)
        return True

    in_time(run, lambda: signal.where)
    return signal.where


def values_in(ranges: jr.Ranges) -> int:
    """How many values were seen, which is the number of calls."""
    return ranges.of("add", jr.Health()).total if "add" in ranges else 0


def seen(net: jr.Net, where: str, total: bool = True) -> int:
    """By another thread, lest a lock that was left behind is not noticed."""
    return in_time(lambda: values_in(net.get_info(total)), lambda: where)


def a_net(folder: Path, dump_every: int | None = None) -> jr.Net:
    stats = (jr.MinMax(), jr.Health())
    net = jr.Net(lambda x: x + x, stats=stats, dump_file=folder / "r.json", dump_every=dump_every)
    net(ONE)
    return net


def values_in_files(folder: Path) -> int:
    return sum(values_in(jr.load(file)) for file in folder.glob("r_*.json"))


# -- ctrl-C -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dump_every", [None, 1])
def test_ctrl_c_in_a_call_loses_nothing_and_leaves_no_lock_behind(tmp_path, dump_every):
    net, calls, points = a_net(tmp_path, dump_every), 1, 0
    for where, completed in interrupted(lambda: net(ONE)):
        points += 1
        net(ONE)  # finds what the one before has left
        found = seen(net, where)
        assert calls + 1 + completed <= found <= calls + 2, where
        calls = found
    assert points > 20
    total = seen(net, "the end")
    net.close()
    assert values_in_files(tmp_path) + seen(net, "the end", total=False) == total


def test_a_copy_runs_nothing_of_jax_s_own_that_a_ctrl_c_could_tear_apart():
    arrays = [jnp.zeros(3), jnp.ones((2, 2), jnp.int32)]
    _copied(arrays)  # compiled
    called: list[str] = []

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_filename)

    sys.setprofile(profile)
    copies = _copied(arrays)
    sys.setprofile(None)
    assert not called
    for copy, array in zip(copies, arrays, strict=True):
        assert copy.unsafe_buffer_pointer() != array.unsafe_buffer_pointer()
        np.testing.assert_array_equal(copy, array)


# Right after the temporary file was opened it is Python that closes it, and says so.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_ctrl_c_in_a_dump_loses_nothing_and_writes_nothing_twice(tmp_path):
    net, file = a_net(tmp_path), tmp_path / "r_1.json"
    total = points = 0
    for where, _ in interrupted(lambda: net.dump_and_reset(file), step=3):
        points, total = points + 1, total + 1
        assert seen(net, where) == total, where
        written = values_in(jr.load(file)) if file.exists() else 0
        # The file may be there, and who writes it not know it yet.
        expected = (1, 2) if "atomic.py" in where else (1,)
        assert written + seen(net, where, total=False) in expected, where
        net.dump_and_reset(tmp_path / "rest.json")
        assert seen(net, where, total=False) == 0, where
        file.unlink(missing_ok=True)
        net(ONE)
    assert points > 50


# -- signal handlers --------------------------------------------------------------------------


@pytest.mark.parametrize("does", ["reads", "dumps", "calls"])
@pytest.mark.parametrize("meets", ["a call", "a call that dumps", "a dump"])
def test_a_signal_handler_may_use_the_net(tmp_path, does, meets):
    net = a_net(tmp_path, dump_every=1 if meets == "a call that dumps" else None)
    calls = 1
    for n in itertools.count(1, 3 if meets == "a dump" else 1):
        dumps = functools.partial(net.dump_and_reset, tmp_path / f"r_{n}_main.json")
        handlers = {
            "reads": functools.partial(net.get_info, total=True),
            "dumps": functools.partial(net.dump_and_reset, tmp_path / f"r_{n}_handler.json"),
            "calls": functools.partial(net, ONE),
        }
        net(ONE)
        where = handled(dumps if meets == "a dump" else lambda: net(ONE), handlers[does], n)
        if not where:
            break
        calls += 1 + (meets != "a dump") + (does == "calls")
        assert seen(net, where) == calls, where
    assert n > 20
    net.close()
    total = seen(net, "the end")
    assert values_in_files(tmp_path) + seen(net, "the end", total=False) == total


@pytest.mark.parametrize("meets", ["a call", "a dump"])
def test_a_signal_handler_may_close_the_net(tmp_path, meets):
    for n in itertools.count(2, 11):  # the first is before the call knows that it will be observed
        folder = tmp_path / str(n)
        folder.mkdir()
        # A call finds the thread at work on the window of the one before; a dump finds one to dump.
        net = a_net(folder, dump_every=1 if meets == "a call" else 2)
        dump = functools.partial(net.dump_and_reset, folder / "r_x.json")
        action = dump if meets == "a dump" else functools.partial(net, ONE)
        where = handled(action, net.close, n)
        if not where:
            break
        calls = 1 + (meets == "a call")
        assert seen(net, where) == calls, where
        # What closes in the middle of a call cannot know what the call will see.
        assert calls - 1 <= values_in(jr.load(folder / "r.json")) <= calls, where
        net.dump_and_reset(folder / "r_y.json")
        assert values_in_files(folder) == calls, where
    assert n > 100


def test_a_signal_handler_may_close_the_net_that_another_thread_waits_for(tmp_path):
    for n in itertools.count(2, 7):
        folder = tmp_path / str(n)
        folder.mkdir()
        net = a_net(folder, dump_every=1)
        other = threading.Thread(target=net.dump_and_reset, args=(folder / "r_x.json",))

        def close(net: jr.Net = net, other: threading.Thread = other) -> None:
            other.start()
            other.join(0.02)  # not longer: it may wait for the call that was interrupted
            net.close()

        where = handled(functools.partial(net, ONE), close, n)
        if not where:
            break
        other.join(SECONDS)
        assert seen(net, where) == 2, where
        net.dump_and_reset(folder / "r_y.json")
        assert values_in_files(folder) == 2, where
    assert n > 20


def test_the_garbage_collector_may_close_the_net_in_the_thread_that_writes(tmp_path):
    net = a_net(tmp_path, dump_every=1)
    closed = threading.Event()

    def close() -> None:
        net.close()
        closed.set()

    writer = net._dumps._writer
    assert writer is not None
    writer.put(close)
    assert closed.wait(SECONDS)
    assert values_in(jr.load(tmp_path / "r.json")) == 1
