"""A recipe as text: a line a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_ranges import compat
from jax_ranges.quantization.recipe import QRule, Recipe
from jax_ranges.quantization.specs import Dynamic, Spec

LIMIT = 200


def recipe_text(recipe: Recipe) -> str:
    """What it says, the first `LIMIT` rules of it."""
    entries = recipe.entries[:LIMIT]
    width = max((len(entry.sites) for entry in entries), default=0)
    lines = [f"  {entry.sites:{width}}  {', '.join(_rule(entry.rule))}" for entry in entries]
    more = len(recipe) - len(entries)
    count = f"{len(recipe):,} rule{'s' * (len(recipe) != 1)}"
    note = ", the first that matches a site holds" if len(recipe) > 1 else ""
    return "\n".join([f"Recipe: {count}{note}", *lines, *[f"  and {more:,} more"] * bool(more)])


def _rule(rule: QRule) -> Iterator[str]:
    if not rule.specs:
        yield "as it is"
    if rule.operands is not None and any(rule.operands):
        yield f"operands {', '.join(map(_spec, rule.operands))}"
    if rule.output is not None:
        yield f"output {_spec(rule.output)}"


def _spec(spec: Spec | None) -> str:
    if spec is None:
        return "as it is"
    if isinstance(spec, Dynamic):
        whole = "each channel" if spec.channels else "each value"
        return f"{spec.format} scale made of {whole}"
    scale, zero_point = (_number(part) for part in (spec.scale, spec.zero_point))
    parts = [str(spec.format)]
    parts += [f"scale {scale}"] if scale != "1" or spec.format.kind == "int" else []
    parts += [f"zero point {zero_point}"] if zero_point != "0" else []
    return " ".join(parts)


def _number(part: Any) -> str:
    if compat.is_traced(part):
        return "traced"
    array = np.asarray(part)
    if array.ndim:
        return f"{array.min():.4g} to {array.max():.4g}" if array.any() else "0"
    return f"{array[()]:.4g}"
