"""Report: one HTML file that needs nothing else: no network, no script, readable on a phone, by day and by night."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from dlc.report.highlight import highlight
from dlc.report.theme import PALETTE, chart_style, css_variables

Row = Mapping[str, Any] | Sequence[Any]
_POINTS_TO_PIXELS = 96 / 72
DASH = "–"  # what a table shows where there is nothing


@dataclass
class _Section:
    title: str
    anchor: str
    blocks: list[str] = field(default_factory=list)


class Report:
    """A page built from the top down; every method returns the report, so that calls chain.

    >>> Report("Kernels").section("Speed").text("Times are **medians**.").write("report.html")
    """

    def __init__(self, title: str, subtitle: str = "", footer: str = "") -> None:
        self.title, self.subtitle, self.footer = title, subtitle, footer
        self._sections = [_Section("", "top")]
        self._figures = 0

    def section(self, title: str) -> Report:
        """Starts a section; it appears in the contents."""
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        taken = {section.anchor for section in self._sections}
        unique = next(name for name in (anchor, *(f"{anchor}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
        self._sections.append(_Section(title, unique))
        return self

    def text(self, markdown: str) -> Report:
        """Paragraphs, lists, emphasis, links, code and ### headings in markdown; HTML in it is shown, not obeyed."""
        return self._add(_markdown().render(_dedent(markdown)))

    def kpi(self, label: str, value: object, note: str = "", tone: str = "") -> Report:
        """A card with one figure; cards that follow each other share a row.

        Args:
            label: what the figure is.
            value: the figure, with its unit; numbers are shortened to three digits.
            note: a line under it.
            tone: "good", "bad" or nothing.
        """
        tone_class = f" {tone}" if tone in ("good", "bad") else ""
        extra = f'<dd class="note">{html.escape(note)}</dd>' if note else ""
        card = f'<div class="card{tone_class}"><dt>{html.escape(label)}</dt><dd class="value">{_cell(value)}</dd>{extra}</div>'
        blocks = self._sections[-1].blocks
        if blocks and blocks[-1].startswith('<dl class="cards">'):
            blocks[-1] = blocks[-1].removesuffix("</dl>") + card + "</dl>"
            return self
        return self._add(f'<dl class="cards">{card}</dl>')

    def table(self, rows: Sequence[Row], columns: Sequence[str] | None = None, caption: str = "") -> Report:
        """A table; columns of numbers align right, the first column names its row.

        Args:
            rows: mappings from column name to value, or sequences in the order of ``columns``. None shows as a dash.
            columns: the names, in order; those of the first mapping when None.
            caption: a line under the table.

        Raises:
            ValueError: the rows are sequences and no columns were named.
        """
        names = list(columns) if columns is not None else _names(rows)
        values = [[row.get(name) if isinstance(row, Mapping) else row[n] for n, name in enumerate(names)] for row in rows]
        numeric = [n > 0 and all(_is_number(line[n]) or line[n] in (None, DASH) for line in values) for n in range(len(names))]
        head = "".join(f'<th scope="col"{_number(flag)}>{html.escape(name)}</th>' for name, flag in zip(names, numeric))
        body = "".join("<tr>" + "".join(_table_cell(n, v, numeric[n]) for n, v in enumerate(line)) + "</tr>" for line in values)
        note = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        label = html.escape(caption or "Table", quote=True)
        return self._add(
            f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
            f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def plot(self, figure: Figure, caption: str = "", alt: str = "") -> Report:
        """A matplotlib figure as inline SVG in the page's colours.

        Args:
            figure: drawn with this package's charts, or any other.
            caption: a line under it.
            alt: what it shows, for those who cannot see it; the caption when empty.
        """
        self._figures += 1
        note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        drawing = _svg(figure, f"f{self._figures}", alt or caption or "Chart")
        return self._add(f'<figure><div tabindex="0">{drawing}</div>{note}</figure>')

    def code(self, text: str, lang: str = "", title: str = "", folded: bool = True) -> Report:
        """Source text behind a fold.

        Args:
            text: the source.
            lang: "python", "triton", "llvm", "ptx", "json", "text"; an unknown one is shown without colours.
            title: what the fold says.
            folded: closed at first.
        """
        lines = text.rstrip("\n").count("\n") + 1
        label = html.escape(title or lang or "source")
        opened = "" if folded else " open"
        return self._add(
            f"<details{opened}><summary>{label}<small>{lines} line{'s' if lines != 1 else ''}</small></summary>"
            f'<pre tabindex="0"><code>{highlight(text, lang)}</code></pre></details>'
        )

    def html(self) -> str:
        """The whole page."""
        shown = [section for section in self._sections if section.title or section.blocks]
        titled = [section for section in shown if section.title]
        contents = "".join(f'<li><a href="#{s.anchor}">{html.escape(s.title)}</a></li>' for s in titled) if len(titled) > 1 else ""
        nav = f'<nav class="contents" aria-label="Contents"><ol>{contents}</ol></nav>' if contents else ""
        body = "\n".join(_section(section) for section in shown)
        subtitle = f"<p>{html.escape(self.subtitle)}</p>" if self.subtitle else ""
        footer = f"<footer>{html.escape(self.footer)}</footer>" if self.footer else ""
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(self.title)}</title>
<style>{_css()}</style>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header class="top"><div><h1>{html.escape(self.title)}</h1>{subtitle}</div></header>
<div class="layout{" with-contents" if contents else ""}">
{nav}
<main id="main">
{body}
{footer}
</main>
</div>
</body>
</html>
"""

    def write(self, path: str | Path) -> Path:
        """Writes the page and returns where."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.html(), encoding="utf-8")
        return target

    def _add(self, block: str) -> Report:
        self._sections[-1].blocks.append(block)
        return self


def _section(section: _Section) -> str:
    heading = f"<h2>{html.escape(section.title)}</h2>\n" if section.title else ""
    return f'<section id="{section.anchor}">\n{heading}' + "\n".join(section.blocks) + "\n</section>"


def _css() -> str:
    style = resources.files("dlc.report").joinpath("page.css").read_text(encoding="utf-8")
    day = f":root {{ color-scheme: light dark; {css_variables(dark=False)} --back: #f5f6f9; --soft: #f0f2f6; }}"
    night = f":root {{ {css_variables(dark=True)} --back: #0e1117; --soft: #1f2530; }}"
    return f"{day}\n@media screen and (prefers-color-scheme: dark) {{ {night} }}\n{style}"


def _svg(figure: Figure, prefix: str, alt: str) -> str:
    """The figure with theme colours, its own ids, a fluid width and a spoken description."""
    buffer = io.StringIO()
    with chart_style():
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.02, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\sid=")([^"]+)|(?<=href="#)([^"]+)|(?<=url\(#)([^)]+)', lambda m: f"{prefix}-{m.group()}", text)
    for day, (name, _) in PALETTE.items():
        text = re.sub(day, f"var(--{name})", text, flags=re.IGNORECASE)
    opening, rest = text.split(">", 1)
    width = float(re.findall(r'width="([\d.]+)pt"', opening)[0])
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)
    label = html.escape(alt, quote=True)
    return f'{opening} role="img" aria-label="{label}" style="max-width: {width * _POINTS_TO_PIXELS:.0f}px">{rest}'.strip()


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _dedent(text: str) -> str:
    """As inspect.cleandoc: text in an indented call reads as written."""
    lines = text.expandtabs().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    return "\n".join([lines[0].lstrip(), *(line[margin:] for line in lines[1:])]) if lines else ""


def _names(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    if not isinstance(rows[0], Mapping):
        raise ValueError("rows that are sequences need column names")
    return [str(name) for name in rows[0]]


def _is_number(value: object) -> bool:
    """A number, or a text that begins like one: "1.93x", "12 ms"."""
    if isinstance(value, str):
        return bool(re.match(r"[-+]?\d", value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(flag: bool) -> str:
    return ' class="number"' if flag else ""


def _table_cell(column: int, value: object, numeric: bool) -> str:
    if column == 0:
        return f'<th scope="row">{_cell(value)}</th>'
    return f"<td{_number(numeric)}>{_cell(value)}</td>"


def _cell(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return html.escape(shorten(value))
    return html.escape(str(value))


def shorten(value: float) -> str:
    """A float to three significant digits, whole numbers kept whole."""
    if value != value:
        return DASH
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
