"""Which suites there are, and how each is run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EIGHT_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
      name: by which it is chosen.
      package: whose tests they are; its version is what is reported.
      source: where its files are in the folder of sources; None: in the installed package.
      files: globs of the files with tests.
      without: names of files that are left out: JAX's export takes only what its own jit made.
      environment: variables that the tests need.
      arguments: of pytest. By default no file of settings is read.
    """

    name: str
    package: str
    source: str | None = None
    files: Sequence[str] = ("**/*_test.py",)
    without: frozenset[str] = frozenset()
    environment: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ("-c", os.devnull)

    def folder(self, sources: Path) -> Path:
        """The folder that the files are in. FileNotFoundError if there is none."""
        if self.source is not None:
            found = sources / self.source
            if not found.is_dir():
                raise FileNotFoundError(
                    f"the suite {self.name} is run from its source, and there is no {found}: check "
                    f"out {self.package}'s repository there, or say --sources"
                )
            return found
        spec = importlib.util.find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(f"the suite {self.name} is in {self.package}: install it")
        return Path(spec.submodule_search_locations[0])

    def found(self, sources: Path) -> list[Path]:
        """The files, in order."""
        folder = self.folder(sources)
        files = {path for pattern in self.files for path in folder.glob(pattern)}
        return sorted(path for path in files if path.name not in self.without)


def _jax(name: str, *stems: str, devices: bool = False) -> Suite:
    files = [f"{stem}_test.py" for stem in stems]
    environment = tuple(EIGHT_DEVICES.items()) if devices else ()
    return Suite(f"jax-{name}", "jax", "jax/tests", files, environment=environment)


_PYTEST = ("**/test_*.py",)

SUITES = {
    suite.name: suite
    for suite in (
        Suite("optax", "optax"),
        Suite("haiku", "haiku", without=frozenset({"jax2tf_test.py"})),
        Suite("equinox", "equinox", "equinox/tests", _PYTEST),
        Suite("lineax", "lineax", "lineax/tests", ("*_test.py", *_PYTEST)),
        _jax("rules", "custom_api", "api", "custom_root", "custom_linear_solve"),
        _jax("control-flow", "lax_control_flow"),
        _jax("refs", "mutable_array", "state"),
        _jax("shard-map", "shard_map", devices=True),
        _jax("pjit", "pjit", devices=True),
        _jax("nn", "nn"),
        _jax("random", "random", "random_lax"),
        _jax("linalg", "linalg", "svd", "eigh"),
        Suite("flax-nnx", "flax", "flax/tests/nnx"),
        Suite("flax-linen", "flax", "flax/tests/linen"),
        Suite("diffrax", "diffrax", "diffrax/test", _PYTEST),
    )
}
