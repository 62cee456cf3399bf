"""Which arguments an operation reads: in its sites, in files, in reports."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from rich.console import Console

import jax_ranges as jr
from jax_ranges.__main__ import main
from jax_ranges.flat import records
from jax_ranges.report.page.document import document


def reads(f, *args, **how):
    """By name what the sites read."""
    return {site.name: site.reads for site in jr.ranges(f, **how)(*args)[1].sites}


W = {"attn": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
X = jnp.ones((4, 3))


def dense(params, x):
    p = params["attn"]
    return x @ p["kernel"].astype(jnp.bfloat16) + p["bias"]


def test_a_product_reads_its_weight_by_its_path():
    found = reads(dense, W, X)
    assert found["dot_general"] == ("input/x", "input/params/attn/kernel")
    assert found["add"] == ("input/params/attn/bias",)


def test_the_names_are_those_of_the_inputs_as_sites():
    _, ranges = jr.ranges(dense, inputs=True)(W, X)
    assert set(ranges.site("dot_general").reads) <= set(ranges)
    assert ranges.site("input/x").reads == ()


def test_a_selected_site_knows_what_it_reads_through_others():
    assert reads(dense, W, X, select="dot_general") == {
        "dot_general": ("input/x", "input/params/attn/kernel")
    }


def test_what_is_computed_is_no_leaf_any_more():
    assert reads(lambda x: jnp.sin(x * 2.0), X)["sin"] == ()


def test_an_index_is_read_and_not_carried():
    def embed(table, ids):
        return jnp.exp(table[ids])

    found = reads(embed, jnp.ones((5, 2)), jnp.array([1, 2]))
    assert found["gather"][0] == "input/table"
    assert found["exp"] == ("input/table",)


def test_constants_are_read_by_their_names():
    table = jnp.arange(3.0)
    assert reads(lambda x: x * table, X)["mul"] == ("input/x", "const/0")


def test_inside_loops_calls_and_branches():
    def deep(params, x):
        def layer(x, w):
            return jax.jit(lambda w: x @ w.T)(w), None

        x = jax.lax.scan(layer, x, params)[0]
        return jax.lax.cond(x[0, 0] > 0, lambda p: jnp.cos(p), lambda p: jnp.sin(p.T), params[0])

    found = reads(deep, jnp.ones((5, 3, 3)), X)
    # x enters the loop; what is carried round is computed.
    (product,) = (name for name in found if name.endswith("dot_general"))
    assert found[product] == ("input/x", "input/params")
    assert {v for k, v in found.items() if k.endswith(("cos", "sin"))} == {("input/params",)}


def test_the_backward_pass_reads_the_same_weights():
    found = reads(jax.grad(lambda params, x: dense(params, x).sum(), argnums=1), W, X)
    backward = [v for k, v in found.items() if "transpose(" in k and k.endswith("dot_general")]
    assert backward == [("input/params/attn/kernel",)]


# -- values tell: an operand holds the elements of a leaf or it does not ------------------------

LEAVES = {"a": jnp.arange(1.0, 7).reshape(2, 3), "b": jnp.arange(11.0, 17).reshape(2, 3)}
MOVES = {
    "transpose": lambda x, other: x.T.reshape(x.shape),
    "reshape": lambda x, other: x.reshape(-1).reshape(x.shape),
    "rev": lambda x, other: x[::-1],
    "cast": lambda x, other: x.astype(jnp.bfloat16).astype(jnp.float32),
    "row": lambda x, other: jnp.broadcast_to(x[1], x.shape),
    "gather": lambda x, other: x[jnp.array([1, 0])],
    "pad": lambda x, other: jnp.pad(x, ((1, 0), (0, 0)))[:2],
    "both": lambda x, other: jnp.concatenate([x[:1], other[1:]]),
    "other": lambda x, other: other,
    "compute": lambda x, other: x * 100.0,
}


@settings(max_examples=60)
@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=6))
def test_reads_are_the_leaves_whose_elements_are_there(moves):
    held = []

    def moved(a, b):
        x, other = a, b
        for move in moves:
            x, other = MOVES[move](x, other), x
        held.append(x)
        return jnp.tanh(x)

    found = reads(moved, *LEAVES.values())["tanh"]
    moved(*LEAVES.values())  # eagerly: the elements themselves
    elements = set(np.asarray(held[-1]).ravel().tolist())
    present = {
        f"input/{name}" for name, leaf in LEAVES.items() if elements & set(leaf.ravel().tolist())
    }
    # A part that was cut off may have been the one with the elements: reads may say too much.
    assert present <= set(found)
    if not {"both", "row", "pad"} & set(moves):
        assert present == set(found)


# -- where it is told -------------------------------------------------------------------------


def test_json_files_hold_it_and_those_without_still_load(tmp_path):
    _, ranges = jr.ranges(dense)(W, X)
    file = tmp_path / "r.json"
    ranges.save(file)
    assert [site.reads for site in jr.load(file).sites] == [site.reads for site in ranges.sites]
    plain = json.loads(file.read_text())
    for site in plain["sites"]:
        site.pop("reads", None)
    file.write_text(json.dumps(plain))
    old = jr.load(file)
    assert all(site.reads == () for site in old.sites) and dict(old) == dict(ranges)


def test_a_damaged_list_is_told(tmp_path):
    _, ranges = jr.ranges(dense)(W, X)
    file = tmp_path / "r.json"
    ranges.save(file)
    plain = json.loads(file.read_text())
    plain["sites"][1]["reads"] = [3]
    file.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"reads is \[3\], not a list of str"):
        jr.load(file)


def report(ranges, width, **how):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        jr.report(ranges, console=console, **how)
    return captured.get()


def test_the_report_has_a_column_on_request():
    _, ranges = jr.ranges(dense)(W, X)
    for width in (80, 160):
        told = report(ranges, width, reads=True)
        (line,) = (line for line in told.splitlines() if "dot_general" in line)
        assert "reads" in told and "x, params/attn/kernel" in line
        assert "params" not in report(ranges, width)
    assert "params/attn/bias" in report(ranges, 120, reads=True, tree=True)


def test_data_frames_and_pages_have_it():
    _, ranges = jr.ranges(dense)(W, X)
    (product,) = (row for row in records(ranges) if row["name"] == "dot_general")
    assert product["reads"] == "x, params/attn/kernel"
    told = {site["label"]: site.get("reads") for site in document(ranges, None, [], "")["sites"]}
    assert list(told["dot_general"]) == ["x", "params/attn/kernel"]


def test_the_command_line_shows_it_on_request(tmp_path, capsys):
    file = tmp_path / "r.json"
    jr.ranges(dense)(W, X)[1].save(file)
    assert main(["show", str(file), "--reads", "--width", "100"]) == 0
    assert "x, params/attn/kernel" in capsys.readouterr().out
    assert main(["show", str(file), "--width", "100"]) == 0
    assert "params" not in capsys.readouterr().out
