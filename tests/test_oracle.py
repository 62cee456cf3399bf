"""The oracle against answers worked out by hand: what everything else is checked with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import oracle


def found(fun, *args, **options):
    """(primitive, min, max, nan) of each site, None for the extrema of what never ran."""
    _, sites = oracle(fun, *args, **options)
    return [
        (site.primitive, *((site.min, site.max) if site.observed else (None, None)), bool(site.nan))
        for site in sites
    ]


def test_a_nan_is_flagged_and_does_not_reach_the_extrema():
    x = np.array([1.0, np.nan, -np.inf], np.float32)
    assert found(lambda x: -x, x) == [("neg", -1.0, np.inf, True)]


def test_where_all_is_nan_nothing_is_least_or_largest_and_yet_it_was_observed():
    (site,) = oracle(lambda x: -x, np.array([np.nan], np.float32))[1]
    assert (site.min, site.max, site.nan, site.observed) == (np.inf, -np.inf, True, True)


def test_complex_numbers_count_by_their_parts_even_if_one_of_them_is_nan():
    x = np.array([1 + 2j, complex(np.nan, -5)], np.complex64)
    assert found(lambda x: x + x, x) == [("add", -10.0, 4.0, True)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint32, jnp.int4, bool])
def test_integers_and_booleans_stay_in_their_own_dtype(dtype):
    (site,) = oracle(lambda x: ~x, np.array([0, 1], dtype))[1]
    (empty,) = oracle(lambda x: ~x, np.zeros(0, dtype))[1]
    assert site.min.dtype == site.max.dtype == empty.min.dtype == np.dtype(dtype)
    assert site.observed
    assert not empty.observed


def test_a_large_integer_does_not_pass_through_a_float():
    x = np.array([2**31 - 1, 2**31 - 2], np.int32)
    assert found(lambda x: x + 0, x) == [("add", 2**31 - 2, 2**31 - 1, False)]


def test_of_a_cond_the_branch_not_taken_is_listed_and_not_observed():
    def fun(x):
        return jax.lax.cond(x > 0, jnp.sin, jnp.negative, x)

    (_, *not_taken), (_, least, most, _) = found(fun, 2.0)[-2:]  # the false branch comes first
    assert not_taken == [None, None, False]
    assert least == most == pytest.approx(np.sin(2.0))


def test_a_scan_is_merged_or_stacked_and_runs_backwards_if_it_is_told_to():
    def fun(xs):
        return jax.lax.scan(lambda c, x: (c + x, -x), np.float32(0), xs, reverse=True)

    xs = np.array([1.0, 2.0, 3.0], np.float32)
    (total, ys), sites = oracle(fun, xs)
    assert (total, list(ys)) == (6.0, [-1.0, -2.0, -3.0])
    assert [(site.min, site.max) for site in sites] == [(3.0, 6.0), (-3.0, -1.0)]
    stacked = oracle(fun, xs, loops="stack")[1]
    assert [list(site.max) for site in stacked] == [[6.0, 5.0, 3.0], [-1.0, -2.0, -3.0]]


def test_the_condition_of_a_while_runs_once_more_than_its_body():
    def fun(n):
        return jax.lax.while_loop(lambda n: n < 3, lambda n: n + 1, n)

    assert found(fun, np.int32(0)) == [("lt", False, True, False), ("add", 1, 3, False)]
    assert found(fun, np.int32(9)) == [("lt", False, False, False), ("add", None, None, False)]


def test_an_example_whose_loop_has_ended_keeps_what_it_carries():
    def fun(x):
        return jax.lax.while_loop(lambda x: x < 5, lambda x: 2 * x, x)

    (out,), sites = oracle(jax.vmap(fun), np.array([1.0, 4.0], np.float32))
    assert list(out) == [8.0, 8.0]
    assert (sites[-1].min, sites[-1].max) == (2.0, 16.0)  # 4, 8, and 16, which is thrown away


def test_the_inside_of_a_custom_derivative_and_of_a_recomputation_is_listed():
    inner = ["jit", "custom_jvp_call", "remat2", "checkpoint"]
    sites = found(jax.grad(jax.checkpoint(jax.nn.relu)), 3.0)
    assert not {site[0] for site in sites} & set(inner)
    assert ("max", 3.0, 3.0, False) in sites


def test_more_than_one_device_is_refused():
    mesh = jax.make_mesh((1,), ("d",))
    spec = jax.sharding.PartitionSpec()
    fun = jax.shard_map(jnp.sin, mesh=mesh, in_specs=spec, out_specs=spec)
    with pytest.raises(NotImplementedError, match="one device"):
        oracle(fun, np.ones(2, np.float32))
