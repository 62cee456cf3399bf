"""Which module a matrix product or convolution belongs to: what qwix, AQT and flax address.

A site's name has the scopes it is in, and flax linen opens one for each module:
`jit(f)/Model/scan/Block_0/Dense_1/dot_general` is in the module `Block_0/Dense_1` of a `Model`.
Flax nnx opens none; but a weight is an argument, `input/model/layers/0/kernel/value`, and belongs
to the module that uses it. So where scopes end with the paths of the weights used there, they are
the modules' paths, after that of the model itself; where none does, the weights' paths are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jax_ranges import keys
from jax_ranges.handover.sites import (
    Names,
    Source,
    Unfit,
    fit,
    problem,
    require_known,
    require_values,
)
from jax_ranges.quantization.calibrated import PRODUCTS
from jax_ranges.quantization.seen import Seen
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select, Site

Path = tuple[str, ...]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Product:
    """A matrix product or convolution.

    Attributes:
      site: its site.
      module: the path of its module, "" for the model itself.
      op: "dot_general", "einsum" or "conv_general_dilated".
      index: how many of the same module and op are before it.
    """

    site: Site
    module: str
    op: str
    index: int


@dataclass(frozen=True)
class Model:
    """The matrix products and convolutions of a program, forward and backward, in its order."""

    seen: Seen
    forward: tuple[Product, ...]
    backward: tuple[Product, ...]

    @classmethod
    def of(
        cls, ranges: Ranges, names: Names, root: str | None, weight_inputs: Select, unfit: Unfit
    ) -> Model:
        """Of ranges, leading axes merged; `names` are the modules' paths, if given."""
        require_values(ranges)
        seen = Seen.of(ranges, weight_inputs)
        sites = [s for s in seen.ranges.sites if s.primitive in PRODUCTS and keys.is_float(s.dtype)]
        _require_operands(sites)
        paths = _given(sites, names, ranges) if names is not None else _found(sites, seen, root)
        # Of the backward pass only gradients are asked for, of the modules of the forward pass.
        own = [
            (site.name, None if path is not None else NO_MODULE, (site, path))
            for site, path in paths
            if path is not None or not site.backward
        ]
        placed = [(site, path) for site, path in fit(own, unfit) if path is not None]
        return cls(seen, *(tuple(_counted(placed, backward)) for backward in (False, True)))

    def activations(self, product: Product) -> tuple[str, ...]:
        """Where the operands come from that are not weights; the first, if both are."""
        operands = product.site.by_operand
        found = [names for names in operands if not self.seen.is_weight(names)] or operands[:1]
        return tuple(dict.fromkeys(name for names in found for name in names))

    def gradients(self, module: str) -> tuple[str, ...]:
        """Where the gradients with respect to the results of a module's products come from."""
        operands = (n for p in self.backward if p.module == module for n in p.site.operands)
        return tuple(dict.fromkeys(name for name in operands if self._is_gradient(name)))

    def _is_gradient(self, name: str) -> bool:
        origins = (self.seen.sites.get(origin) for origin in self.seen.origins(name))
        return all(s is not None and s.backward and _REMAT not in s.name for s in origins)

    def sources(
        self, wanted: Mapping[Key, Sequence[str]], unfit: Unfit, method: str
    ) -> dict[Key, Source]:
        """For each key what was seen at all of those sites, fit to make a scale of."""
        found = []
        for key, names in wanted.items():
            source = self.seen.source(names, method) if names else None
            why = "nothing but literals go into it" if source is None else problem(source)
            found.append((_label(key), why, (key, source)))
        return {key: source for key, source in fit(found, unfit) if source is not None}


NO_MODULE = (
    "it is in no module of the model; flax nnx names none for what uses no weights: take ranges "
    "of jr.scopes(f), or say the path in names="
)
_REMAT = "rematted_computation"


def _label(key: Hashable) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _require_operands(sites: Sequence[Site]) -> None:
    if not sites:
        raise ValueError(f"there is no matrix product or convolution ({', '.join(PRODUCTS)})")
    for site in sites:
        if not site.by_operand:
            raise ValueError(
                f"the operands of {site.name!r} are not known: files of text and CSV do not tell "
                f"them; take ranges from a run or a JSON file"
            )


def _counted(paths: Iterable[tuple[Site, str]], backward: bool) -> Iterator[Product]:
    counts: Counter[tuple[str, str]] = Counter()
    for site, path in paths:
        if site.backward == backward:
            op = "einsum" if _is_einsum(site) else site.primitive
            yield Product(site, path, op, counts[path, op])
            counts[path, op] += 1


def _is_einsum(site: Site) -> bool:
    return "->" in site.name.rpartition("/")[0].rpartition("/")[2]  # jnp.einsum's own scope


# -- paths ------------------------------------------------------------------------------------


def _given(sites: Sequence[Site], names: Names, ranges: Ranges) -> list[tuple[Site, str | None]]:
    if not isinstance(names, Mapping):
        assert names is not None
        renamed = ((site, names(site.name)) for site in sites)
        return [(site, path) for site, path in renamed if path is not None]
    require_known(names, ranges)
    products = {site.name for site in sites}
    for name in names:
        if name not in products:
            raise ValueError(
                f"names= has {name!r}, which is no matrix product or convolution; these are "
                f"{', '.join(map(repr, sorted(products)))}"
            )
    return [(site, names[site.name]) for site in sites if site.name in names]


def _found(sites: Sequence[Site], seen: Seen, root: str | None) -> list[tuple[Site, str | None]]:
    scopes = {site.name: _scope(site.name) for site in sites}
    owners = {site.name: _owner(site, seen) for site in sites}
    if root is None and _scopes_are_modules(scopes, owners):
        root = _root(scopes, owners)
    prefix = None if root is None else tuple(root.split("/")) if root else ()
    found = []
    for site in sites:
        path = owners[site.name] if prefix is None else _below(prefix, scopes[site.name])
        found.append((site, None if path is None else "/".join(path)))
    return found


def _scopes_are_modules(scopes: Mapping[str, Path], owners: Mapping[str, Path | None]) -> bool:
    paths = [(scopes[name], owner) for name, owner in owners.items() if owner]
    return any(map(_ends, paths)) if paths else any(scopes.values())


def _ends(pair: tuple[Path, Path]) -> bool:
    scope, owner = pair
    return scope[-len(owner) :] == owner


def _root(scopes: Mapping[str, Path], owners: Mapping[str, Path | None]) -> str:
    """The scope of the model: what is before its modules' paths, or else the first."""
    pairs = [(scopes[name], owner) for name, owner in owners.items() if owner]
    roots = {scope[: -len(owner)] for scope, owner in pairs if _ends((scope, owner))}
    roots = roots or {scope[:1] for scope in scopes.values() if scope}
    if len(roots) > 1:
        several = ", ".join(sorted("/".join(root) for root in roots))
        raise ValueError(
            f"there are several models, {several}: say root=, the scope of the one to hand over; "
            f"unfit='skip' leaves the others out"
        )
    return "/".join(roots.pop())


def _below(root: Path, scope: Path) -> Path | None:
    return scope[len(root) :] if scope[: len(root)] == root and (scope or not root) else None


def _owner(site: Site, seen: Seen) -> Path | None:
    """The path of the module that a weight among the operands belongs to."""
    for names in site.by_operand:
        if seen.is_weight(names):
            inputs = [o for name in names for o in seen.origins(name) if o.startswith("input/")]
            if inputs:
                return _module_of(inputs[0])
    return None


def _module_of(leaf: str) -> Path:
    """That of `input/variables/params/Dense_0/kernel`, or `input/model/layers/0/kernel/value`."""
    parts = leaf.split("/")
    below = len(parts) - parts[::-1].index("params") if "params" in parts else 2
    last = -2 if parts[-1] == "value" and len(parts) - below > 1 else -1
    return tuple(parts[below:last])


_TRANSFORM = re.compile(r"(?:jvp|vmap|transpose)\((.*)\)")
_BRANCH = re.compile(r"(?<![^/])(?:while/(?:cond|body)|cond/branch_\d+)(?![^/])")
_NO_MODULE = re.compile(
    rf"(?:jit|composite)\(.*\)|.*->.*|scan|shard_map|checkpoint|{_REMAT}|closed_call"
    r"|custom_[jv][jv]p_call|"
)
_METHOD = re.compile(r"(\w+)\.[^\W\d]\w*")


def _scope(name: str) -> Path:
    """The scopes of modules in a site's name, the outermost first."""
    found: list[str] = []
    previous = None
    for part in _BRANCH.sub("", name.rpartition("/")[0]).split("/"):
        if previous == f"transpose({part})":  # what the backward pass computes again
            continue
        previous = part
        while wrapped := _TRANSFORM.fullmatch(part):
            part = wrapped[1]
        method = _METHOD.fullmatch(part)  # of linen, but for __call__
        if method and found[-1:] == [method[1]]:  # called by another method
            continue
        if not _NO_MODULE.fullmatch(part):
            found.append(method[1] if method else part)
    return tuple(found)
