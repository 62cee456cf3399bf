"""Scopes as nodes of a tree, each with the worst of what is inside. Nothing here draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from jax_ranges.report.rows import Row, name_parts
from jax_ranges.report.tree import scope_row


@dataclass(frozen=True, eq=False)
class Node:
    """A scope.

    Attributes:
      path: its name; "" of the node above all scopes.
      label: what is left of it below the scope above.
      row: of the largest site inside, with what is wrong in any.
      members: the indices of all sites inside, in program order.
      inside: the scopes right below.
      over: for each format how many sites are beyond it.
      changed: how many sites did in a comparison.
    """

    path: str
    label: str
    row: Row
    members: Sequence[int]
    inside: Sequence[Node]
    over: Sequence[int]
    changed: int

    def walk(self) -> Iterator[Node]:
        """It and all below, from top to bottom."""
        yield self
        for node in self.inside:
            yield from node.walk()


def scopes_of(
    rows: Sequence[Row], over: Sequence[Sequence[int]], formats: int, changed: Set[int]
) -> Node:
    """The node above all scopes.

    A scope that has nothing but one other is joined with it.

    Args:
      rows: of all sites, at least one.
      over: for each of them the indices of the formats that it is beyond.
      formats: how many formats there are.
      changed: the indices of those to which something happened.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.report.rows import rows_of
      >>> def net(x):
      ...     with jax.named_scope("net"), jax.named_scope("layer"):
      ...         return jnp.exp(-x)
      >>> rows = rows_of(jr.ranges(net)(jnp.ones(2))[1])
      >>> for node in scopes_of(rows, [[], []], 0, set()).walk():
      ...     print(node.label, len(node.members))
      all 2
      net/layer 2
    """
    parts = [name_parts(row.name)[:-1] for row in rows]
    return _Scopes(rows, parts, over, formats, changed).node(range(len(rows)), 0, 0)


@dataclass(frozen=True)
class _Scopes:
    rows: Sequence[Row]
    parts: Sequence[Sequence[str]]
    over: Sequence[Sequence[int]]
    formats: int
    changed: Set[int]

    def node(self, members: Sequence[int], above: int, depth: int) -> Node:
        """Of sites with `depth` scopes in common, of which `above` are those of the node above."""
        branches = self._branches(members, depth)
        while depth and len(branches) == 1 and len(branches[0]) == len(members):
            depth += 1
            branches = self._branches(members, depth)
        scopes = self.parts[members[0]][:depth]
        label = "/".join(scopes[above:]) or "all"
        beyond = [sum(k in self.over[i] for i in members) for k in range(self.formats)]
        return Node(
            "/".join(scopes),
            label,
            scope_row(label, [self.rows[i] for i in members]),
            members,
            [self.node(branch, depth, depth + 1) for branch in branches],
            beyond,
            sum(i in self.changed for i in members),
        )

    def _branches(self, members: Sequence[int], depth: int) -> list[list[int]]:
        """The members of each scope that comes next."""
        found: dict[str, list[int]] = {}
        for i in members:
            if len(self.parts[i]) > depth:
                found.setdefault(self.parts[i][depth], []).append(i)
        return list(found.values())
