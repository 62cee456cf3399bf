"""Every public name is in the README's table, and its docstring has an example that users can copy.

The examples are run by `--doctest-modules`, which gives them the names of their module. Here it
is seen to that they need none of those.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
from pathlib import Path
from typing import Any

import pytest

import jax_ranges as jr

README = Path(__file__).parents[1] / "README.md"
CLASSES = [name for name in jr.__all__ if inspect.isclass(getattr(jr, name))]

# Classes whose every method has an example of its own, but for what JAX calls, or our own code.
SHOWN = {
    "Net": set(),
    "Ranges": {"tree_flatten", "tree_unflatten", "block", "leads", "state_at"},
}


def own_members(name: str) -> dict[str, Any]:
    """The public methods and properties that a class defines itself."""
    found = vars(getattr(jr, name)).items()
    kinds = (property, classmethod, staticmethod)
    return {k: v for k, v in found if k[0] != "_" and (callable(v) or isinstance(v, kinds))}


def own_doc(name: str) -> str:
    """The docstring of a public name; not what a dataclass makes up, nor what it inherits."""
    thing = getattr(jr, name)
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
    return "" if doc is None or doc.startswith(f"{name}(") else inspect.cleandoc(doc)


def example(doc: str | None) -> str:
    """The code of the examples in a docstring."""
    return "".join(each.source for each in doctest.DocTestParser().get_examples(doc or ""))


def unbound(code: str) -> set[str]:
    """The names that code reads and nowhere binds."""
    read, bound = set(), set(vars(builtins))
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.partition(".")[0])
    return read - bound


def test_the_public_names_are_those_that_are_listed():
    assert list(jr.__all__) == sorted(set(jr.__all__))
    assert all(hasattr(jr, name) for name in jr.__all__)


@pytest.mark.parametrize("name", jr.__all__)
def test_every_public_name_is_in_the_readmes_table(name):
    table = README.read_text("utf-8").partition("\n## All names\n")[2].partition("\n## ")[0]
    assert table, "README.md has no section 'All names'"
    assert f"`{name}`" in table, f"add `{name}` to a line of that table"


@pytest.mark.parametrize("name", jr.__all__)
def test_every_public_name_has_an_example_that_a_user_can_copy(name):
    doc = own_doc(name)
    assert doc, f"jr.{name} has no docstring"
    code = example(doc)
    assert "jr." in code, f"the docstring of jr.{name} has no example, or none that writes `jr.`"
    assert not unbound(code), f"the example of jr.{name} uses what it does not import"


def test_what_an_example_does_not_import_is_noticed():
    assert unbound("import a.b, c as d\nx = d.y(lambda k: k + z)\nprint(a, x)") == {"z"}
    assert not unbound("def f(q): return q\nfor i in range(3): f(i)")


@pytest.mark.parametrize("name", CLASSES)
def test_every_method_of_a_public_class_says_what_it_does(name):
    silent = [member for member, what in own_members(name).items() if not inspect.getdoc(what)]
    assert not silent, f"{silent} of jr.{name} have no docstring"


@pytest.mark.parametrize("name", SHOWN)
def test_every_method_of_the_main_classes_has_an_example(name):
    methods = {k: v for k, v in own_members(name).items() if not isinstance(v, property)}
    bare = [
        member
        for member, method in methods.items()
        if member not in SHOWN[name] and not example(inspect.getdoc(method))
    ]
    assert not bare, f"{bare} of jr.{name} have no example"
