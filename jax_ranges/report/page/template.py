"""The template: the page's own files and a document, as one text.

A script inside of a page cannot import another one, so each JavaScript module becomes a function
that is called at once and returns what the module exports:

    const numbers_js = (() => { ...; return { short }; })();           // of numbers.js
    const table_js = (() => { const { short } = numbers_js; ... })();  // which imports short
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

MODULES = (
    "elements.js",
    "numbers.js",
    "model.js",
    "scale.js",
    "filters.js",
    "counts.js",
    "bars.js",
    "heat.js",
    "plots.js",
    "summary.js",
    "tree.js",
    "columns.js",
    "table.js",
    "details.js",
    "main.js",
)
"""In the order of their imports."""


def filled(document: Mapping[str, Any]) -> str:
    """The page of a document (see `jax_ranges.report.page.document`)."""
    style, script = _file("page.css"), bundle()
    parts = {
        "title": _in_markup(document["title"]),
        "policy": f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'",
        "style": style,
        "document": embedded(document),
        "script": script,
    }
    # In one pass: what is filled in may itself look like a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))


def bundle() -> str:
    """The script: all modules as one."""
    return "\n".join(_as_function(name.removesuffix(".js"), _file(name)) for name in MODULES)


def embedded(document: Mapping[str, Any]) -> str:
    """JSON that stays data inside a script element, whatever names it holds.

    Example:
      >>> embedded({"name": "</script><!--"})
      '{"name":"\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    for character in "<>&":  # in JSON these occur in strings only
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> str:
    return resources.files("jax_ranges.report.page").joinpath(name).read_text(encoding="utf-8")


def _as_function(name: str, module: str) -> str:
    exported = re.findall(r"^export (?:class|const|function) (\w+)", module, re.MULTILINE)
    imports = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";', re.MULTILINE)
    body = imports.sub(r"const \1 = \2_js;", module)
    body = re.sub(r"^export ", "", body, flags=re.MULTILINE)
    return f"const {name}_js = (() => {{\n{body}return {{ {', '.join(exported)} }};\n}})();"


def _in_markup(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _hash(text: str) -> str:
    """By which the policy of the page knows its own style and script, and lets no other run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
