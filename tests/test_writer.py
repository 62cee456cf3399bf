"""The thread that writes, and what becomes of windows that it does not write."""

from __future__ import annotations

import threading

import jax.numpy as jnp

import jax_ranges as jr
from jax_ranges.recorder import Recorder, Window
from jax_ranges.writer import Writer


def test_jobs_are_done_one_after_the_other_and_waited_for():
    writer, done, go = Writer(), [], threading.Event()
    writer.put(go.wait)
    for i in range(3):
        assert writer.put(lambda i=i: done.append(i))
    assert done == []
    go.set()
    writer.wait()
    assert done == [0, 1, 2]
    writer.end()
    assert not writer.put(lambda: done.append(3))  # too late
    writer.wait()
    writer.join()
    assert done == [0, 1, 2]


def test_a_job_that_raises_is_shown_and_the_next_one_is_done(monkeypatch):
    shown, done = [], []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))
    writer = Writer()
    writer.put(lambda: 1 / 0)
    writer.put(lambda: done.append(1))
    writer.wait()
    assert (shown, done) == ([ZeroDivisionError], [1])
    writer.end()


def seen_by(recorder: Recorder, total: bool) -> list[float]:
    info = recorder.read(total)
    return [float(info["add"].max)] if len(info) else []


def test_a_window_that_was_kept_is_written_with_the_next_one_only():
    net, written = jr.Net(lambda x: x + x), []
    recorder, window = net._recorder, Window()
    net(jnp.float32(2))
    recorder.take(window)
    assert seen_by(recorder, total=False) == [] and seen_by(recorder, total=True) == [4]
    recorder.keep(window)
    assert seen_by(recorder, total=False) == [4]
    recorder.finish(window, written.append)  # as by a job that was put nevertheless
    assert written == [] and seen_by(recorder, total=False) == [4]
    recorder.take(last := Window())
    recorder.finish(last, written.append)
    assert [float(ranges["add"].max) for ranges in written] == [4]
    assert seen_by(recorder, total=False) == [] and seen_by(recorder, total=True) == [4]


def test_who_keeps_a_window_that_is_being_written_does_not_get_it_back():
    net, written = jr.Net(lambda x: x + x), []
    recorder, window = net._recorder, Window()
    net(jnp.float32(2))
    recorder.take(window)

    def write(ranges: jr.Ranges) -> None:
        recorder.keep(window)  # as by a Ctrl-C where the window was just handed over
        assert seen_by(recorder, total=False) == []
        written.append(ranges)

    recorder.finish(window, write)
    assert len(written) == 1
    assert seen_by(recorder, total=False) == [] and seen_by(recorder, total=True) == [4]
