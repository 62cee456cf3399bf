"""Ranges of the several processes of a `jax.distributed` program."""

from __future__ import annotations

import functools

import jax
import numpy as np
from jax.experimental import multihost_utils

from jax_ranges.files import parsed, rendered
from jax_ranges.ranges import Ranges


def merge_processes(ranges: Ranges) -> Ranges:
    """Merge what the processes of a `jax.distributed` program measured each on its own.

    All of them must call it, and get the same result, on the host. Sites go by name: the
    processes may have run different programs. Ranges of arrays that are sharded over all
    processes are global already (law 8), and merging those changes nothing.

    Raises:
      ValueError: statistics of one's own: their states cannot be sent as they are.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.sin)(jnp.arange(3.0))
      >>> jr.merge_processes(ranges)["sin"]  # of the only process
      Range(min=0.0, max=0.9092974, nan=False)
    """
    text = np.frombuffer(rendered(ranges, "json").encode(), np.uint8)
    lengths = _of_all(np.asarray(len(text), np.int32))
    texts = _of_all(np.pad(text, (0, int(lengths.max()) - len(text))))
    pairs = zip(texts, lengths, strict=True)
    each = [parsed(row[:length].tobytes().decode()) for row, length in pairs]
    return functools.reduce(Ranges.merge, each)


def _of_all(array: np.ndarray) -> np.ndarray:
    """The arrays of all processes, of one shape, in the order of their indices."""
    if jax.process_count() == 1:
        return array[None]
    return np.asarray(multihost_utils.process_allgather(array))
