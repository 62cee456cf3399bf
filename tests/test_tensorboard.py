"""The TensorBoard example: its event file, read back by a reader of our own.

Event files are TFRecords: the length of a record as uint64, a masked CRC-32C of that, the record,
and a masked CRC of the record. Records are protocol buffers, of which three messages matter:
`Event` {1: wall_time, 2: step, 5: summary}, `Summary` {1: value}, `Value` {1: tag,
2: simple_value}. (github.com/tensorflow/tensorboard, tensorboard/compat/proto/event.proto and
summary.proto; tensorflow/core/lib/io/record_writer.h; CRC-32C as in RFC 3720, B.4.)
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jax_ranges as jr
from tests.test_examples import example

STEPS, EVERY = 60, 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the example wrote, run as from a shell."""
    pytest.importorskip("tensorboardX", reason="the example writes with tensorboardX")
    module, path = example("log_to_tensorboard"), tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        told = ["log_to_tensorboard.py", str(path), "--steps", str(STEPS), "--every", str(EVERY)]
        patch.setattr(sys, "argv", told)
        module.main()
    return path


def test_the_event_file_has_the_numbers_of_the_windows(folder: Path) -> None:
    events = dict(events_in(folder))
    assert list(events) == [20, 40, 60]
    for step, scalars in events.items():
        window = jr.load(folder / f"ranges_{step}.json")
        expected = {tag: np.float32(x) for tag, x in window.scalars("ranges/").items()}
        assert {tag: x for tag, x in scalars.items() if tag != "loss"} == expected
        assert "ranges/transpose(jvp(hidden))/dot_general/max" in scalars


def test_it_learns_and_the_event_file_says_so(folder: Path) -> None:
    losses = [scalars["loss"] for _, scalars in events_in(folder)]
    assert losses[0] > losses[-1] > 0


def test_windows_begin_anew(folder: Path) -> None:
    windows = [jr.load(folder / f"ranges_{step}.json") for step in (20, 40, 60)]
    assert len({float(window["jvp(hidden)/dot_general"].max) for window in windows}) == 3


def test_the_reader_finds_what_is_damaged(folder: Path) -> None:
    (file,) = folder.glob("*tfevents*")
    data = bytearray(file.read_bytes())
    data[-8] ^= 1
    with pytest.raises(AssertionError, match="damaged"):
        list(records(bytes(data)))


# -- the reader -------------------------------------------------------------------------------


def events_in(folder: Path) -> Iterator[tuple[int, dict[str, np.float32]]]:
    """The step and the scalars of each event that has any."""
    (file,) = folder.glob("*tfevents*")
    for record in records(file.read_bytes()):
        event = dict(fields(record))
        if 5 in event:
            yield event[2], dict(scalar(value) for _, value in fields(event[5]))


def scalar(message: bytes) -> tuple[str, np.float32]:
    value = dict(fields(message))
    return value[1].decode(), np.frombuffer(value[2], "<f4")[0]


def records(data: bytes) -> Iterator[bytes]:
    while data:
        length, sum_of_length = struct.unpack("<QI", data[:12])
        record, (sum_of_record,) = (
            data[12 : 12 + length],
            struct.unpack("<I", data[12 + length :][:4]),
        )
        sums = masked_crc(data[:8]), masked_crc(record)
        assert sums == (sum_of_length, sum_of_record), "the file is damaged"
        yield record
        data = data[16 + length :]


def masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The numbers of a message's fields and their values; fixed and nested ones as bytes."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(message, at)
            yield number, value
            continue
        size, at = varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        yield number, message[at : at + size]
        at += size


def varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
