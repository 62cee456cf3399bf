"""The FlatBuffers file of ONNX Runtime's calibration table: a few words, laid out by hand.

The schema (as generated for it, github.com/microsoft/onnxruntime,
onnxruntime/core/providers/tensorrt/ort_trt_int8_cal_table.fbs.h):

    table KeyValue { key: string (key); value: string; }
    table TrtTable { dict: [KeyValue]; }

The layout (flatbuffers.dev/internals), in little-endian words of 32 bits: a reference is the
distance from itself to what it refers to; a table begins with the distance back to its vtable,
which says, in words of 16 bits, its own size, the table's, and where in it each field is; a vector
or a string begins with its length.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping

_HEAD = struct.Struct("<I 3H 4H 2x i I")  # the root, two vtables, the TrtTable
_KEY_VALUE = struct.Struct("<i I I")
_VTABLE_OF_TABLE, _VTABLE_OF_KEY_VALUE, _TABLE = 4, 10, 20  # where these are


def table_bytes(values: Mapping[str, str]) -> bytes:
    """The content of a file with these pairs, sorted by key, as the schema wants them."""
    texts = [_string(text) for pair in sorted(_encoded(values)) for text in pair]
    count = len(texts) // 2
    vector = _HEAD.size
    entries = vector + 4 + 4 * count
    starts = list(itertools.accumulate(map(len, texts), initial=entries + _KEY_VALUE.size * count))
    own = [entries + _KEY_VALUE.size * i for i in range(count)]
    refs = [at - (vector + 4 + 4 * i) for i, at in enumerate(own)]
    tables = [
        _KEY_VALUE.pack(at - _VTABLE_OF_KEY_VALUE, key - (at + 4), value - (at + 8))
        for at, key, value in zip(own, starts[:-1:2], starts[1::2], strict=True)
    ]
    return b"".join([_head(), struct.pack(f"<I{count}I", count, *refs), *tables, *texts])


def _head() -> bytes:
    sizes_and_fields = (6, 8, 4), (8, 12, 4, 8)
    return _HEAD.pack(_TABLE, *itertools.chain(*sizes_and_fields), _TABLE - _VTABLE_OF_TABLE, 4)


def _encoded(values: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(key.encode("utf-8"), value.encode("utf-8")) for key, value in values.items()]


def _string(text: bytes) -> bytes:
    """Its length, itself, a zero, and as many more as fill a word."""
    return struct.pack("<I", len(text)) + text + bytes(4 - len(text) % 4)
