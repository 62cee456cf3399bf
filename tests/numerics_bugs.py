"""Planted numerics bugs, each a small real program; and programs that make infinities for good.

`BUGS` maps a name to a `Bug`. The line that is to blame has the comment `# born`, and for bugs in
loops `iteration` says when. `CLEAN` maps a name to a program of which nothing may be said.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

Made = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Bug:
    """A program with a bug.

    Attributes:
      make: makes the function and its arguments.
      kind: of the birth to be reported first.
      iteration: of it, if it is in loops.
      needs: the package it is written with, if any.
      site: the name of the site, of those that are no operation of the program.
    """

    make: Callable[[], Made]
    kind: str
    iteration: tuple[int, ...] = ()
    needs: str = ""
    site: str = ""

    @property
    def line(self) -> int:
        """The line that is to blame."""
        lines, start = inspect.getsourcelines(self.make)
        (found,) = [n for n, line in enumerate(lines) if "# born" in line]
        return start + found

    @property
    def missing(self) -> bool:
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


BUGS: dict[str, Bug] = {}
CLEAN: dict[str, Callable[[], Made]] = {}


def bug(kind: str, **about: Any) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    def add(make: Callable[[], Made]) -> Callable[[], Made]:
        BUGS[make.__name__] = Bug(make, kind, **about)
        return make

    return add


def clean(make: Callable[[], Made]) -> Callable[[], Made]:
    CLEAN[make.__name__] = make
    return make


def normal(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.normal(jax.random.key(len(shape)), shape, dtype)


# -- attention, softmax, losses ---------------------------------------------------------------


@bug("nan")
def attention_with_a_fully_masked_row():
    def attend(q, k, v, mask):
        scores = jnp.where(mask, q @ k.T / 2.0, -jnp.inf)
        return jax.nn.softmax(scores) @ v  # born

    mask = jnp.tril(jnp.ones((4, 4), bool)).at[2].set(False)
    return attend, (normal(4, 4), normal(4, 4), normal(4, 4), mask)


@bug("+inf")
def softmax_without_max_subtraction():
    def softmax(x):
        e = jnp.exp(x)  # born
        return e / e.sum()

    return softmax, (jnp.array([1.0, 104.2, 3.0]),)


@bug("-inf")
def log_sum_exp_that_underflows():
    def lse(x):
        total = jnp.sum(jnp.exp(x), -1)
        return jnp.log(total)  # born

    return lse, (jnp.full((3, 5), -200.0),)


@bug("+inf")
def log_sum_exp_that_overflows_in_bfloat16():
    def lse(x):
        return jnp.log(jnp.sum(jnp.exp(x)))  # born

    return lse, (jnp.array([1.0, 95.0], jnp.bfloat16),)


@bug("-inf")
def cross_entropy_of_a_probability_zero():
    def loss(labels, p):
        logs = jnp.log(p)  # born
        return -jnp.sum(labels * logs)

    return loss, (jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))


@bug("nan")
def kl_divergence_with_two_zeros():
    def kl(p, q):
        ratio = p / q  # born
        return jnp.sum(p * jnp.log(ratio))

    return kl, (jnp.array([0.5, 0.5, 0.0]), jnp.array([0.5, 0.5, 0.0]))


@bug("-inf")
def epsilon_too_small_for_bfloat16():
    def log_of_the_rest(p):
        rest = 1.0 + 1e-6 - p
        return jnp.log(rest)  # born

    return log_of_the_rest, (jnp.array([0.5, 1.0], jnp.bfloat16),)


@bug("+inf")
def naive_softplus():
    return lambda x: jnp.log(1 + jnp.exp(x)), (jnp.array([0.0, 120.0]),)  # born


@bug("+inf")
def gradient_of_a_naive_sigmoid():
    def sigmoid(x):
        e = jnp.exp(-x)  # born
        return 1 / (1 + e)

    return jax.grad(sigmoid), (-100.0,)


@bug("+inf")
def ratio_of_policies():
    def surrogate(new, old, advantage):
        ratio = jnp.exp(new - old)  # born
        return jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage).mean()

    return surrogate, (jnp.array([-1.0, -2.0]), jnp.array([-1.5, -99.0]), jnp.array([1.0, -1.0]))


@bug("+inf")
def logit_of_one():
    def logit(p):
        odds = p / (1 - p)  # born
        return jnp.log(odds)

    return logit, (jnp.array([0.3, 1.0]),)


# -- norms, variances, geometry ---------------------------------------------------------------


@bug("nan")
def variance_by_difference_of_squares():
    def deviation(x):
        variance = jnp.mean(x * x) - jnp.mean(x) ** 2 - 1e-3
        return jnp.sqrt(variance)  # born

    return deviation, (jnp.full(64, 1000.0),)


@bug("+inf")
def gradient_of_a_norm_at_zero():
    def loss(x):
        return jnp.linalg.norm(x)  # born

    return jax.grad(loss), (jnp.zeros(3),)


@bug("nan")
def gradient_of_arctan2_at_the_origin():
    def loss(y, x):
        angle = jnp.arctan2(y, x)  # born
        return jnp.sum(angle**2)

    return jax.grad(loss), (jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0]))


@bug("+inf")
def gradient_through_the_branch_that_where_did_not_take():
    def loss(x):
        root = jnp.sqrt(x)  # born
        return jnp.sum(jnp.where(x > 0, root, 0.0))

    return jax.grad(loss), (jnp.array([4.0, 0.0]),)


@bug("+inf")
def elu_whose_exp_overflows_where_it_is_not_taken():
    def loss(x):
        below = jnp.exp(x) - 1  # born
        return jnp.sum(jnp.where(x > 0, x, below))

    return jax.grad(loss), (jnp.array([-1.0, 500.0]),)


@bug("nan")
def cosine_similarity_of_a_zero_vector():
    def similarity(a, b):
        return a @ b / (jnp.sqrt(a @ a) * jnp.sqrt(b @ b))  # born

    return similarity, (jnp.zeros(3), jnp.ones(3))


@bug("nan")
def angle_between_equal_vectors():
    def angle(cosine):
        return jnp.arccos(cosine * (1 + 1e-6))  # born

    return angle, (jnp.array([0.5, 1.0]),)


@bug("+inf")
def gradient_of_arccos_at_one():
    def loss(x):
        return jnp.sum(jnp.arccos(x))  # born

    return jax.grad(loss), (jnp.array([0.0, 1.0]),)


@bug("+inf")
def gradient_of_a_standard_deviation_of_equal_numbers():
    def loss(x):
        return jnp.std(x)  # born

    return jax.grad(loss), (jnp.ones(5),)


@bug("nan")
def sample_variance_of_one_sample():
    def variance(x):
        return jnp.sum((x - x.mean()) ** 2) / (x.size - jnp.float32(1))  # born

    return variance, (jnp.ones(1),)


@bug("+inf")
def layer_norm_without_epsilon():
    def norm(x):
        centred = x - x.mean(-1, keepdims=True)
        scale = lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True))  # born
        return centred * scale

    return norm, (jnp.stack([jnp.arange(4.0), jnp.ones(4)]),)


@bug("+inf")
def fisher_transform_of_a_perfect_correlation():
    return lambda r: jnp.arctanh(r), (jnp.array([0.1, 1.0]),)  # born


@bug("+inf")
def probit_of_one():
    def probit(p):
        return jax.scipy.special.erfinv(2 * p - 1)  # born

    return probit, (jnp.array([0.5, 1.0]),)


@bug("nan")
def fractional_power_of_a_negative_number():
    def gamma_correct(x):
        return jnp.power(x, 0.45)  # born

    return gamma_correct, (jnp.array([0.5, -1e-3]),)


# -- small formats ----------------------------------------------------------------------------


@bug("+inf")
def loss_scaling_in_float16():
    def scaled(x):
        loss = jnp.mean(x * x)
        return loss * jnp.float16(2**15)  # born

    return scaled, (jnp.full(8, 2.0, jnp.float16),)


@bug("nan")
def adam_epsilon_that_is_zero_in_float16():
    def step(m, v):
        denominator = jnp.sqrt(v) + jnp.asarray(1e-8, jnp.float16)
        return m / denominator  # born

    return step, (jnp.zeros(3, jnp.float16), jnp.zeros(3, jnp.float16))


@bug("nan")
def cast_to_float8_e4m3fn():
    def store(x):
        return x.astype(jnp.float8_e4m3fn)  # born

    return store, (jnp.array([1.0, 500.0]),)


@bug("+inf")
def cast_to_float8_e5m2():
    def store(x):
        small = (x * 2).astype(jnp.float8_e5m2)  # born
        return small.astype(jnp.float32)

    return store, (jnp.array([1.0, 5e4]),)


@bug("+inf")
def squares_in_float16():
    def power(x):
        squares = jnp.square(x)  # born
        return squares.astype(jnp.float32).mean()

    return power, (jnp.array([1.0, 300.0], jnp.float16),)


@bug("+inf")
def matrix_product_in_float16():
    def gram(x):
        return x @ x.T  # born

    return gram, (jnp.full((4, 16), 80.0, jnp.float16),)


@bug("+inf")
def count_converted_to_float16():
    def total(mean, count):
        return mean * count.astype(jnp.float16)  # born

    return total, (jnp.float16(0.25), jnp.int32(70123))


# -- means, indices, linear algebra, data -----------------------------------------------------


@bug("nan")
def mean_over_an_empty_mask():
    def mean(x, mask):
        return jnp.sum(x * mask) / jnp.sum(mask)  # born

    return mean, (normal(4), jnp.zeros(4))


@bug("nan", site="input/batch/image")
def nan_in_the_data():
    def model(w, batch):  # born
        return jnp.tanh(batch["image"] @ w)

    return model, (normal(3, 2), {"image": jnp.ones((2, 3)).at[1, 1].set(jnp.nan)})


@bug("nan")
def index_out_of_bounds():
    def embed(table, tokens):
        return jnp.take(table, tokens, axis=0)  # born

    return embed, (normal(5, 2), jnp.array([1, 7]))


@bug("nan")
def cholesky_of_an_indefinite_matrix():
    def whiten(covariance):
        factor = jnp.linalg.cholesky(covariance)  # born
        return factor @ factor.T

    return whiten, (jnp.array([[1.0, 2.0], [2.0, 1.0]]),)


@bug("nan")
def solving_a_singular_system():
    def solve(a, b):
        return jnp.linalg.solve(a, b)  # born

    return solve, (jnp.zeros((2, 2)), jnp.zeros(2))


@bug("+inf")
def product_of_likelihoods():
    def odds(x):
        return jnp.cumprod(x)  # born

    return odds, (jnp.full(40, 20.0),)


@bug("nan")
def digamma_at_a_pole():
    def dirichlet(alpha):
        return jax.scipy.special.digamma(alpha)  # born

    return dirichlet, (jnp.array([1.0, -2.0]),)


# -- loops ------------------------------------------------------------------------------------


@bug("+inf", iteration=(37,))
def ode_whose_step_is_too_large():
    def solve(y, dt):
        def step(y, _):
            slope = -11.5 * y  # born
            y = y + dt * slope
            return y, y

        return lax.scan(step, y, None, length=100)

    return solve, (1.0, 1.0)


@bug("-inf", iteration=(29,))
def training_with_too_large_a_learning_rate():
    def train(w, rate):
        gradient = jax.grad(lambda w: w**2)

        def step(w, _):
            return w - rate * gradient(w), None  # born

        return lax.scan(step, w, None, length=50)[0]

    return train, (1.0, 10.5)


@bug("+inf", iteration=(5,))
def division_by_a_counter():
    def weights(n):
        return lax.fori_loop(0, n, lambda i, w: w + 1 / (5.0 - i), 0.0)  # born

    return weights, (10,)


@bug("nan", iteration=(9,))
def while_loop_that_leaves_the_domain():
    def search(x):
        def step(state):
            i, x, total = state
            part = jnp.where(x > 2, jnp.log(x - 5), 0.0)  # born
            return i + 1, x + 0.25, total + part

        return lax.while_loop(lambda s: s[0] < 20, step, (0, x, 0.0))[2]

    return search, (0.0,)


@bug("+inf", iteration=(10,))
def gradient_that_explodes_in_the_backward_scan():
    def loss(x):
        def cell(x, _):
            return jnp.sin(100.0 * x), None  # born

        return lax.scan(cell, x, None, length=30)[0]

    return jax.grad(loss), (0.0,)


@bug("+inf", iteration=(3, 4))
def nested_loops():
    def table(x):
        def outer(x, i):
            def inner(x, j):
                return x, x / (jnp.float32(3.0) - i + jnp.abs(j - 4))  # born

            return lax.scan(inner, x, jnp.arange(6.0))

        return lax.scan(outer, x, jnp.arange(4.0))[1]

    return table, (1.0,)


@bug("nan", iteration=(6,))
def masked_at_first_then_not():
    def run(xs):
        def step(total, x):
            root = jnp.sqrt(x)  # born
            return total + jnp.where(x < -1, 0.0, root), None

        return lax.scan(step, 0.0, xs)[0]

    return run, (jnp.array([-5.0, 1.0, -4.0, 2.0, 3.0, -2.0, -0.5, 1.0]),)


# -- transformations --------------------------------------------------------------------------


@bug("+inf")
def branch_of_a_cond():
    def safe(x):
        return lax.cond(x > 0, lambda x: 1 / (x - 1), lambda x: x, x)  # born

    return jax.jit(safe), (1.0,)


@bug("-inf")
def one_example_of_a_batch():
    def score(x):
        return jnp.log(jnp.abs(x)).sum()  # born

    return jax.vmap(score), (jnp.array([[1.0, 2.0], [3.0, 0.0]]),)


@bug("+inf")
def recomputed_in_the_backward_pass():
    @jax.checkpoint
    def layer(x):
        return jnp.sqrt(x * 2)  # born

    return jax.grad(lambda x: layer(x) ** 2), (0.0,)


@bug("+inf")
def forward_of_a_custom_rule():
    @jax.custom_jvp
    def inverse(x):
        return 1 / x  # born

    inverse.defjvp(lambda p, t: (inverse(*p), -t[0]))
    return inverse, (jnp.array([1.0, 0.0]),)


@bug("nan")
def backward_of_a_custom_rule():
    @jax.custom_vjp
    def unit(x):
        return jnp.sign(x)

    def backward(x, ct):
        return (ct * x / jnp.abs(x),)

    unit.defvjp(lambda x: (unit(x), x), backward)
    # To JAX the operations of such a rule are those of the line that differentiates.
    return jax.grad(lambda x: unit(x).sum()), (jnp.array([2.0, 0.0]),)  # born


@bug("-inf")
def on_each_device():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())
    def total(x):
        return lax.psum(jnp.log(x).sum(), "data")  # born

    return total, (jnp.arange(4.0),)


@bug("+inf")
def inside_of_jitted_functions():
    @jax.jit
    def inner(x):
        return jnp.exp2(x)  # born

    @jax.jit
    def outer(x):
        return inner(x) + inner(-x)

    return outer, (jnp.array([3.0, 130.0]),)


# -- libraries --------------------------------------------------------------------------------


@bug("+inf", needs="flax")
def flax_layer_norm_without_epsilon():
    import flax.linen as nn

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4)(x)
            return nn.LayerNorm(epsilon=0.0)(x)  # born

    model = Model()
    return model.apply, (model.init(jax.random.key(0), jnp.ones((1, 3))), jnp.zeros((2, 3)))


@bug("nan", needs="optax")
def optax_adam_without_epsilon():
    import optax

    optimizer = optax.adam(1e-3, eps=0.0)
    params = {"w": jnp.ones(3)}

    def step(params, state, x):
        gradients = jax.grad(lambda p: jnp.sum(jax.nn.relu(p["w"] * x)))(params)
        updates, state = optimizer.update(gradients, state)  # born
        return optax.apply_updates(params, updates), state

    return step, (params, optimizer.init(params), jnp.array([1.0, -1.0, 2.0]))


@bug("+inf", needs="diffrax", iteration=(5,))
def diffrax_solution_that_blows_up():
    import diffrax

    def slope(t, y, args):
        return y * y * args  # born

    def solve(y, rate):
        return diffrax.diffeqsolve(
            *(diffrax.ODETerm(slope), diffrax.Euler(), 0.0, 1.0, 0.1, y),
            args=rate,
            adjoint=diffrax.DirectAdjoint(),
            max_steps=16,
        ).ys

    return solve, (jnp.float32(10.0), jnp.float32(10.0))


@bug("+inf", needs="equinox")
def equinox_attention_of_a_zero_key():
    import equinox as eqx

    class Cosine(eqx.Module):
        scale: jax.Array

        def __call__(self, q, k):
            length = jnp.sqrt(jnp.sum(k * k, -1, keepdims=True))
            return q @ (k * (self.scale / length)).T  # born

    return eqx.filter_jit(Cosine(jnp.float32(8.0))), (normal(2, 3), jnp.eye(3).at[1, 1].set(0.0))


# -- programs of which nothing may be said ----------------------------------------------------


@clean
def causal_attention():
    def attend(q, k, v):
        scores = jnp.where(jnp.tril(jnp.ones((4, 4), bool)), q @ k.T, -jnp.inf)
        return jax.nn.softmax(scores) @ v

    return attend, (normal(4, 4), normal(4, 4), normal(4, 4))


@clean
def gradient_of_causal_attention():
    attend, args = causal_attention()
    return jax.grad(lambda *args: attend(*args).sum()), args


@clean
def attention_with_a_mask_among_the_arguments():
    def attend(x, bias):
        return jax.nn.softmax(x @ x.T + bias) @ x

    return attend, (normal(4, 4), jnp.where(jnp.tril(jnp.ones((4, 4), bool)), 0.0, -jnp.inf))


@clean
def fully_masked_row_that_is_seen_to():
    def attend(x, mask):
        weights = jax.nn.softmax(jnp.where(mask, x, -jnp.inf))
        return jnp.where(mask.any(-1, keepdims=True), weights, 0.0)

    return attend, (normal(3, 3), jnp.eye(3, dtype=bool).at[1, 1].set(False))


@clean
def masked_log():
    return lambda x: jnp.where(x > 0, jnp.log(x), 0.0), (jnp.array([-1.0, 0.0, 2.0]),)


@clean
def where_on_both_sides():
    def loss(x):
        safe = jnp.where(x > 0, x, 1.0)
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(safe) + 1 / safe, 0.0))

    return jax.grad(loss), (jnp.array([-1.0, 0.0, 4.0]),)


@clean
def running_minimum():
    def run(xs):
        return lax.scan(lambda m, x: (jnp.minimum(m, x), jnp.minimum(m, x)), jnp.inf, xs)

    return run, (normal(9),)


@clean
def shortest_paths():
    def relax(weights):
        start = jnp.full(4, jnp.inf).at[0].set(0.0)
        step = lambda _, d: jnp.minimum(d, jnp.min(d[:, None] + weights, 0))  # noqa: E731
        return lax.fori_loop(0, 4, step, start)

    far = jnp.inf
    return relax, (
        jnp.array([[0.0, 1, far, far], [far, 0, 2, far], [far, far, 0, 3], [far, far, far, 0]]),
    )


@clean
def online_softmax():
    def run(scores, values):
        def step(state, x):
            top, total, out = state
            score, value = x
            new = jnp.maximum(top, score)
            old, now = jnp.exp(top - new), jnp.exp(score - new)
            return (new, total * old + now, out * old + now * value), None

        state = (-jnp.inf, 0.0, jnp.zeros(3))
        (_, total, out), _ = lax.scan(step, state, (scores, values))
        return out / total

    return run, (normal(6), normal(6, 3))


@clean
def nan_in_the_data_that_is_left_out():
    return lambda x: jnp.nanmean(x, 0), (jnp.array([[1.0, jnp.nan], [3.0, 4.0]]),)


@clean
def sampling_from_the_best():
    def sample(key, logits):
        threshold = jnp.sort(logits)[-3]
        return jax.random.categorical(key, jnp.where(logits < threshold, -jnp.inf, logits))

    return sample, (jax.random.key(0), normal(16))


@clean
def step_that_is_skipped_when_it_overflows():
    def step(w, x):
        gradient = jax.grad(lambda w: jnp.sum((w * x).astype(jnp.float16) ** 2))(w)
        fine = jnp.all(jnp.isfinite(gradient))
        return jnp.where(fine, w - gradient, w)

    return step, (jnp.ones(2), jnp.array([1.0, 9e4]))


@clean
def logaddexp_of_nothing():
    return lambda x: jnp.logaddexp(x, -jnp.inf), (normal(3),)


@clean
def largest_of_none():
    return lambda x, mask: jnp.where(mask.any(), jnp.max(x, initial=-jnp.inf, where=mask), 0.0), (
        normal(3),
        jnp.zeros(3, bool),
    )


@clean
def logsumexp_of_masked_rows():
    def lse(x, mask):
        return jax.nn.logsumexp(jnp.where(mask, x, -jnp.inf), -1)

    return lse, (normal(2, 3), jnp.array([[True, False, True], [False, True, False]]))


@clean
def viterbi():
    def decode(scores, transitions):
        def step(best, score):
            return jnp.max(best[:, None] + transitions, 0) + score, jnp.argmax(best)

        start = jnp.full(3, -jnp.inf).at[0].set(0.0)
        return lax.scan(step, start, scores)

    return decode, (normal(5, 3), jnp.zeros((3, 3)))


@clean
def sorting_with_padding():
    def middle(x, n):
        padded = jnp.where(jnp.arange(8) < n, x, jnp.inf)
        return jnp.sort(padded)[n // 2]

    return middle, (normal(8), 5)


@clean
def exp_that_becomes_zero():
    return lambda x: jnp.exp(-(x**2)) / (1 + jnp.exp(-x)), (jnp.array([0.0, 50.0, 80.0]),)


@clean
def clipping_between_infinities():
    return lambda x: jnp.clip(x, -jnp.inf, jnp.inf) * 2, (normal(4),)


@clean
def division_guarded_by_the_denominator():
    def mean(x, mask):
        count = mask.sum()
        return jnp.where(count > 0, jnp.sum(x * mask) / count, 0.0)

    return mean, (normal(4), jnp.zeros(4))


@clean
def safe_softmax_in_float8():
    def quantized(x):
        weights = jax.nn.softmax(x)
        return (weights * 100).astype(jnp.float8_e4m3fn).astype(jnp.float32) / 100

    return quantized, (normal(4, 4),)


@clean
def while_loop_that_converges():
    def root(a):
        step = lambda s: (0.5 * (s[0] + a / s[0]), s[0])  # noqa: E731
        return lax.while_loop(lambda s: jnp.abs(s[0] - s[1]) > 1e-6, step, (a, jnp.inf))[0]

    return root, (2.0,)
