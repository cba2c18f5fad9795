"""The Python in README.md and docs/*.md runs as it stands, page by page, the blocks of a page one after another."""

from __future__ import annotations

import linecache
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# A fence that says ``python`` alone is run; ``python no-run`` is an excerpt that needs what a test has not (a GPU, a long search).
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line of the fence, code) of every block."""
    text = page.read_text()
    return [(text.count("\n", 0, m.start()) + 1, m.group(1)) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for line, code in blocks(page):
        padded = "\n" * line + code  # so that errors and kernels cite the page's own lines
        linecache.cache[str(page)] = (len(padded), None, padded.splitlines(keepends=True), str(page))
        exec(compile(padded, str(page), "exec"), names)


def test_every_page_is_found():
    assert {"schedules.md"} <= {p.name for p in PAGES} and blocks(ROOT / "docs" / "schedules.md")
