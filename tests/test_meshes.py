"""Explicit, automatic and manual axes of meshes, of which one device is enough.

On several devices: `eight_devices/cases.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from jax.sharding import reshard

import jax_ranges as jr
from tests import meshes
from tests.meshes import PROGRAMS, WAYS, check, in_turn

ONE = (1, 1)


@pytest.mark.parametrize(("name", "way"), in_turn())
def test_a_program_on_a_mesh_returns_what_it_does_unobserved(name, way):
    check(name, way, ONE)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_so_does_it_with_every_statistic_and_every_tool(name, way):
    check(name, way, ONE)


DIFFERENTIABLE = [name for name in PROGRAMS if name not in meshes.WITHOUT_GRADIENT]


@pytest.mark.parametrize("name", ["custom_rules", "scanned", "one_automatic_inside"])
def test_gradients_stay_the_same(name):
    meshes.check_gradient(name, ONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_all_gradients_stay_the_same(name):
    meshes.check_gradient(name, ONE)


@pytest.mark.parametrize("way", meshes.LOW)
@pytest.mark.parametrize("name", ["product", "unreduced_inside", "parts_of_sums"])
def test_in_a_low_precision_types_stay_the_same(name, way):
    meshes.check_low(name, way, ONE)


@pytest.mark.slow
@pytest.mark.parametrize("way", meshes.LOW)
@pytest.mark.parametrize("name", PROGRAMS)
def test_of_all_programs_types_stay_the_same(name, way):
    meshes.check_low(name, way, ONE)


def test_a_range_of_an_unreduced_sum_is_that_of_the_sum():
    """Not of its parts; and rounding these is not rounding the sum, so it is measured."""

    def f(x):
        w = reshard(jnp.ones((4, 6)), P("y", None))
        y = jnp.einsum("bi,ij->bj", x, w, out_sharding=P(None, None, unreduced={"y"}))
        return reshard(y.astype(jnp.bfloat16), P())

    with meshes.placed(meshes.Program(f, P(None, "y")), ONE) as x:
        plan, (out, ranges) = jr.plan(f)(x), jax.jit(jr.ranges(f))(x)
        bounds = jr.bounds(f, inputs=True)(x)
    how = {row.site.name: row.how for row in plan.rows}
    assert how["convert_element_type"] == "measured"
    assert how["reshard.1"] == "derived"
    assert ranges["reshard.1"].max == out.max().astype(jnp.float32)
    np.testing.assert_allclose(
        ranges["bi,ij->bj/dot_general"].max, meshes.VALUES.sum(1).max(), rtol=1e-6
    )
    assert not bounds["convert_element_type"].finite


@pytest.mark.skipif(not hasattr(jax.sharding, "no_collectives"), reason="since jax 0.12")
def test_measuring_may_communicate_where_the_program_forbids_itself_to():
    with (
        meshes.placed(PROGRAMS["elementwise"], ONE) as x,
        jax.sharding.no_collectives({"x"}),
    ):
        _, ranges = jax.jit(jr.ranges(jnp.sin))(x)
    np.testing.assert_allclose(ranges["sin"].max, np.sin(meshes.VALUES).max(), rtol=1e-6)


def rows(x):
    """Inside of vmap, on a mesh whose axis is called as vmap's may be."""
    mesh = jax.make_mesh((1, 1), ("x", "i"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    inner = jax.shard_map(jnp.sin, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    return inner(x).sum() * 2


@pytest.mark.parametrize("options", [{"axis_name": "x"}, {"spmd_axis_name": "i"}, {}], ids=str)
def test_vmap_may_have_the_name_of_a_mesh_axis(options):
    x = jnp.arange(8.0).reshape(2, 4)
    out, ranges = jax.vmap(jr.ranges(rows), **options)(x)
    np.testing.assert_allclose(out, jax.vmap(rows)(x), rtol=1e-6)
    expected = np.sin(x).max(1)
    np.testing.assert_allclose(ranges["shard_map/sin"].max, expected, rtol=1e-6)


def test_nor_need_it_where_the_mapped_function_is_measured_as_a_whole():
    def mapped(x):
        return jax.vmap(lambda x: rows(x) - lax.pmax(x.max(), "x"), axis_name="x")(x)

    _, ranges = jr.ranges(mapped)(jnp.arange(8.0).reshape(2, 4))
    assert ranges["vmap(shard_map)/sin"].max == jnp.sin(jnp.arange(8.0)).max()
