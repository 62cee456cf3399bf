"""The page of all public names, made of their signatures and docstrings.

    python -m tests.api_page

writes `examples/guides/api.md`. An index, not the whole: first sentences, attributes and methods,
each name with a link to the file where the rest is said.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from pathlib import Path
from typing import Any

import jax_ranges as jr

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "examples" / "guides" / "api.md"

HEAD = """\
# All public names

Written by `python -m tests.api_page` from the docstrings. These say more: arguments, errors, the
sources of formulas, and an example each; `help(jr.ranges)` prints them, and each name here leads
to the file that it is in.
"""

BUILT_BY_USERS = ("Net", "Recipe", "QRule", "Dynamic", "MovingAverage")
"""Classes whose constructor is for users, besides the statistics. The others are results."""

MEMBERS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)

WIDTH = 96

Items = dict[str, tuple[str, str]]
"""How attributes and methods are shown, and what is said of them."""


def page() -> str:
    """The text of the page."""
    functions = [name for name in jr.__all__ if not inspect.isclass(getattr(jr, name))]
    classes = [name for name in jr.__all__ if name not in functions]
    parts = ["## Functions", *map(_entry, functions), "## Classes", *map(_entry, classes)]
    return "\n".join([HEAD, "\n\n".join(parts), ""])


def _entry(name: str) -> str:
    thing = getattr(jr, name)
    doc = inspect.getdoc(thing) or ""
    file = Path(inspect.getsourcefile(thing) or "").relative_to(ROOT)
    blocks = [f"### [`{name}`](../../{file.as_posix()})"]
    if not inspect.isclass(thing) or _is_built_by_users(thing):
        blocks.append(f"```py\n{_call(f'jr.{name}', thing)}\n```")
    blocks.append(_first_sentence(doc))
    if "Returns" in (sections := _sections(doc)):
        blocks.append(f"Returns: {_first_sentence(sections['Returns'])}")
    items = _attributes(sections.get("Attributes", ""))
    if inspect.isclass(thing):
        items |= {k: v for k, v in _members(thing).items() if k not in items}
    listed = "\n".join(f"- {shown}: {text}" for shown, text in items.values())
    return "\n\n".join([*blocks, listed] if listed else blocks)


def _is_built_by_users(cls: type) -> bool:
    return issubclass(cls, jr.Statistic) or cls.__name__ in BUILT_BY_USERS


# -- of docstrings ----------------------------------------------------------------------------


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0]


def _sections(doc: str) -> dict[str, str]:
    """The parts of a docstring that have a heading (`Args:`), by it, without their indent."""
    parts = re.split(r"^([A-Z][a-z]+):\n", doc, flags=re.MULTILINE)
    return {
        heading: inspect.cleandoc(text)
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def _attributes(section: str) -> Items:
    found: Items = {}
    for item in re.split(r"\n(?=\S)", section):
        names, _, text = item.partition(":")
        if text:
            shown = ", ".join(f"`.{name.strip()}`" for name in names.split(","))
            found[names] = shown, _first_sentence(text)
    return found


def _members(cls: type) -> Items:
    """The methods and properties that a class defines itself."""
    found: Items = {}
    for name, member in vars(cls).items():
        doc = getattr(member, "__doc__", None)
        if name.startswith(("_", "tree_")) or not doc or not isinstance(member, MEMBERS):
            continue
        reached = getattr(cls, name)
        arguments = f"({_parameters(reached)})" if callable(reached) else ""
        found[name] = f"`.{name}{arguments}`", _first_sentence(doc)
    return found


# -- of signatures ----------------------------------------------------------------------------


class _Bare(str):
    """What is shown as it is, without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _call(name: str, thing: Any) -> str:
    """A signature with its types, in several lines if it is long."""
    signature = inspect.signature(thing)
    typed = [
        _short(p.replace(annotation=_Bare(p.annotation))) for p in signature.parameters.values()
    ]
    arguments = str(inspect.Signature(typed))
    returns = "" if inspect.isclass(thing) else f" -> {signature.return_annotation}"
    if len(name + arguments + returns) <= WIDTH:
        return name + arguments + returns
    lines = "".join(f"    {argument},\n" for argument in _arguments(arguments[1:-1]))
    return f"{name}(\n{lines}){returns}"


def _parameters(method: Any) -> str:
    """The names of the parameters of a method, and their defaults."""
    parameters = inspect.signature(method).parameters.values()
    bare = [_short(p.replace(annotation=p.empty)) for p in parameters if p.name != "self"]
    return str(inspect.Signature(bare))[1:-1]


def _short(parameter: inspect.Parameter) -> inspect.Parameter:
    """With `...` for a default that is that, or long."""
    is_long = parameter.default is ... or len(repr(parameter.default)) > WIDTH // 2
    return parameter.replace(default=_Bare("...")) if is_long else parameter


def _arguments(text: str) -> list[str]:
    """Cut at the commas that are in no brackets."""
    found, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            found.append("")
        else:
            found[-1] += character
    return [argument.strip() for argument in found]


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
