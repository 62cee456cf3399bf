"""Recipes: what they say of a site, where they come from, and their files."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.formats import format_of

X = jnp.array([[-2.0, 0.5, 1.0]])
W = jnp.array([[1.0, -0.5], [0.25, 2.0], [0.0, 3.0]])


def model(params, x):
    with jax.named_scope("hidden"):
        x = jnp.tanh(x) @ params["kernel"]
    with jax.named_scope("softmax"):
        return jnp.exp(x) / jnp.sum(jnp.exp(x))


PARAMS = {"kernel": W}


def measured(fun=model, *args, **options):
    return jr.ranges(fun, **options)(*(args or (PARAMS, X)))[1]


def rules(recipe, ranges=None):
    """What is said of each site, as `repr` has it."""
    found = recipe.rules_for((ranges or measured(inputs=True)).sites)
    return {name: shown(rule) for name, rule in found.items()}


def shown(rule):
    return repr(jr.Recipe({"": rule})).splitlines()[1].strip()


def only(recipe) -> Any:
    """The rule of a recipe that has one."""
    (entry,) = recipe.entries
    return entry.rule


# -- by hand ----------------------------------------------------------------------------------


def test_the_first_rule_that_matches_a_site_holds():
    found = rules(jr.Recipe({"softmax/*": None, "dot_general": ("int8",) * 2, "*": "bfloat16"}))
    assert found == {
        "input/params/kernel": "output bfloat16",
        "input/x": "output bfloat16",
        "hidden/tanh": "output bfloat16",
        "hidden/dot_general": f"operands {', '.join(['int8 scale made of each value'] * 2)}",
        **dict.fromkeys(("softmax/exp", "softmax/exp.1"), "as it is"),
        **dict.fromkeys(("softmax/reduce_sum", "softmax/div"), "as it is"),
    }


def test_a_sum_of_recipes_has_the_first_ones_rules_first():
    both = jr.Recipe({"exp": "float16"}) + jr.Recipe({"*": "bfloat16"})
    assert {rules(both)[name] for name in ("softmax/exp", "softmax/exp.1")} == {"output float16"}
    assert rules(both)["softmax/div"] == "output bfloat16"


def test_a_site_named_exactly_is_no_pattern_for_others():
    def f(x):
        return x @ W[:, :1] @ jnp.ones((1, 2)) @ jnp.ones((2, 3))

    ranges = measured(f, X, inputs=True)
    products = [site.name for site in ranges.sites if site.primitive == "dot_general"]
    assert products == ["dot_general", "dot_general.1", "dot_general.2"]
    found = rules(jr.Recipe.from_ranges(ranges, select="dot_general.1"), ranges)
    assert list(found) == ["dot_general.1"]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("bfloat16", "output bfloat16"),
        (jnp.float16, "output float16"),
        ("int8", "output int8 scale made of each value"),
        (("int8", None), "operands int8 scale made of each value, as it is"),
        (jr.QRule(("mxfp4", "q3.4"), "float16"), "operands mxfp4, q3.4, output float16"),
        ((jr.Dynamic("int4", channels=True),), "operands int4 scale made of each channel"),
        (None, "as it is"),
    ],
)
def test_what_a_rule_may_be(given_, expected):
    assert shown(given_) == expected


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jr.Recipe({"dot": "int9"}), ValueError, "the rule for 'dot': no format 'int9'"),
        (
            lambda: jr.Recipe(dict[Any, Any]({3: "int8"})),
            TypeError,
            "rules are by primitive or glob",
        ),
        (
            lambda: jr.QRule(operands="int8"),
            TypeError,
            "one entry an operand, got the string 'int8'",
        ),
        (lambda: jr.Dynamic("float8_e8m0fnu"), ValueError, "float8_e8m0fnu has no zero"),
    ],
)
def test_a_rule_that_is_none_is_an_error(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_glob_that_matches_nothing_is_told():
    sites = measured().sites
    with pytest.warns(UserWarning, match=r"rule for '\*sofmax\*' matches no site"):
        jr.Recipe({"*sofmax*": None, "*": "bfloat16"}).rules_for(sites)
    # A primitive that this program lacks is in order.
    jr.Recipe({"conv_general_dilated": ("int8", "int8"), "*": "bfloat16"}).rules_for(sites)


def test_a_site_that_is_not_there_is_an_error_with_the_nearest_ones():
    recipe = jr.Recipe.from_ranges(measured())
    other = measured(lambda x: jnp.tanh(x) @ W, X).sites
    with pytest.raises(
        jr.UnknownSiteError, match=r"'hidden/dot_general'.*nearest are 'dot_general'"
    ):
        recipe.rules_for(other)


def test_a_long_recipe_shows_its_beginning():
    text = repr(jr.Recipe({f"a{i}": "bfloat16" for i in range(1234)}))
    assert text.startswith("Recipe: 1,234 rules, the first that matches a site holds\n  a0")
    assert text.endswith("\n  and 1,034 more")


# -- from ranges ------------------------------------------------------------------------------


def test_activations_have_the_scale_of_their_range_and_weights_one_a_channel():
    ranges = measured()
    activation, weight = only(jr.Recipe.from_ranges(ranges)).operands
    expected = jr.qparams(ranges["hidden/tanh"], "int8")
    assert (activation.scale, activation.zero_point) == (expected.scale, expected.zero_point)
    assert weight == jr.Dynamic("int8", symmetric=True, channels=True)
    assert only(jr.Recipe.from_ranges(ranges)).output is None


def test_options_are_those_of_qparams_and_formats_may_differ():
    ranges = measured(inputs=True)
    recipe = jr.Recipe.from_ranges(
        ranges, "float8_e4m3fn", weights="int4", output="float16", margin=2
    )
    rule = only(recipe)
    expected = jr.qparams(ranges["hidden/tanh"], "float8_e4m3fn", margin=2)
    assert rule.operands[0].scale == expected.scale
    assert rule.operands[1].format.name == "int4"
    assert rule.output.scale == jr.qparams(ranges["hidden/dot_general"], "float16", margin=2).scale


def test_either_side_may_be_left_as_it_is():
    only_weights = jr.Recipe.from_ranges(measured(), None, weights="int4")
    assert list(rules(only_weights).values()) == [
        "operands as it is, int4 scale made of each channel"
    ]
    no_weights = jr.Recipe.from_ranges(measured(), "bfloat16", weights=None)
    assert "as it is" in rules(no_weights)["hidden/dot_general"]


@pytest.mark.parametrize("method", ["percentile", "mse", "kl"])
def test_methods_take_the_histogram_of_what_feeds_the_operation(method):
    stats = (jr.MinMax(), jr.Histogram(256))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
    ranges = measured(model, PARAMS, x, stats=stats)
    rule = only(jr.Recipe.from_ranges(ranges, method=method))
    expected = jr.qparams(ranges.of("hidden/tanh", jr.Histogram), "int8", method=method)
    assert rule.operands[0].scale == expected.scale


def test_an_operand_that_comes_out_of_a_branch_has_the_range_of_both():
    def f(c, x):
        return jax.lax.cond(c, jnp.exp, jnp.negative, x) @ W

    ranges = measured(f, True, X) | measured(f, False, X)
    rule = only(jr.Recipe.from_ranges(ranges))
    both = ranges["cond/branch_1/exp"] | ranges["cond/branch_0/neg"]
    assert rule.operands[0].scale == jr.qparams(both, "int8").scale


def test_a_product_of_one_value_with_itself_has_two_operands():
    ranges = measured(lambda x: jnp.exp(x).T @ jnp.exp(x), X)
    assert len(only(jr.Recipe.from_ranges(ranges)).operands) == 2
    ranges = measured(lambda x: (lambda y: y @ y)(jnp.exp(x)), jnp.eye(2))
    assert len({spec.scale for spec in only(jr.Recipe.from_ranges(ranges)).operands}) == 1


def test_weights_are_found_behind_casts_and_transposes():
    def f(params, x):
        return x @ params["w"].astype(jnp.bfloat16).astype(jnp.float32).T

    ranges = measured(f, {"w": W.T}, X, inputs=True)
    rule = only(jr.Recipe.from_ranges(ranges))
    assert isinstance(rule.operands[1], jr.Dynamic)


def test_what_counts_as_a_weight_can_be_said():
    def f(x, kernel):
        return x @ kernel

    ranges = measured(f, X, W, inputs=True)
    assert "channel" not in repr(jr.Recipe.from_ranges(ranges))
    assert "channel" in repr(jr.Recipe.from_ranges(ranges, weight_inputs="input/kernel"))


def test_where_there_are_params_nothing_else_in_a_container_is_a_weight():
    def apply(variables, *args):
        return args[0] @ variables["params"]["kernel"]

    ranges = measured(apply, {"params": PARAMS}, X, inputs=True)
    activation, weight = only(jr.Recipe.from_ranges(ranges)).operands
    assert isinstance(activation, jr.QParams)
    assert isinstance(weight, jr.Dynamic)


def test_stacked_ranges_are_merged():
    def f(params, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["layers"])[0]

    params = {"layers": jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])}
    stacked, merged = (
        measured(f, params, X, loops=loops, inputs=True) for loops in ("stack", "merge")
    )
    assert jr.Recipe.from_ranges(stacked) == jr.Recipe.from_ranges(merged)


@pytest.mark.parametrize(
    ("ranges", "options", "message"),
    [
        (
            lambda: measured(lambda x: x @ W, X),
            {},
            "'input/x', which was not measured.*inputs=True",
        ),
        (lambda: measured(select="dot_general"), {}, "'hidden/tanh', which was not measured"),
        (lambda: measured(), {"select": "dot"}, "select='dot' selects none of the"),
        (lambda: measured(), {"method": "mse"}, r"Histogram\(.*\) was not among the statistics"),
        (lambda: measured(), {"metod": "mse"}, "no option 'metod'"),
        (
            lambda: measured(model, PARAMS, X[:0]),
            {},
            "no scale for 'hidden/dot_general': nothing was",
        ),
    ],
)
def test_what_there_is_no_scale_for_is_an_error(ranges, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jr.Recipe.from_ranges(ranges(), **options)


def test_a_file_of_ranges_will_do_if_it_knows_operands(tmp_path):
    ranges = measured()
    ranges.save(tmp_path / "r.json")
    assert jr.Recipe.from_ranges(tmp_path / "r.json") == jr.Recipe.from_ranges(ranges)
    ranges.save(tmp_path / "r.csv")
    with pytest.raises(ValueError, match="operands of 'hidden/dot_general' are not known"):
        jr.Recipe.from_ranges(tmp_path / "r.csv")


# -- files ------------------------------------------------------------------------------------

FORMATS = ["int8", "uint8", "int4", "float8_e4m3fn", "float8_e5m2", "bfloat16", "q3.4", "mxfp4"]


@st.composite
def specs(draw):
    fmt = format_of(draw(st.sampled_from(FORMATS)))
    if draw(st.booleans()):
        return jr.Dynamic(fmt, draw(st.booleans()), draw(st.booleans()))
    lead = draw(st.sampled_from([(), (3,)]))
    finite = st.floats(2.0**-100, 2.0**100, width=32)
    scale = np.array(draw(st.lists(finite, min_size=3, max_size=3)), np.float32)
    if draw(st.booleans()):
        scale = scale.astype(np.float64) / 3
    zero = np.array(draw(st.lists(st.integers(-8, 7), min_size=3, max_size=3)), np.int32)
    zero = zero if fmt.uniform else np.zeros_like(zero)
    ends = fmt.codes if fmt.uniform else (fmt.least, fmt.largest)
    scale, zero = (part if lead else part[0] for part in (scale, zero))
    return jr.QParams(scale, zero, *ends, fmt, draw(st.sampled_from([None, 0, -1])))


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.builds(
            jr.QRule, st.none() | st.lists(st.none() | specs(), max_size=3), st.none() | specs()
        ),
        max_size=3,
    )
)
def test_a_file_reads_back_exactly(tmp_path_factory, rules):
    file = tmp_path_factory.mktemp("recipe") / "r.json"
    recipe = jr.Recipe(rules)
    recipe.save(file)
    back = jr.Recipe.load(file)
    assert [e.sites for e in back.entries] == [e.sites for e in recipe.entries]
    for ours, theirs in zip(recipe.entries, back.entries, strict=True):
        assert len(ours.rule.specs) == len(theirs.rule.specs)
        pairs: Any = zip(ours.rule.specs, theirs.rule.specs, strict=True)
        for a, b in pairs:
            assert type(a) is type(b)
            if isinstance(a, jr.Dynamic):
                assert a == b
                continue
            assert (a.format, a.qmin, a.qmax, a.axis) == (b.format, b.qmin, b.qmax, b.axis)
            for one, other in ((a.scale, b.scale), (a.zero_point, b.zero_point)):
                np.testing.assert_array_equal(one, other)
                assert np.asarray(one).dtype == np.asarray(other).dtype
    assert back == recipe


def test_a_recipe_from_ranges_reads_back(tmp_path):
    recipe = jr.Recipe.from_ranges(measured()) + jr.Recipe({"exp": "float16"})
    recipe.save(tmp_path / "r.json")
    assert jr.Recipe.load(tmp_path / "r.json") == recipe
    assert jr.Recipe.load(tmp_path / "r.json") != recipe + recipe


def test_a_file_may_be_written_by_hand(tmp_path):
    rules_ = [
        {"sites": "dot_general", "operands": ["float8_e4m3fn", {"format": "int8", "scale": 0.5}]},
        {"site": "softmax/exp", "output": "bfloat16"},
        {"sites": "tanh"},
    ]
    document = {"format": "jax_ranges.recipe", "version": 1, "rules": rules_}
    (tmp_path / "r.json").write_text(json.dumps(document))
    assert rules(jr.Recipe.load(tmp_path / "r.json")) == {
        "hidden/dot_general": "operands float8_e4m3fn, int8 scale 0.5",
        "softmax/exp": "output bfloat16",
        "hidden/tanh": "as it is",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no recipe that this release reads"),
        ("[]", "it has no format 'jax_ranges.recipe'"),
        ('{"format": "jax_ranges"}', "it has no format"),
        ('{"format": "jax_ranges.recipe", "version": 2, "rules": []}', "its version is 2"),
        ('{"format": "jax_ranges.recipe", "version": 1}', "its rules are no list"),
        *(
            (f'{{"format": "jax_ranges.recipe", "version": 1, "rules": [{rule}]}}', message)
            for rule, message in [
                ("{}", "in rule 1: no 'sites'"),
                ('{"sites": 3}', "in rule 1: the sites are 3"),
                ('{"sites": "*", "outputs": "int8"}', "unknown field 'outputs'"),
                ('{"sites": "*", "output": "int9"}', "no format 'int9'"),
                ('{"sites": "*", "output": {"format": "int8"}}', "int8 needs a scale"),
                ('{"sites": "*", "output": {"format": "int8", "scale": 0}}', "scales are positive"),
                ('{"sites": "*", "output": {"format": "int8", "scale": "dynamics"}}', "in rule 1"),
                ('{"sites": "*", "output": {"format": "q3.4", "scale": [-2]}}', "scales are"),
                ('{"sites": "*", "output": {"format": "q3.4", "codes": [0, 200]}}', "-128 to 127"),
                ('{"sites": "*", "output": 7}', "a format or an object with one, not 7"),
                ('{"sites": "*", "operands": "int8"}', "operands is 'int8', not a list"),
            ]
        ),
    ],
)  # fmt: skip
def test_a_file_that_is_none_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        jr.Recipe.load(tmp_path / "r.json")


def test_a_recipe_with_traced_scales_cannot_be_saved(tmp_path):
    def f(x):
        q = jr.qparams(jr.Range(-x, x, x < 0), "int8")
        jr.Recipe({"*": q}).save(tmp_path / "r.json")

    with pytest.raises(ValueError, match="traced"):
        jax.jit(f)(1.0)
