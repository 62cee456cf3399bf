"""What a rule is: how an equation with inner programs is planned, and how it is run measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from jax_ranges.packing import Block
from jax_ranges.stats import Statistic


class Link(NamedTuple):
    """Which operand (or result) of the equation a variable of the inner program belongs to.

    `outer`: its index; None for a predicate, which belongs to none.
    `exact`: whenever the equation runs, the values that the inner variable takes are, taken
    together, exactly those of the outer one. Then derived ranges reach across: those of inner
    sites may follow from outer sources, and the other way round.
    `back`: the output of the inner program that it takes the value of in the next iteration.
    `same`: each time the inner program runs (it may not), the inner variable has the outer
    one's value, or on many devices a part of it each. So have those that are exact, but for
    the slices and what is stacked of a scan.
    """

    outer: int | None
    exact: bool = False
    back: int | None = None
    same: bool = False


class Loop(NamedTuple):
    """A loop: how often it goes round, if that is known, and whether from the end on."""

    length: int | None = None
    reverse: bool = False


@dataclass(frozen=True)
class Program:
    """One inner program of an equation.

    Attributes:
      scopes: what is added to the names of its sites.
      jaxpr: it, open or closed.
      operands, results: for each of its inputs and outputs, the equation's operand and result.
      trips: for a loop whose iterations are stacked, how many there are; else None.
      loop: the loop of which it is the body or the condition, if it is.
    """

    scopes: tuple[str, ...]
    jaxpr: Any
    operands: tuple[Link, ...]
    results: tuple[Link, ...]
    trips: int | None = None
    loop: Loop | None = None

    @property
    def repeats(self) -> bool:
        """Whether it runs many times, so that what happens in it counts as often."""
        return self.loop is not None


class Interpreter(Protocol):
    """What rules ask of the interpreter that they are handed."""

    @property
    def stats(self) -> tuple[Statistic, ...]: ...

    rewrites: ClassVar[bool]
    """Whether it computes other values than the program's own equations would."""

    differentiable: ClassVar[bool]
    """Whether values are arrays, which may be differentiated; what is none refuses that."""

    def choice(self, value: Any) -> Any:
        """The array by which a branch is chosen or a loop ended."""
        ...

    def run(self, frame: Any, values: Sequence[Any]) -> tuple[list[Any], Block]:
        """Evaluate a frame's program; its outputs, and the states of its sources."""
        ...

    def identity(self, frame: Any) -> Block:
        """The states of the frame's sources before anything ran."""
        ...

    def merge(self, a: Block, b: Block) -> Block: ...

    def counter(self) -> Any:
        """What a loop counts its iterations with, from 0; None where nobody wants to know."""
        ...

    def at(self, block: Block, frame: Any, counter: Any) -> Block:
        """The states of one iteration of the loop whose body `frame` is, told which it was."""
        ...

    def jitted(self, eqn: Any, frame: Any) -> Callable[..., tuple[list[Any], Block]]:
        """The frame as a jitted function, made once for all calls that look alike."""
        ...

    def quiet(self) -> Interpreter:
        """The same, leaving out equations that are there for their effects only."""
        ...

    def inside(self, axes: tuple[str, ...], tracked: bool) -> Interpreter:
        """The same, for code that runs once a device along mesh axes (`tracked`: check_vma)."""
        ...

    def merged(self, block: Block) -> Block:
        """The states that lie along a first axis, merged."""
        ...

    def everywhere(self, block: Block, axes: tuple[str, ...]) -> Block:
        """The states of all devices along mesh axes, merged; the same on each of them."""
        ...


Run = Callable[[Interpreter, Any, Sequence[Any], Sequence[Any]], tuple[list[Any], Block]]


@dataclass(frozen=True)
class Rule:
    """How one kind of equation is traced.

    `programs(eqn, loops)` lists the inner programs. `run(interpreter, eqn, frames, values)`
    evaluates the equation on `values`, its inner programs replaced by the `frames` planned for
    them, and returns its results and the states of all the frames' sources, in their order.
    """

    programs: Callable[[Any, str], tuple[Program, ...]]
    run: Run


def one_to_one(count: int, exact: bool = True) -> tuple[Link, ...]:
    return tuple(Link(i, exact) for i in range(count))
