"""Explicit, automatic and manual axes of meshes, of which one device is enough.

On several devices: `eight_devices/cases.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import jax_ranges as jr
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
