"""Trees: the scopes in the names of sites, as lines from top to bottom. Nothing here draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

from jax_ranges.report.order import Excerpt, by_amax
from jax_ranges.report.rows import Row, name_parts, sites_text


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a site, or a scope of several.

    Attributes:
      guide: what leads to it from the lines above.
      label: its part of the name; that of a scope ends in a slash.
      row: of the site; of a scope that of its largest site, and what is wrong in any.
    """

    guide: str
    label: str
    row: Row


def tree_lines(rows: Sequence[Row], part: Excerpt) -> list[Line]:
    """The sites that are shown, below their scopes, which count all of theirs.

    Siblings are sorted as their first rows are. What has one child only is joined with it, a
    scope or a site, so that a line below another is always one of several.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.report.order import excerpt
      >>> from jax_ranges.report.rows import rows_of
      >>> def net(x):
      ...     with jax.named_scope("net/layer"):
      ...         return jnp.exp(-x)
      >>> rows = rows_of(jr.ranges(net)(jnp.ones(2))[1])
      >>> for line in tree_lines(rows, excerpt(rows)):
      ...     print(line.guide + line.label, line.row.dtype)
      net/layer/ 2 sites
      ├ neg f32
      └ exp f32
    """
    parts = [name_parts(row.name) for row in rows]
    order = [*part.head, *part.hidden, *part.tail]
    return list(_Tree(rows, parts, frozenset(part.shown)).lines(order))


@dataclass(frozen=True)
class _Tree:
    rows: Sequence[Row]
    parts: Sequence[Sequence[str]]
    shown: Set[int]

    def lines(
        self, members: Sequence[int], depth: int = 0, stem: str | None = None
    ) -> Iterator[Line]:
        """Of the rows `members`, whose names have the first `depth` parts in common."""
        branches = [b for b in self._branches(members, depth) if not self.shown.isdisjoint(b)]
        for branch in branches:
            last = branch is branches[-1]
            guide = "" if stem is None else stem + ("└ " if last else "├ ")
            below = "" if stem is None else stem + ("  " if last else "│ ")
            yield from self._branch(branch, depth, guide, below)

    def _branch(self, branch: Sequence[int], depth: int, guide: str, below: str) -> Iterator[Line]:
        parts = self.parts[branch[0]]
        if len(branch) == 1:
            yield Line(guide, "/".join(parts[depth:]), self.rows[branch[0]])
            return
        end = self._fork(branch, depth + 1)
        label = "".join(f"{part}/" for part in parts[depth:end])
        yield Line(guide, label, scope_row(label, [self.rows[i] for i in branch]))
        yield from self.lines(branch, end, below)

    def _branches(self, members: Sequence[int], depth: int) -> list[list[int]]:
        """One for each scope, in the order of their first rows, and one for each site."""
        found: dict[str | int, list[int]] = {}
        for i in members:
            found.setdefault(self._step(i, depth) or i, []).append(i)
        return list(found.values())

    def _fork(self, branch: Sequence[int], depth: int) -> int:
        """How many parts the names of a branch have in common, the last ones not counted."""
        while len(steps := {self._step(i, depth) for i in branch}) == 1 and None not in steps:
            depth += 1
        return depth

    def _step(self, i: int, depth: int) -> str | None:
        """The scope, with its slash, that comes next in the name of row `i`; None at its end."""
        parts = self.parts[i]
        return parts[depth] + "/" if len(parts) > depth + 1 else None


def scope_row(name: str, rows: Sequence[Row]) -> Row:
    """What a line says of a scope: its largest site, and what is wrong in any."""
    return replace(
        min(rows, key=by_amax),
        name=name,
        scope="",
        primitive="",
        shape="",
        dtype=sites_text(len(rows)),
        nan=any(row.nan for row in rows),
        source="",
        backward=all(row.backward for row in rows),
        lead=(),
        each=(),
        sites=len(rows),
    )
