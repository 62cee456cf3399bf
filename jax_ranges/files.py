"""Files of ranges: JSON, exact, written atomically, with the format's version in them.

One object a site, in program order, with the range as anybody would read it (derived ones
computed), so that other programs need nothing of ours. JSON has no infinities and no NaN, so
these are strings; other floats are written with all the digits that a float64 needs, of which a
float32 is an exact case. Stacked and vmapped ranges are nested lists.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.ranges import Range, Ranges, from_states
from jax_ranges.site import Site
from jax_ranges.stats import Extrema, MinMax

FORMAT = "jax_ranges"
VERSION = 1


def save(ranges: Ranges, file: str | os.PathLike[str]) -> None:
    """Write `ranges` to `file`; the file is whole at every moment, old or new.

    Raises:
      ValueError: inside jit, where there are no values; or other statistics than MinMax.
      OSError: the file cannot be written; nothing of an older one is lost.
    """
    others = [stat for stat in ranges.stats if not isinstance(stat, MinMax)]
    if others:
        raise ValueError(f"files hold the ranges of MinMax, not {others}; save ranges without them")
    if any(compat.is_traced(leaf) for leaf in jax.tree.leaves(ranges)):
        raise ValueError(
            "these ranges are traced (inside jit, vmap or grad) and have no values yet: return "
            "them from the transformed function and save them outside"
        )
    records = [_record(site, ranges[site.name]) for site in ranges.sites]
    document = {"format": FORMAT, "version": VERSION, "sites": records}
    _write_atomically(Path(file), json.dumps(document, indent=1, allow_nan=False) + "\n")


def load(file: str | os.PathLike[str], *others: str | os.PathLike[str]) -> Ranges:
    """Read a file that `Ranges.save` wrote; several files are merged by site name.

    Raises:
      ValueError: the file is damaged, is something else, or is of a newer version.
      OSError: it cannot be read.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.sin)(jnp.arange(3.0))
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "r.json"
      >>> ranges.save(file)
      >>> jr.load(file)["sin"] == ranges["sin"]
      True
    """
    loaded = _load(Path(file))
    for other in others:
        loaded = loaded.merge(_load(Path(other)))
    return loaded


def _record(site: Site, found: Range) -> dict[str, Any]:
    unseen = found.min > found.max
    return {
        "name": site.name,
        "primitive": site.primitive,
        "output": site.output,
        "shape": list(site.shape),
        "dtype": str(site.dtype),
        "source": site.source,
        "operands": list(site.operands),
        "backward": site.backward,
        "min": _plain(found.min, unseen),
        "max": _plain(found.max, unseen),
        "nan": np.asarray(found.nan).tolist(),
    }


def _plain(values: Any, unseen: Any) -> Any:
    """Numbers as JSON has them; None where no value was seen."""

    def plain(value: Any, unseen: Any) -> Any:
        if isinstance(value, list):
            return [plain(v, u) for v, u in zip(value, unseen, strict=True)]
        if unseen:
            return None
        return str(value) if isinstance(value, float) and abs(value) == np.inf else value

    return plain(np.asarray(values).tolist(), np.asarray(unseen).tolist())


def _load(file: Path) -> Ranges:
    text = file.read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is damaged or no file of ranges: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{file} is JSON, but not a file of ranges: it has no format {FORMAT!r}")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"{file} has version {version!r} of the format, newer than version {VERSION}, which "
            f"this jax_ranges reads: upgrade jax_ranges, or save the file with this release"
        )
    try:
        pairs = [_site_and_state(record) for record in document["sites"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error!r} in one of its sites") from error
    return from_states([site for site, _ in pairs], [{MinMax(): state} for _, state in pairs])


def _site_and_state(record: dict[str, Any]) -> tuple[Site, Extrema]:
    site = Site(
        name=str(record["name"]),
        primitive=str(record["primitive"]),
        output=int(record["output"]),
        shape=tuple(record["shape"]),
        dtype=jnp.dtype(record["dtype"]),
        source=str(record["source"]),
        operands=tuple(record["operands"]),
        backward=bool(record["backward"]),
    )
    carrier = keys.carrier_dtype(keys.real_dtype(site.dtype))
    least, most = keys.limits(carrier)
    lo, hi = _array(record["min"], most, carrier), _array(record["max"], least, carrier)
    nan = np.asarray(record["nan"], bool)
    if not lo.shape == hi.shape == nan.shape:
        raise ValueError(f"min, max and nan of {site.name!r} do not belong together")
    return site, MinMax().state(lo, hi, nan, site.dtype, np)


def _array(values: Any, unseen: Any, dtype: np.dtype) -> np.ndarray:
    """An array of `dtype`, with `unseen` for None."""

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(v) for v in value]
        if value is None:
            return unseen
        return float(value) if keys.is_float(dtype) else int(value)

    return np.asarray(fill(values)).astype(dtype)


def _write_atomically(file: Path, text: str) -> None:
    """To a temporary file beside it, flushed to the disk, then renamed over it."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
