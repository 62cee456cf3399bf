"""What a report of births looks like: a paragraph each, and panels of them on a console."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax_ranges.report import rows as texts

if TYPE_CHECKING:
    from jax_ranges.births.birth import Birth
    from jax_ranges.births.report import Report

COLOURS = {"escaped": "bold red", "propagated": "yellow", "masked": "green"}
_SHOWN = 6
# Scopes that a name shares with that of the birth, up to which it is written out.
_WRITTEN_OUT = 2


def paragraph(birth: Birth) -> str:
    """All that is known of a birth, to be read."""
    sentences = [f"{_headline(birth)}: {birth.reason}.", _when(birth), _whose(birth), _trap(birth)]
    return texts.printable(" ".join(filter(None, [*sentences, _fate(birth)])))


def _headline(birth: Birth) -> str:
    where = f" at {birth.site.source}" if birth.site.source else ""
    return f"{_what(birth)} in {birth.site.name}{where}"


def _what(birth: Birth) -> str:
    name = "NaN" if birth.kind == "nan" else birth.kind
    return f"{birth.watch} {name}" if birth.watch else name


def _when(birth: Birth) -> str:
    elements = "1 element" if birth.count == 1 else f"{birth.count:,} elements"
    where = ", ".join(map(str, birth.iteration))
    loops = f", first in iteration {where}" if birth.iteration else ""
    call = f" of call {birth.call}" if birth.call > 1 else ""
    of = " (backward pass)" if birth.site.backward else ""
    return f"{elements}{loops}{call}{of}."


def _whose(birth: Birth) -> str:
    if birth.derivative is None:
        return ""
    of = birth.derivative.of
    return f"It is in the derivative of {of.name}, which is infinite or undefined there."


def _trap(birth: Birth) -> str:
    derivative = birth.derivative
    if derivative is None or derivative.where is None:
        return ""
    name, at = derivative.of.primitive, derivative.where.source
    line = f" ({at})" if at else ""
    return (
        f"The gradient comes through the branch that where{line} did not take: it is 0 there, "
        f"and 0 * inf is NaN. Give {name} a harmless input there too: "
        f"where(mask, {name}(where(mask, x, 1)), 0)."
    )


def _fate(birth: Birth) -> str:
    way = _listed([_near(name, birth.site.name) for name in birth.path])
    if birth.fate == "escaped":
        through = f" through {way}" if way else ""
        return f"It escaped{through} to {_listed(birth.outputs)}."
    if birth.fate == "propagated":
        return f"It went through {way}, and reached no output." if way else ""
    beyond = "goes beyond the format" if birth.watch else "was touched"
    return f"It was masked: nothing that uses it {beyond}."


def _near(name: str, birth: str) -> str:
    """The name of an operation without the scopes that it shares with a birth, if they are many.

    In a solver or a large model the path of scopes may be longer than all the rest.
    """
    scopes, of_birth = name.split("/")[:-1], birth.split("/")[:-1]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(scopes, of_birth, strict=False))
    shared = len(list(same))
    return name if shared <= _WRITTEN_OUT else "/".join(["…", *name.split("/")[shared:]])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def headline(births: Sequence[Birth]) -> str:
    """How many there were, and what became of them."""
    if not births:
        return "nothing was born: no NaN, no infinity"
    counts = {fate: sum(birth.fate == fate for birth in births) for fate in COLOURS}
    parts = [f"{count} {fate}" for fate, count in counts.items() if count]
    noun = "birth" if len(births) == 1 else "births"
    return f"{len(births)} {noun}: {', '.join(parts)}"


def summary(report: Report) -> str:
    """What `repr` shows; of a report that cannot be read, that it cannot."""
    try:
        births = report.births
    except ValueError:
        return "Report(not to be read here)"
    lines = [f"Report: {headline(births)}", *(f"- {birth}" for birth in births[:20])]
    return "\n".join(lines)


def births_view(births: Sequence[Birth]) -> Any:
    """A rich renderable: a panel for each birth."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    title = Text(headline(births), style="bold green" if not births else "bold")
    panels = []
    for birth in births:
        colour = COLOURS[birth.fate]
        name = Text(f"{_what(birth)} {birth.fate}", style=colour)
        panels.append(Panel(Text(paragraph(birth)), title=name, title_align="left", style=""))
    return Group(title, *panels)
