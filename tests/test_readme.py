"""Every Python snippet in the README runs, in order, in one namespace, as a reader would."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 5
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"<README.md, snippet {number}>", "exec"), namespace)
