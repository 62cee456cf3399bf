"""The examples that quantize: figures mean what they say, and fewer bits do what is claimed."""

from __future__ import annotations

import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from rich.console import Console

import jax_ranges as jr
from tests.test_examples import example, needs_minilm

RNG = np.random.default_rng(0)


# -- recipes ----------------------------------------------------------------------------------


def model(params: Any, x: Any) -> Any:
    return jnp.maximum(x @ params["a"], 0) @ params["b"]


PARAMS = {"a": RNG.normal(size=(64, 32)), "b": RNG.normal(size=(32, 8))}
PARAMS = jax.tree.map(lambda x: np.asarray(x, np.float32), PARAMS)


def test_calibration_sees_what_feeds_products_in_all_batches() -> None:
    recipes = example("recipes")
    batches = [(PARAMS, np.full((2, 64), x, np.float32)) for x in (-2, 3)]
    ranges = recipes.calibrate(model, batches)
    assert list(ranges) == ["input/x", "dot_general", "max", "dot_general.1"]
    assert (ranges["input/x"].min, ranges["input/x"].max) == (-2, 3)
    assert ranges.of("input/x", jr.Histogram()).counts.sum() == 2 * 2 * 64


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bfloat16", 16),
        ("fp8 e4m3", 8 + 32 * 40 / 2304),  # 40 channels, 2304 weights
        ("int8, mse", 8 + 32 * 40 / 2304),
        ("int4 weights", 4 + 32 * 40 / 2304),
        ("mxfp4 weights", 4 + 8 / 32),
    ],
)
def test_weights_take_the_bits_of_their_format_and_of_its_scales(name: str, bits: float) -> None:
    recipes = example("recipes")
    args = PARAMS, np.ones((2, 64), np.float32)
    recipe = recipes.RECIPES[name](recipes.calibrate(model, [args]))
    assert recipes.weight_bits(recipe, recipes.sites_of(model, *args)) == pytest.approx(bits)


def test_what_a_recipe_leaves_out_stays_in_float32() -> None:
    recipes = example("recipes")
    recipe = jr.Recipe({"dot_general.1": (None, "int8")})
    sites = recipes.sites_of(model, PARAMS, np.ones((2, 64), np.float32))
    bits = (32 * 2048 + 8 * 256 + 32) / 2304  # one scale, as no more are asked for
    assert recipes.weight_bits(recipe, sites) == pytest.approx(bits)


# -- digits -----------------------------------------------------------------------------------


@functools.cache
def digits_trial() -> Any:
    return example("digits_conv").prepare(seed=0, epochs=4)


def test_every_image_is_held_out_once_and_then_not_trained_on() -> None:
    splits = [example("digits_conv").split(fold) for fold in range(5)]
    assert all(len(training.images) + len(held.images) == 1797 for training, held in splits)
    pixels = np.concatenate([held.images for _, held in splits]).reshape(1797, -1)
    everything = np.concatenate([part.images for part in splits[0]]).reshape(1797, -1)
    assert np.array_equal(np.unique(pixels, axis=0), np.unique(everything, axis=0))


def test_the_conv_net_learns_and_keeps_its_accuracy_in_eight_bits() -> None:
    trial, recipes = digits_trial(), example("recipes")
    found = trial.run(recipes.RECIPES[recipes.RECOMMENDED](trial.ranges))
    assert np.mean(trial.answers == trial.held_out.labels) > 0.95
    assert abs(found.loss) < 0.6  # two of 360 images
    assert found.same > 99


@pytest.mark.parametrize("name", ["fp8 e4m3", "int8, percentile", "int4 weights"])
def test_a_recipe_changes_the_scores_a_little(name: str) -> None:
    trial, recipes, net = digits_trial(), example("recipes"), example("digits_conv")
    images = trial.held_out.images
    exact = np.asarray(net.predict(trial.params, images))
    low = recipes.lowered(net.predict, recipes.RECIPES[name](trial.ranges))(trial.params, images)
    error = np.linalg.norm(low - exact) / np.linalg.norm(exact)
    assert 0.002 < error < 0.2


@pytest.mark.parametrize("name", ["int8, on codes", "fp8 e4m3, on codes"])
def test_on_codes_the_answers_are_those_of_the_simulation(name: str) -> None:
    trial, recipes = digits_trial(), example("recipes")
    assert name in recipes.ON_CODES
    recipe = recipes.RECIPES[name](trial.ranges)
    simulated, executed = (trial.run(recipe, on_codes=codes) for codes in (False, True))
    assert np.mean(simulated.low == executed.low) > 0.99


def test_figures_of_answers() -> None:
    net = example("digits_conv")
    right = np.arange(10)
    exact, low = right.copy(), right.copy()
    exact[:1], low[:3] = 7, 7
    found = net.Answers(low, exact, right)
    assert (found.accuracy, found.loss, found.same) == pytest.approx((70, 20, 80))
    both = net.joined([found, net.Answers(right, exact, right)])
    assert (both.accuracy, both.loss, both.same) == pytest.approx((85, 5, 85))


def test_main_of_the_conv_net_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--nets", "2", "--epochs", "1", "--only", "bfloat16", "int4 weights"]
    example("digits_conv").main(arguments)
    printed = capsys.readouterr().out
    assert "of 720 held-out images" in printed
    assert "lost by one net" in printed
    assert "│ 4.19" in printed


# -- MiniLM -----------------------------------------------------------------------------------


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@needs_minilm
def test_nothing_lost_is_a_score_of_one() -> None:
    exact = unit(RNG.normal(size=(40, 8)))
    assert example("quantize_minilm").score(exact, exact) == pytest.approx((1, 1, 1, 1, 1))


@needs_minilm
def test_turning_all_embeddings_keeps_the_order_but_no_cosine() -> None:
    exact = unit(RNG.normal(size=(40, 8)))
    score = example("quantize_minilm").score(-exact, exact)
    assert score == pytest.approx((-1, -1, 1, 1, 1))


@needs_minilm
def test_scores_are_those_of_the_slow_way() -> None:
    exact = unit(RNG.normal(size=(30, 8)))
    found = unit(exact + 0.1 * RNG.normal(size=exact.shape))
    kept, ranks = {1: [], 5: []}, []
    for i in range(30):
        others = [j for j in range(30) if j != i]
        near, right = ([float(e[i] @ e[j]) for j in others] for e in (found, exact))
        ranks.append(scipy.stats.spearmanr(near, right).statistic)
        for k, parts in kept.items():
            nearest = [set(sorted(range(29), key=lambda j, s=s: -s[j])[:k]) for s in (near, right)]
            parts.append(len(nearest[0] & nearest[1]) / k)
    score = example("quantize_minilm").score(found, exact)
    assert score[2:] == pytest.approx((np.mean(kept[1]), np.mean(kept[5]), np.mean(ranks)))
    cosines = [float(a @ b) for a, b in zip(found, exact, strict=True)]
    assert score[:2] == pytest.approx((np.mean(cosines), min(cosines)))


@functools.cache
def minilm_trial() -> Any:
    model = example("calibrate_minilm").load(scan=False)
    return example("quantize_minilm").prepare(model, sentences=64, held_out=40)


@needs_minilm
def test_the_sentences_held_out_are_others() -> None:
    data, trial = example("calibrate_minilm").batches(64), minilm_trial()
    seen = {tuple(row) for ids, _ in data for row in ids.tolist()}
    held_out = {tuple(row) for ids, _ in trial.held_out for row in ids.tolist()}
    assert len(seen) == 64 and len(held_out) == 40
    assert not seen & held_out
    assert trial.exact.shape == (40, 384)


@needs_minilm
def test_minilm_keeps_its_embeddings_in_eight_bits() -> None:
    trial, recipes = minilm_trial(), example("recipes")
    score = trial.run(recipes.RECIPES[recipes.RECOMMENDED](trial.ranges))
    assert 0.99 < score.mean < 0.9999
    assert score.rank > 0.98


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer instead of six: all is as it was, and compiles faster."""
    monkeypatch.setattr(example("minilm"), "LAYERS", 1)


@needs_minilm
@pytest.mark.usefixtures("shallow")
def test_the_products_of_a_layer_go_by_their_kind() -> None:
    quantize, model = example("quantize_minilm"), example("calibrate_minilm").load(scan=False)
    kinds = quantize.kinds(model, example("calibrate_minilm").batches(32)[0])
    assert len(kinds) == 8
    assert kinds[0] == "encoder/layer_*/attention/query/dot_general"
    assert kinds[-1] == "encoder/layer_*/mlp/down/dot_general"


@needs_minilm
@pytest.mark.usefixtures("shallow")
def test_without_a_zero_point_it_is_what_gelu_gives_that_suffers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantize, text = example("quantize_minilm"), io.StringIO()
    kinds = [f"encoder/layer_*/{kind}/dot_general" for kind in ("mlp/up", "mlp/down")]
    monkeypatch.setattr(quantize, "kinds", lambda model, batch: kinds)
    trial = quantize.prepare(example("calibrate_minilm").load(scan=False), 32, 32)
    ranked = quantize.explain(trial, "int8, symmetric", Console(file=text))
    assert [kind for _, kind in ranked] == kinds[::-1]
    assert ranked[0][0] > ranked[1][0]
    assert text.getvalue().endswith("encoder/layer_*/mlp/up/dot_general\n")


@needs_minilm
@pytest.mark.usefixtures("shallow")
def test_main_of_quantize_minilm_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sentences", "32", "--held-out", "32", "--only", "int4 weights", "bfloat16"]
    example("quantize_minilm").main(arguments)
    printed = capsys.readouterr().out
    assert "Calibrated on 32 sentences; 32 others:" in printed
    assert "│ 16.00" in printed and "│ 4.06" in printed
    assert "below 0.99: int4 weights" in printed
