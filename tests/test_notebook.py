"""In a notebook: what cells show, found out by executing one."""

from __future__ import annotations

import base64
import textwrap
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jax_ranges as jr
from jax_ranges.report.notebook import console_html

ROOT = Path(__file__).parent.parent
SETUP = """
    import jax, jax.numpy as jnp
    import jax_ranges as jr

    def f(x):
        with jax.named_scope("encoder"):
            return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))

    x = jnp.array([4.0, 0.0])
    _, ranges = jr.ranges(f)(x)
    _, wider = jr.ranges(f)(x * 9)
"""
SHOWN = {
    "ranges": ("<table", "encoder/", "sqrt", "6 sites"),
    "net = jr.Net(f); net(x); net": ("jr.Net(f, observing)", "<table", "sqrt"),
    "jr.find_nonfinite(jax.grad(f))(x)[1]": ("2 births: 2 escaped", "NaN escaped", "0 * inf"),
    "jr.diff(ranges, wider)": ("encoder/", "widened", "sqrt"),
    "jr.advise(ranges)": ("float8_e4m3fn", "bfloat16", "sqrt"),
    "jr.plan(f)(x)": ("measured", "derived", "sqrt"),
    "jr.guard(f, ranges)(x * 9)[1]": ("above", "sqrt"),
    "jr.shadow(f, low='bfloat16')(x * 0.3)[1]": ("introduced", "sqrt"),
    "jr.bounds(f)(x)": ("proven", "sqrt"),
}


class Text(HTMLParser):
    """The text of HTML, which must be balanced."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def executed() -> dict[str, dict[str, str]]:
    """By source what each cell of the notebook shows, by MIME type."""
    missing = "a notebook takes nbclient, nbformat and ipykernel: pip install 'jax-ranges[test]'"
    nbformat = pytest.importorskip("nbformat", reason=missing)
    nbclient = pytest.importorskip("nbclient", reason=missing)
    pytest.importorskip("ipykernel", reason=missing)
    sources = [textwrap.dedent(SETUP), *SHOWN, "jr.plot(ranges)"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    where = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(book, timeout=300, resources=where, allow_errors=False).execute()
    return {cell.source: shown(cell) for cell in book.cells[1:]}


def shown(cell: Any) -> dict[str, str]:
    assert not [out for out in cell.outputs if out.output_type == "stream"], cell.outputs
    (result,) = (out for out in cell.outputs if out.output_type == "execute_result")
    return result.data


@pytest.mark.parametrize("source", SHOWN)
def test_a_cell_shows_html_and_text(executed: Any, source: str) -> None:
    html = executed[source]["text/html"]
    text = Text(html).text
    assert all(part in (html if part.startswith("<") else text) for part in SHOWN[source])
    assert "<script" not in html and executed[source]["text/plain"]


def test_a_cell_shows_a_plot(executed: Any) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    assert base64.b64decode(executed["jr.plot(ranges)"]["image/png"]).startswith(b"\x89PNG")


# -- without a notebook -----------------------------------------------------------------------


def test_hostile_names_are_text() -> None:
    def f(x: Any) -> Any:
        with jax.named_scope("<script>alert(1)</script>"):
            return jnp.exp(x)

    _, a = jr.ranges(f)(jnp.ones(2))
    _, b = jr.ranges(f)(jnp.ones(2) * 2)
    for html in (a._repr_html_(), jr.diff(a, b)._repr_html_(), jr.Net(f)._repr_html_()):
        assert "<script" not in html
        Text(html)
    assert "[bold]" in Text(console_html("[bold]")).text


def test_long_tables_are_cut_and_say_so() -> None:
    def f(x: Any) -> list[Any]:
        return [jnp.sin(x * i) for i in range(300)]

    _, a = jr.ranges(f, select="sin")(jnp.ones(2))
    _, b = jr.ranges(f, select="sin")(jnp.ones(2) * 2)
    told = Text(jr.diff(a, b)._repr_html_()).text
    assert told.count("\n") < 220 and "more" in told


def test_a_report_that_cannot_be_read_here_says_so() -> None:
    told = []

    def traced(x: Any) -> Any:
        _, report = jr.find_nonfinite(jnp.log)(x)
        told.append(report._repr_html_())
        return x

    jax.jit(traced)(jnp.ones(2))
    assert "Report(not to be read here)" in Text(told[0]).text
