"""dlc.report: pages that stand alone, escape what they are given, and carry every chart."""

from __future__ import annotations

import html.parser
import math
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from dlc.report import Report, confusion_chart, error_chart, ratio_chart, roofline_chart, training_chart, tuning_chart
from dlc.report.charts import RooflinePoint
from dlc.report.highlight import highlight
from dlc.report.page import shorten
from dlc.report.theme import PALETTE
from dlc.report.training import Sample

RATIOS = {"matmul": {"torch": (1.2, 1.1, 1.3), "compile": (0.9, 0.8, 1.0)}, "softmax": {"torch": (2.0, 1.9, 2.1)}}
VOID = {"meta", "br", "hr", "path", "use", "rect", "image", "link", "img"}


def charts() -> dict[str, Figure]:
    points = [RooflinePoint("matmul", 40, 170), RooflinePoint("matmul", 40, 150, "torch")]
    return {
        "ratio": ratio_chart(RATIOS, title="Ratios"),
        "one peer": ratio_chart({"a": {"torch": (9.0, 8.0, 10.0)}, "failed": {}}),
        "roofline": roofline_chart(points, {"f32": 220.0}, {"L1": 330.0, "DRAM": 50.0}),
        "error": error_chart({"a": {"dlc": 1e-7, "torch": 0.0}, "b": {"dlc": math.nan}}),
        "tuning": tuning_chart([2e-3, math.nan, 1e-3], {"torch": 1.5e-3}),
        "all trials failed": tuning_chart([math.nan]),
        "training": training_chart({"dlc": {"loss": [2.0, 1.0], "test accuracy": [0.5, 0.9]}}),
        "confusion": confusion_chart(np.array([[3, 1], [0, 4]]), "ab", [Sample(np.eye(8), "a", "b")]),
        "confusion alone": confusion_chart(np.zeros((2, 2), dtype=int), "ab"),
    }


class Balance(html.parser.HTMLParser):
    """Fails on a tag that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_a_page_with_everything_is_well_formed_and_stands_alone(tmp_path: Path) -> None:
    report = Report("Kernels", "one machine", "footer").text("**bold**\n\n- `a @ b`").kpi("Ratio", 1.234567, "note", "good")
    for name, figure in charts().items():
        report.section(name).plot(figure, f"About {name}")
    report.section("Table").table([{"case": "a", "ms": 1.5}]).code("x = 1", "python")
    path = report.write(tmp_path / "new" / "report.html")
    text = path.read_text()
    balance = Balance()
    balance.feed(text)
    assert not balance.open
    assert len(balance.ids) == len(set(balance.ids))
    assert not re.search(r'(?:src|href)="(?!#|data:)', text.replace('xlink:href="data:', ""))
    assert "@import" not in text and "<script" not in text and "url(http" not in text


def test_charts_take_the_colours_of_the_page() -> None:
    text = Report("t").plot(charts()["ratio"]).html()
    svg = text[text.index("<svg") : text.index("</svg>")]
    assert "var(--blue)" in svg and "var(--ink)" in svg
    assert not any(day in svg.lower() for day in PALETTE)
    assert 'role="img" aria-label="Chart"' in svg


def test_user_text_is_escaped_everywhere() -> None:
    evil = "<script>alert('&')</script>"
    report = Report(evil, evil, evil).section(evil).text(evil).kpi(evil, evil, evil)
    report.table([{evil: evil}], caption=evil).code(evil, "python", evil).code(evil, "none")
    assert "<script" not in report.html()


def test_sections_have_anchors_of_their_own_and_a_contents() -> None:
    text = Report("t").section("Speed, CPU").section("Speed; CPU").html()
    assert '<a href="#speed-cpu">Speed, CPU</a>' in text and '<a href="#speed-cpu-2">Speed; CPU</a>' in text
    assert 'id="speed-cpu"' in text and 'id="speed-cpu-2"' in text
    assert "<nav" not in Report("t").section("Only").html()


def test_cards_that_follow_each_other_share_a_row() -> None:
    text = Report("t").kpi("a", 1).kpi("b", 2, tone="bad").text("between").kpi("c", 3).html()
    assert text.count('<dl class="cards">') == 2
    assert '<div class="card bad"><dt>b</dt><dd class="value">2</dd></div>' in text


def test_tables_align_numbers_and_show_what_is_missing() -> None:
    text = Report("t").table([("a", 0.00012345, True, None), ("b", "1.20x", False, None)], ["case", "x", "ok", "none"]).html()
    assert '<th scope="row">a</th><td class="number">0.000123</td><td>yes</td><td class="number">–</td>' in text
    assert '<td class="number">1.20x</td><td>no</td>' in text
    assert "<tbody></tbody>" in Report("t").table([]).html()
    with pytest.raises(ValueError, match="need column names"):
        Report("t").table([(1, 2)])


def test_numbers_are_shortened() -> None:
    assert [shorten(x) for x in (0.12345, 12345.6, 1e9, 3.0, math.nan)] == ["0.123", "12346", "1e+09", "3", "–"]


def test_code_is_folded_and_coloured() -> None:
    text = Report("t").code("def f():\n    return 1\n", "triton", "Source").html()
    assert "<details><summary>Source<small>2 lines</small></summary>" in text
    assert '<span class="k">return</span>' in text
    assert "<details open>" in Report("t").code("x", folded=False).html()


def test_highlighting_keeps_the_text() -> None:
    for lang in ("python", "llvm", "ptx", "json", "asm", "no such language", ""):
        source = '\n  a < b && "c"  # d\n\n'
        plain = re.sub(r"<[^>]+>", "", highlight(source, lang))
        assert html.unescape(plain) == source


def test_text_in_an_indented_call_reads_as_written() -> None:
    text = (
        Report("t")
        .text("""First.

        - one
        - two
    """)
        .html()
    )
    assert "<li>one</li>" in text


@pytest.mark.parametrize("name", charts())
def test_charts_leave_the_users_settings_alone(name: str) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    charts()[name]
    assert dict(matplotlib.rcParams) == before


def test_a_drawing_is_the_same_every_time() -> None:
    assert Report("t").plot(charts()["roofline"]).html() == Report("t").plot(charts()["roofline"]).html()
