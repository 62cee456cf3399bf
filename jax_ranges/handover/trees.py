"""Trees of variables: their leaves with the keys that lead to them."""

from __future__ import annotations

from typing import Any

import jax

Keys = tuple[Any, ...]


def leaves_of(tree: Any) -> tuple[list[tuple[Keys, Any]], Any]:
    """Each leaf with its keys (of dicts), names (of fields), indices; and the tree's structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [(tuple(map(_key, path)), leaf) for path, leaf in leaves], treedef


def _key(entry: Any) -> Any:
    return next(getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind))
