"""`jr.quantize`: a function whose matrix products and convolutions run on codes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax import lax

from jax_ranges import compat
from jax_ranges.call import Call, name_of, share, shared_variables
from jax_ranges.interpret import Jits
from jax_ranges.packing import Block
from jax_ranges.plan import Equation, Frame, Plan
from jax_ranges.quantization.array import QuantizedArray
from jax_ranges.quantization.executable import has_zero_point, why_simulated
from jax_ranges.quantization.execution import ExecutionPlan, execution_plan
from jax_ranges.quantization.products import Product, multiplied, product_of
from jax_ranges.quantization.recipe import Recipe, RecipeLike, recipe_of
from jax_ranges.quantization.resolved import Resolved, Treatment, resolve
from jax_ranges.quantization.seen import weights_among
from jax_ranges.quantization.simulate import Simulator, plan_to_rewrite
from jax_ranges.quantization.specs import Spec, Use, rounded
from jax_ranges.quantization.weights import Coded, Weights, carried, moved
from jax_ranges.site import Select, selector
from jax_ranges.transform import check_callable, named_like
from jax_ranges.trees import flat_tree, given_tree, native


def quantize(
    fun: Callable[..., Any],
    recipe: RecipeLike,
    *,
    weight_inputs: Select = None,
) -> Quantized:
    """Run `fun` with its matrix products and convolutions in low precision, by a recipe.

    Where a recipe has both operands of a `dot_general` or a convolution rounded, these become
    codes, and the product is one of codes:

    | operands | product |
    |---|---|
    | integers and fixed point of up to 8 bits | int8 x int8, summed up in int32, exactly |
    | floats of up to 16 bits | in their own types, summed up in float32 |

    then scaled to what it stands for. All else is as `jr.simulate(fun, recipe)` has it, and the
    outputs of the two are equal within the rounding of floats: sums of integers are exact here,
    those of the simulation are not. (Rarely an activation lies so near the middle of two codes
    that the last bit decides which one it gets.) What cannot be run on codes is simulated; `plan`
    says what, and why.

    Weights that `fun` captured are quantized once, when it is traced. Those that are arguments
    are quantized at each call, unless `prepare` has done so before:

        (params8, x), _ = low.prepare(params, x)
        y = jax.jit(low)(params8, x)

    Where one operand only is rounded (weight-only quantization), weights are kept as codes, too,
    and dequantized next to the product.

    XLA (as of jaxlib 0.12) has no products of types of 4 bits; their codes are widened to int8
    or float8_e4m3fn for the product, exactly. Different float types on both sides, where XLA
    does not take them, are widened to the narrowest type that has all numbers of both. What
    precision the program asks for (`jax.lax.Precision`) is no matter to codes. Whether a backend
    computes a product in narrow types or widens them itself is its affair; XLA for CPU, the only
    one on which this was run so far, has fast products of int8 and slow ones of float8.

    Args:
      fun: as for `jr.ranges`.
      recipe: a `jr.Recipe`, the rules of one, or the file of one.
      weight_inputs: what selects the inputs and constants that are weights, to be stored as
        codes: by default those that `jr.Recipe.from_ranges` takes for weights.

    Returns:
      A `Quantized`: call it like `fun`. It composes with jit, vmap, scan and shard_map, and
      traces anew at each call: jit it. Nothing can be differentiated through what is rounded, and
      who tries gets an error: train with `jr.simulate(..., straight_through=True)`.

    Raises:
      UnknownSiteError: the recipe names a site that `fun` does not have.
      ValueError: the recipe rounds nothing in `fun`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> w = jnp.array([[0.5, -1.0], [0.25, 2.0]])
      >>> low = jr.quantize(lambda x: jnp.tanh(x) @ w, {"dot_general": ("int8", "int8")})
      >>> jax.jit(low)(jnp.array([1.0, -0.5]))
      Array([ 0.26744804, -1.6910989 ], dtype=float32)
      >>> low.plan(jnp.ones(2))
      ExecutionPlan: 1 product, 1 on codes
        dot_general  codes  int8 x int8 -> int32; operand 1 stored as int8
    """
    check_callable(fun, "jr.quantize takes a function and a recipe: y = jr.quantize(f, recipe)(x)")
    return Quantized(fun, recipe_of(recipe), weight_inputs)


class Quantized:
    """A function that runs in low precision; see `jr.quantize`, which makes it."""

    def __init__(self, fun: Callable[..., Any], recipe: Recipe, weight_inputs: Select):
        self._fun, self._recipe, self._jits = fun, recipe, Jits()
        self._weight_inputs = weight_inputs
        self.__name__: str
        named_like(fun, "quantize")(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = _Given.trace(self._fun, args, kwargs)
        given.require_arrays()
        program = self._program(given)
        executor = Executor(
            stats=(), jits=self._jits, resolved=program.resolved, weights=program.weights
        )
        with compat.own():
            outs, _ = executor.run(program.plan.frame, given.values)
        returned = given.call.returned
        return returned.output(returned.typed(outs), args, kwargs)

    def prepare(self, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments with weights as codes: `args, kwargs` for any later call.

        An array becomes a `jr.QuantizedArray` if it is a weight (`weight_inputs`) and all that
        is done with it ends at products that round it alike; it may be cast, transposed and
        sliced by a scan before. Others, biases and embedding tables among them, stay as they
        are, and so do weights that go through custom derivatives, shard_map, or a jit with
        shardings of its own.

        Calls give the same results, bit for bit, if both are jitted. Shapes
        (`jax.ShapeDtypeStruct`) suffice for what is no weight.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> def model(params, x):
          ...     return x @ params["kernel"] + params["bias"]
          >>> low = jr.quantize(model, {"dot_general": ("int8", jr.Dynamic("int8", channels=True))})
          >>> params = {"kernel": jnp.ones((64, 8)), "bias": jnp.zeros(8)}
          >>> (params8, x), _ = low.prepare(params, jnp.ones(64))
          >>> params8["kernel"]
          QuantizedArray(float32[64, 8] as int8, scales [1, 8])
          >>> low(params8, x).shape
          (8,)
        """
        given = _Given.trace(self._fun, args, kwargs)
        program = self._program(given)
        frame = program.plan.frame
        coded = program.weights.coded.get(frame, {})
        positions = iter(range(len(frame.consts), len(frame.consts) + len(given.values)))
        with compat.own():
            leaves = [
                _prepared(self._jits, coded.get(next(positions)), leaf) if dynamic else leaf
                for leaf, dynamic in zip(given.leaves, given.call.dynamic, strict=True)
            ]
        prepared = given_tree(given.tree.unflatten(leaves))
        share(prepared, shared_variables((args, kwargs)))
        return prepared

    def plan(self, *args: Any, **kwargs: Any) -> ExecutionPlan:
        """What is run on codes, what is not, and why; shapes suffice for arguments."""
        given = _Given.trace(self._fun, args, kwargs)
        program = self._program(given)
        frame = program.plan.frame
        stored = [
            len(frame.consts) + i
            for i, value in enumerate(given.values)
            if isinstance(value, QuantizedArray)
        ]
        return execution_plan(frame, program.resolved, program.weights, stored)

    def _program(self, given: _Given) -> _Program:
        plan = plan_to_rewrite(given.call)
        resolved = resolve(self._recipe, plan)
        selects = selector(weights_among(plan.sites, self._weight_inputs))
        return _Program(plan, resolved, Weights.find(plan.frame, resolved, selects))

    def __repr__(self) -> str:
        return f"jr.quantize({name_of(self._fun)}): {self._recipe!r}"


@dataclass(frozen=True)
class _Program:
    plan: Plan
    resolved: Resolved
    weights: Weights


@dataclass(frozen=True)
class _Given:
    """The arguments of a call, in which quantized arrays may stand for arrays.

    Attributes:
      call: the call, traced.
      leaves, tree: the arguments `(args, kwargs)`, quantized arrays as leaves.
      values: the leaves that the program takes.
    """

    call: Call
    leaves: list[Any]
    tree: Any
    values: list[Any]

    @classmethod
    def trace(cls, fun: Any, args: Any, kwargs: Any) -> _Given:
        leaves, tree = jax.tree.flatten(flat_tree((args, kwargs)), is_leaf=_is_quantized)
        if any(map(_is_quantized, leaves)):
            args, kwargs = tree.unflatten([_abstract(leaf) for leaf in leaves])
        call = Call.trace(fun, args, kwargs, abstract=True)
        values = [native(leaf) for leaf, d in zip(leaves, call.dynamic, strict=True) if d]
        return cls(call, leaves, tree, values)

    def require_arrays(self) -> None:
        """TypeError if there are shapes in their place."""
        for name, value in zip(self.call.names, self.values, strict=True):
            if isinstance(value, jax.ShapeDtypeStruct):
                raise TypeError(
                    f"a quantized function runs and needs arrays; {name} is the abstract {value}. "
                    f"For shapes only use jax.eval_shape, or its plan(...)"
                )


def _is_quantized(x: Any) -> bool:
    return isinstance(x, QuantizedArray)


def _abstract(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if _is_quantized(leaf) else leaf


def _prepared(jits: Jits, coded: Coded | None, leaf: Any) -> Any:
    if coded is None or isinstance(leaf, (QuantizedArray, jax.ShapeDtypeStruct)):
        return leaf
    return _jitted(jits, coded)(leaf)


def _jitted(jits: Jits, coded: Coded) -> Callable[[Any], QuantizedArray]:
    """Compiled as a whole, so that the same codes come of it wherever it is done."""
    return jits.get((coded.key(), coded.sums), lambda: jax.jit(coded))


@dataclass(frozen=True, kw_only=True)
class Executor(Simulator):
    """Computes products of codes where it can, and simulates the rest.

    Attributes:
      weights: what is stored as codes.
    """

    weights: Weights

    def run(self, frame: Frame, values: Sequence[Any]) -> tuple[list[Any], Block]:
        outs, block = super().run(frame, values)
        return list(map(_dense, outs)), block

    def entering(self, frame: Frame, values: list[Any]) -> list[Any]:
        specs = self.resolved.arguments.get(frame, {})
        coded = self.weights.coded.get(frame, {})
        stored = [
            self._ahead(coded[i], x) if i in coded and i < len(frame.consts) else x
            for i, x in enumerate(values)
        ]
        return [  # what is codes has been rounded before
            x if _is_quantized(x) else self._rounded(specs.get(i), x, Use())
            for i, x in enumerate(stored)
        ]

    def _equation(self, equation: Equation, values: list[Any], groups: Any) -> Any:
        if equation.frames:
            plain = carried(equation)
            values = [_dense(x) if i in plain else x for i, x in enumerate(values)]
        return super()._equation(equation, values, groups)

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        eqn = equation.eqn
        if _is_quantized(values[0] if values else None):
            step = moved(eqn)
            if step is not None:
                with _at_once(values[0]):
                    found = [step.of_codes(values[0])]
                return found, found
        treatment = self.resolved.equations.get(equation, Treatment())
        product = product_of(eqn) if treatment.operands else None
        if product is None or why_simulated(eqn, product, treatment.operands):
            keep = equation in self.resolved.equations
            return super().evaluate(equation, values if keep else list(map(_dense, values)))
        aval = eqn.outvars[0].aval

        def of_codes(*operands: Any) -> Any:
            lhs, rhs = (self._codes(product, treatment, i, x) for i, x in enumerate(operands))
            return multiplied(product, lhs, rhs, aval.dtype)

        results = self.results(equation, [compat.computed_where(aval, of_codes, *values)])
        return results, results

    def _codes(self, product: Product, treatment: Treatment, i: int, x: Any) -> QuantizedArray:
        """The codes of an operand; it may have them already."""
        spec, over = treatment.operands[i], product.summed[i]
        if _is_quantized(x):
            if x.format == spec.format and all(x.scale.shape[axis] == 1 for axis in over):
                return x
            x = _dense(x)
        if compat.is_traced(x):
            return _without_gradient(_jitted(self.jits, Coded((), spec, tuple(over), False)))(x)
        sums = has_zero_point(treatment.operands[1 - i])
        return self._ahead(Coded((), spec, tuple(over), sums), x)

    def _ahead(self, coded: Coded, x: Any) -> QuantizedArray:
        with compat.apart():
            return _jitted(self.jits, coded)(x)

    def _rounded(self, spec: Spec | None, value: Any, use: Use) -> Any:
        if _is_quantized(value):
            value, same = _dense(value), spec is None or spec.format == value.format
            if same:
                return value
        if spec is None:
            return value
        return compat.computed_in_place(_without_gradient(lambda x: rounded(spec, x, use)), value)


def _dense(x: Any) -> Any:
    """An array. XLA is kept from dequantizing constants as it compiles, and storing what comes."""
    if not _is_quantized(x):
        return x
    return replace(x, codes=lax.optimization_barrier(x.codes)).dequantize()


def _at_once(x: QuantizedArray) -> contextlib.AbstractContextManager[Any]:
    """What is computed of constants is computed now, not by the compiler."""
    traced = any(map(compat.is_traced, jax.tree.leaves(x)))
    return contextlib.nullcontext() if traced else compat.apart()


def _without_gradient(fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same; whoever differentiates it gets an error."""
    undifferentiated = jax.custom_jvp(fun)

    @undifferentiated.defjvp
    def _(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:  # pyright: ignore[reportUnusedFunction]
        del primals, tangents
        raise TypeError(
            "a function made by jr.quantize cannot be differentiated through what it rounds. To "
            "train, differentiate jr.simulate(f, recipe, straight_through=True); to run a backward "
            "pass in low precision, quantize the gradient: jr.quantize(jax.grad(loss), recipe)"
        )

    return undifferentiated
