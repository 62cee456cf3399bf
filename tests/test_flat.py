"""Ranges for loggers and data frames."""

from __future__ import annotations

import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr
from jax_ranges.flat import records


def f(x):
    y = jnp.log(x)
    return jax.lax.cond(x[0] > 100, jnp.sin, jnp.cos, y), jnp.argmax(x)


X = jnp.array([0.0, 1.0, -1.0])


def test_scalars_are_the_numbers_of_the_sites_that_were_observed():
    found = jr.ranges(f)(X)[1].scalars()
    assert found["log/min"] == -math.inf
    assert (found["log/max"], found["log/nan"]) == (0.0, 1.0)
    assert (found["argmax/max"], found["argmax/nan"]) == (1.0, 0.0)
    assert {type(value) for value in found.values()} == {float}
    assert not [name for name in found if "sin" in name]


def test_scalars_have_the_numbers_of_all_statistics():
    stats = (jr.MinMax(), jr.Health(), jr.Moments(), jr.AbsMax(), jr.Histogram(8))
    found = jr.ranges(jnp.abs, stats=stats)(X)[1].scalars("r/")
    assert found == {
        "r/abs/min": 0.0,
        "r/abs/max": 1.0,
        "r/abs/nan": 0.0,
        "r/abs/Health.nan": 0.0,
        "r/abs/Health.pos_inf": 0.0,
        "r/abs/Health.neg_inf": 0.0,
        "r/abs/Health.zero": 1.0,
        "r/abs/Health.negative": 0.0,
        "r/abs/Health.positive": 2.0,
        "r/abs/Moments.count": 3.0,
        "r/abs/Moments.mean": pytest.approx(2 / 3),
        "r/abs/Moments.variance": pytest.approx(2 / 9),
        "r/abs/Moments.nonfinite": 0.0,
        "r/abs/AbsMax.amax": 1.0,
        "r/abs/AbsMax.nan": 0.0,
        "r/abs/AbsMax.observed": 1.0,
        "r/abs/Histogram.pos_inf": 0.0,
        "r/abs/Histogram.neg_inf": 0.0,
        "r/abs/Histogram.nan": 0.0,
    }


def test_statistics_may_be_taken_without_ranges():
    found = jr.ranges(lambda x: -jnp.abs(x), stats={"abs": jr.Health(), "neg": jr.MinMax()})(X)[1]
    assert [set(record) & {"min", "Health.zero"} for record in records(found)] == [
        {"Health.zero"},
        {"min"},
    ]
    assert jr.ranges(jnp.abs, stats=jr.Health())(X)[1].scalars()["abs/Health.zero"] == 1


def test_leading_axes_are_merged():
    _, ranges = jax.vmap(jr.ranges(jnp.exp))(X)
    assert ranges.scalars()["exp/max"] == pytest.approx(math.e)
    _, stacked = jr.ranges(
        lambda x: jax.lax.scan(lambda c, v: (c * v, v + 1), 1.0, x), loops="stack"
    )(X)
    assert stacked.scalars()["scan/add/max"] == 2


def test_scalars_are_what_json_takes():
    assert json.loads(json.dumps(jr.ranges(jnp.exp)(X)[1].scalars()))["exp/nan"] == 0


def test_traced_ranges_have_no_numbers_yet():
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda x: jr.ranges(jnp.exp)(x)[1].scalars())(X)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_data_frame_has_a_row_a_site(library):
    pytest.importorskip(library)
    ranges = jr.ranges(f, stats=(jr.MinMax(), jr.Health()))(X)[1]
    frame = ranges.to_dataframe(library)
    rows = frame.to_dict("records") if library == "pandas" else frame.to_dicts()
    assert [row["name"] for row in rows] == list(ranges)
    (log,) = (row for row in rows if row["name"] == "log")
    assert (log["primitive"], log["dtype"], log["shape"]) == ("log", "float32", "(3,)")
    assert (log["min"], log["max"], log["nan"], log["observed"]) == (-math.inf, 0.0, True, True)
    assert log["Health.nan"] == 1
    (sin,) = (row for row in rows if row["primitive"] == "sin")
    assert not sin["observed"]
    assert sin["min"] is None or np.isnan(sin["min"])


def test_without_a_library_it_is_said_what_to_install(monkeypatch):
    ranges = jr.ranges(f)(X)[1]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas or polars: pip install pandas"):
        ranges.to_dataframe()
    with pytest.raises(ModuleNotFoundError, match="needs polars: pip install polars"):
        ranges.to_dataframe("polars")
    with pytest.raises(ValueError, match="library is one of 'pandas', 'polars', not 'dask'"):
        ranges.to_dataframe("dask")
