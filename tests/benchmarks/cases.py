"""The set: which functions are measured, at which sizes, and what is asked of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax

from tests.benchmarks import frameworks, models, programs
from tests.benchmarks.models import Made

Sizes = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
      name: what it is called, also after `--only`.
      make: makes the function and its arguments, of the sizes that it is given.
      sizes: on every machine.
      cpu, accelerator, quick: sizes for a processor with a few cores, for a GPU or TPU, and for
        a short look (these differ from what `cpu` says).
      select, loops: as `jr.ranges` takes them.
      peers: whether alternatives are measured too; not where another row has the same function.
      captured: makes the function that flax's own capture of intermediates gives.
    """

    name: str
    make: Callable[..., Made]
    sizes: Sizes = field(default_factory=dict)
    cpu: Sizes = field(default_factory=dict)
    accelerator: Sizes = field(default_factory=dict)
    quick: Sizes = field(default_factory=dict)
    select: str | None = None
    loops: str = "merge"
    peers: bool = True
    captured: Callable[..., Made] | None = None

    def sized(self, quick: bool) -> Sizes:
        small = quick or jax.default_backend() == "cpu"
        machine = self.cpu if small else self.accelerator
        return {**self.sizes, **machine, **(self.quick if quick else {})}

    def made(self, quick: bool) -> Made:
        return self.make(**self.sized(quick))


# On a processor a call takes 5 to 100 ms at these sizes; on a GPU the host would not keep up with
# it, so there they are nearer to those of models that somebody runs.
TRANSFORMER: dict[str, Sizes] = {
    "cpu": {"layers": 4, "width": 128, "batch": 8, "length": 64},
    "accelerator": {"layers": 8, "width": 1024, "batch": 8, "length": 512},
    "quick": {"layers": 2},
}
STEP = {**TRANSFORMER, "quick": {"layers": 1}}
F32, BF16 = {"dtype": "float32"}, {"dtype": "bfloat16"}
MLP: dict[str, Sizes] = {
    "cpu": {"width": 512, "batch": 128},
    "accelerator": {"width": 4096, "batch": 4096},
}
CONV: dict[str, Sizes] = {
    "cpu": {"channels": (32, 64, 128), "size": 32, "batch": 16},
    "accelerator": {"channels": (64, 128, 256, 512), "size": 64, "batch": 128},
}
MINILM: dict[str, Sizes] = {
    "cpu": {"sentences": 32, "length": 48},
    "accelerator": {"sentences": 256, "length": 128},
    "quick": {"sentences": 8, "length": 32},
}
LINEN: dict[str, Sizes] = {
    "cpu": {"features": (32, 64, 128), "size": 64, "batch": 16},
    "accelerator": {"features": (64, 128, 256, 512), "size": 128, "batch": 128},
}
NNX: dict[str, Sizes] = {
    "cpu": {"layers": 4, "width": 128, "size": 64, "batch": 8},
    "accelerator": {"layers": 8, "width": 768, "size": 128, "batch": 64},
    "quick": {"layers": 2},
}

SET: tuple[Case, ...] = (
    Case("transformer f32", models.transformer, F32, **TRANSFORMER),
    Case("transformer bf16", models.transformer, BF16, **TRANSFORMER),
    Case("transformer step f32", models.transformer_training, F32, **STEP),
    Case("transformer step bf16", models.transformer_training, BF16, **STEP),
    Case("MLP", models.mlp, {"layers": 4}, **MLP),
    Case("MLP step", models.mlp_training, {"layers": 4}, **MLP),
    Case("conv net", models.conv_net, **CONV),
    Case("conv net, constants", lambda **s: models.captured(models.conv_net(**s)), **CONV),
    Case(
        "RNN",
        models.gru,
        cpu={"steps": 64, "width": 128, "batch": 32},
        accelerator={"steps": 256, "width": 512, "batch": 128},
    ),
    Case("decoder scan", models.scanned_decoder, F32, **TRANSFORMER),
    Case(
        "decoder scan, stack",
        models.scanned_decoder,
        F32,
        **TRANSFORMER,
        loops="stack",
        peers=False,
    ),
    Case(
        "elementwise",
        programs.elementwise,
        cpu={"elements": 1 << 20},
        accelerator={"elements": 1 << 26},
    ),
    Case("tiny net", models.tiny_net, {"layers": 20, "width": 8, "batch": 8}),
    Case(
        "CG while",
        programs.conjugate_gradient,
        {"steps": 200},
        cpu={"size": 512},
        accelerator={"size": 4096},
    ),
    Case(
        "5,000 equations",
        programs.unrolled,
        {"blocks": 278, "width": 16, "batch": 8},
        quick={"blocks": 56},
    ),
    Case("MiniLM", frameworks.minilm, **MINILM),
    Case("MiniLM scan", frameworks.minilm, {"scan": True}, **MINILM),
    Case("flax linen", frameworks.linen, **LINEN, captured=frameworks.linen_captured),
    Case("flax nnx", frameworks.nnx, **NNX, captured=frameworks.nnx_captured),
)

# Rows of their own: not every operation is measured, so they are not in the mean.
SELECTED: tuple[Case, ...] = (
    Case(
        "transformer f32, dot_general",
        models.transformer,
        F32,
        **TRANSFORMER,
        select="dot_general",
        peers=False,
    ),
    Case(
        "MiniLM, dot_general",
        frameworks.minilm,
        **MINILM,
        select="dot_general",
        peers=False,
    ),
    Case(
        "MiniLM scan, dot_general",
        frameworks.minilm,
        {"scan": True},
        **MINILM,
        select="dot_general",
        peers=False,
    ),
)


def named(name: str) -> Case:
    """A case of either list."""
    return next(case for case in (*SET, *SELECTED) if case.name == name)
