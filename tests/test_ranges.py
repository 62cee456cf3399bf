"""The container: a mapping, a pytree, merging, selecting, reducing, files."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_ranges as jr


def model(x):
    with jax.named_scope("Encoder"):
        with jax.named_scope("attn"):
            y = jnp.exp(x) @ jnp.ones((3, 2))
        z = jnp.maximum(y, 0.0)
    return lax.sort(z)


X = jnp.array([[1.0, -2.0, 0.5]])


def taken(x=X, **options):
    return jr.ranges(model, **options)(x)[1]


def values(ranges):
    return {name: repr(found) for name, found in ranges.items()}


def test_it_is_a_mapping_in_program_order():
    ranges = taken()
    names = ["Encoder/attn/exp", "Encoder/attn/broadcast_in_dim", "Encoder/attn/dot_general"]
    assert list(ranges) == [*names, "Encoder/max", "sort"]
    assert len(ranges) == len(ranges.sites) == 5
    assert "Encoder/max" in ranges
    assert "Encoder/mx" not in ranges
    assert ranges.get("Encoder/mx") is None
    assert dict(ranges)["Encoder/max"] == ranges["Encoder/max"]


def test_an_unknown_site_is_an_error_that_names_the_nearest():
    with pytest.raises(KeyError, match="no site 'dot_general'; the nearest are 'Encoder/attn/dot_"):
        taken()["dot_general"]
    with pytest.raises(jr.UnknownSiteError, match="'Encoder/max'"):
        taken()["Encoder/mx"]


def test_it_goes_through_jit_scan_cond_vmap_and_device_put():
    ranges = taken()
    assert values(jax.jit(lambda r: r)(ranges)) == values(ranges)
    assert values(jax.device_put(ranges)) == values(ranges)
    assert values(lax.cond(True, lambda r: r, lambda r: r | r, ranges)) == values(ranges)
    xs = jnp.stack([X, 2 * X, 3 * X])
    merged = lax.scan(lambda r, x: (r | taken(x), None), ranges, xs)[0]
    assert values(merged) == values(taken(xs[0]) | taken(xs[1]) | taken(xs[2]))
    stacked = jax.vmap(lambda x: jr.ranges(model)(x)[1])(xs)
    assert stacked["Encoder/max"].max.shape == (3,)
    assert values(stacked.reduce()) == values(merged)


def test_the_number_of_arrays_does_not_grow_with_the_program():
    def deep(x):
        for _ in range(50):
            x = jnp.sin(x) + jnp.cos(x)
        return x

    assert len(jax.tree.leaves(jr.ranges(deep)(X)[1])) == 3


def test_reading_inside_jit_gives_traced_scalars_derived_ones_included():
    @jax.jit
    def f(x):
        _, ranges = jr.ranges(lambda x: jnp.maximum(-x, 0.25))(x)
        found = ranges["max"]
        return found.min, found.max, found.nan, found.observed, found | ranges["neg"]

    lo, hi, nan, observed, both = f(jnp.array([1.0, -3.0]))
    assert (lo, hi, nan, observed) == (0.25, 3.0, False, True)
    assert (both.min, both.max) == (-1.0, 3.0)


def test_ranges_of_equal_programs_merge_and_those_that_differ_merge_by_name():
    def other(x):
        with jax.named_scope("Encoder"):
            return jnp.tanh(jnp.maximum(x, 0.0))

    a, b = taken(), jr.ranges(other)(5 * X)[1]
    assert values(a | a) == values(a)
    both = a | b
    assert list(both) == [*a, "Encoder/tanh"]
    assert both["Encoder/max"] == jr.Range(
        min(a["Encoder/max"].min, b["Encoder/max"].min),
        max(a["Encoder/max"].max, b["Encoder/max"].max),
        np.bool_(False),
    )
    assert both["sort"] == a["sort"]
    assert values(b | a) == {name: values(both)[name] for name in values(b | a)}
    assert values((a | b) | b) == values(both)


def test_merging_by_name_promotes_dtypes_and_works_inside_jit():
    f = jr.ranges(jnp.sin)

    @jax.jit
    def run(x):
        return f(x)[1] | f(x.astype(jnp.bfloat16) * 2)[1]

    merged = run(jnp.array([0.5, 1.0]))
    assert merged.sites[0].dtype == np.float32
    wide, half = np.sin(np.float32(0.5)), float(jnp.sin(jnp.bfloat16(2.0)))
    np.testing.assert_allclose([merged["sin"].min, merged["sin"].max], [wide, half], rtol=1e-2)


def test_stacked_and_merged_ranges_of_one_site_do_not_merge_silently():
    def f(xs):
        return lax.scan(lambda c, x: (c, jnp.sin(x)), 0.0, xs)

    stacked, merged = (jr.ranges(f, loops=loops)(X[0])[1] for loops in ("stack", "merge"))
    with pytest.raises(
        ValueError, match=r"shape \(3,\) in one and \(\) in the other.*\.reduce\(\)"
    ):
        stacked | merged
    assert values(stacked.reduce() | merged) == values(merged)


def test_merging_with_something_else_is_a_type_error():
    with pytest.raises(TypeError, match="ranges merge with ranges; got dict"):
        taken().merge({})
    with pytest.raises(TypeError):
        taken() | {}


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("dot_general", ["Encoder/attn/dot_general"]),
        ("Encoder/m*", ["Encoder/max"]),
        (
            "attn/*",
            ["Encoder/attn/exp", "Encoder/attn/broadcast_in_dim", "Encoder/attn/dot_general"],
        ),
        (["sort", "*/exp"], ["Encoder/attn/exp", "sort"]),
        (lambda site: site.shape == (3, 2), ["Encoder/attn/broadcast_in_dim"]),
    ],
)
def test_selecting_before_and_after_gives_the_same(select, expected):
    assert list(taken(select=select)) == expected
    assert values(taken(select=select)) == values(taken().select(select))


def test_brackets_in_names_are_not_patterns():
    _, ranges = jr.ranges(lambda x: lax.sort((x, x)))(X[0])
    assert list(ranges) == ["sort", "sort[1]"]
    assert list(ranges.select("sort[1]")) == ["sort[1]"]


def test_an_empty_selection_says_what_there_is():
    with pytest.raises(
        ValueError, match=r"select='conv\*' selects none of the 5 sites.*dot_general"
    ):
        taken(select="conv*")
    with pytest.raises(TypeError, match="select takes a glob.*got 3 of type int"):
        taken(select=[3])


@pytest.mark.parametrize("stats", [jr.MinMax(), (jr.MinMax(), jr.Histogram(8), jr.Health())])
def test_reducing_a_loop_of_no_trips_is_not_observed(stats):
    def f(x):
        return jax.lax.scan(lambda x, w: (x * w, None), jnp.exp(x), jnp.ones(0))

    ranges = jr.ranges(f, loops="stack", stats=stats)(jnp.ones(2))[1].reduce()
    assert not ranges["scan/mul"].observed and ranges["exp"].observed
    for stat in ranges.stats[1:]:
        assert ranges.of("scan/mul", stat).total == 0


def test_reduce_takes_a_mask_over_the_leading_axes():
    xs = jnp.array([[1.0, 2.0], [30.0, 40.0]])
    ranges = jax.vmap(jax.vmap(jr.ranges(jnp.negative)))(xs)[1]
    assert repr(ranges.reduce()["neg"]) == "Range(min=-40.0, max=-1.0, nan=False)"
    assert ranges.reduce(mask=jnp.array([True, False]))["neg"].min == -2.0
    assert ranges.reduce(mask=jnp.array([[True, False], [False, False]]))["neg"].min == -1.0
    assert not ranges.reduce(mask=jnp.zeros(2, bool))["neg"].observed
    with pytest.raises(ValueError, match=r"leading axes \(2, 2\).*got bool of shape \(3,\)"):
        ranges.reduce(mask=jnp.ones(3, bool))


# -- files ------------------------------------------------------------------------------------


def awkward():
    def f(x, n, b):
        y = lax.cond(n > 100, lambda: x * 2, lambda: x / 0.0)
        return y, x.astype(jnp.bfloat16), n + 1, b, lax.scan(lambda c, v: (c, v * 3), 0.0, x)

    x = jnp.array([1e-45, jnp.nan, -jnp.inf, 0.1])
    return jr.ranges(f, inputs=True, loops="stack")(x, jnp.int8(7), jnp.array(True))[1]


def test_a_file_gives_back_sites_and_ranges_exactly(tmp_path):
    ranges = awkward()
    ranges.save(tmp_path / "r.json")
    loaded = jr.load(tmp_path / "r.json")
    assert loaded.sites == ranges.sites
    assert all(loaded[name] == ranges[name] for name in ranges)
    assert not loaded["cond/branch_1/mul"].observed
    again = tmp_path / "again.json"
    loaded.save(again)
    assert again.read_text() == (tmp_path / "r.json").read_text()


@pytest.mark.usefixtures("x64")
def test_64_bit_numbers_survive_a_file(tmp_path):
    _, ranges = jr.ranges(lambda a, b: (a + np.uint64(0), b * 1.0))(
        np.array([2**63 + 1], np.uint64), np.array([0.1, 1e300])
    )
    ranges.save(tmp_path / "r.json")
    loaded = jr.load(tmp_path / "r.json")
    assert all(loaded[name] == ranges[name] for name in ranges)
    assert int(loaded["add"].max) == 2**63 + 1


def test_several_files_load_merged(tmp_path):
    for i in (1, 2):
        taken(i * X).save(tmp_path / f"{i}.json")
    merged = jr.load(tmp_path / "1.json", tmp_path / "2.json")
    assert values(merged) == values(taken(X) | taken(2 * X))


def test_a_file_is_json_that_other_programs_can_read(tmp_path):
    awkward().save(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert (document["format"], document["version"]) == ("jax_ranges", 2)
    site = next(s for s in document["sites"] if s["name"] == "input/x")
    assert (site["min"], site["max"], site["nan"], site["dtype"]) == (
        "-inf",
        0.10000000149011612,
        True,
        "float32",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "damaged or no file of ranges"),
        ('{"format": "jax_ranges", "version": 1, "sites": [', "damaged or no file of ranges"),
        ("[1, 2]", "JSON, but not a file of ranges"),
        (
            '{"format": "jax_ranges", "version": 3, "sites": []}',
            "of version 3.*1 to 2.*upgrade",
        ),
        (
            '{"format": "jax_ranges", "version": 1, "sites": [{"name": "a"}]}',
            "is damaged: .*'a': there is no operands",
        ),
        ('{"format": "jax_ranges", "version": 1}', "is damaged: there is no sites"),
    ],
)
def test_a_damaged_strange_or_newer_file_is_a_clear_error(tmp_path, text, message):
    file = tmp_path / "r.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        jr.load(file)


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    taken().save(file)
    before = file.read_text()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        taken(2 * X).save(file)
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(FileNotFoundError):
        taken().save(tmp_path / "missing" / "r.json")


def test_traced_ranges_cannot_be_saved(tmp_path):
    def f(x):
        out, ranges = jr.ranges(jnp.sin)(x)
        ranges.save(tmp_path / "r.json")
        return out

    with pytest.raises(ValueError, match="these ranges are traced.*save them outside"):
        jax.jit(f)(X)
    assert not list(tmp_path.iterdir())
