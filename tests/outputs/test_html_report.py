"""The report: whole and self-contained, nothing from outside it executed; and in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsiseg.geometry import Rect, Size
from wsiseg.outputs.geojson import ObjectClass
from wsiseg.outputs.report import Doubt, ReportRun, ReportSlide, write_report
from wsiseg.outputs.report.rows import slide_row
from wsiseg.outputs.thumbnail import Thumbnail
from wsiseg.runs import Runs
from wsiseg.synth import Scene
from wsiseg.synth.work import shrunk

EVIL = "<script>alert(1)</script>\"'&"
SCALE = 4


def slides() -> Iterator[ReportSlide]:
    size = Size(2400, 3200)
    for seed in (1, 2):
        scene = Scene(size, seed=seed, mpp=2.0, tissue=0.75)
        picture = Thumbnail(shrunk(scene.render(Rect(0, 0, size.height, size.width)), SCALE), SCALE)
        yield ReportSlide(
            f"slide {seed}",
            size,
            2.0,
            [ObjectClass("glomerulus", scene.truth(), np.linspace(0.5, 1, len(scene.glomeruli)))],
            picture,
            100.0 / seed,
            "inference",
            doubts=[Doubt(np.full((132, 132, 3), 150, np.uint8), EVIL + " 1: 0.50")],
        )
    blank = Thumbnail(np.full((300, 200, 3), 240, np.uint8), 4)
    classes = [ObjectClass(EVIL, Runs.empty(Size(1200, 800))), ObjectClass("b", Runs.empty(Size(1200, 800)))]
    yield ReportSlide(EVIL, Size(1200, 800), None, classes, blank, 1.0, "reading", ["mpp unknown " + EVIL])
    yield ReportSlide("broken ż", error="broken.tif: level 0, tile 3, 4: damaged " + EVIL)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    run = ReportRun(EVIL, "2030-01-01", "1.0", {"tile": 512, "mpp": None, EVIL: [EVIL]}, {"name": "kidney"})
    assert write_report(path, run, slides()) == 4
    return path


class Tags(HTMLParser):
    """Every element with its attributes, and whether they close in order."""

    VOID = frozenset({"meta", "input", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_and_small(report: Path) -> None:
    text = report.read_text()
    tags = Tags(text)
    assert sum(tag == "tr" for tag, _ in tags.elements) == 5
    assert report.stat().st_size < 300_000 * 4
    for tag, attributes in tags.elements:
        assert not [name for name in attributes if name.startswith("on")], "an event handler in an attribute"
        assert "src" not in attributes
        for link in (attributes.get("href"),):
            assert link is None or link.startswith("data:image/jpeg;base64,")
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden")


def test_names_are_text(report: Path) -> None:
    text = report.read_text()
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert text.count("&lt;script&gt;alert(1)") >= 8
    assert "default-src 'none'" in text


def test_many_objects_stay_within_the_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.random((1000, 1000)) < 0.2
    runs = Runs.from_mask(np.kron(small, np.ones((2, 2), bool)))
    noise = Thumbnail(rng.integers(0, 256, (1000, 1000, 3)).astype(np.uint8), 2)
    crop = rng.integers(0, 256, (132, 132, 3)).astype(np.uint8)
    slide = ReportSlide(
        "dense",
        Size(2000, 2000),
        0.5,
        [ObjectClass("x", runs)],
        noise,
        doubts=[Doubt(crop, f"x {k}") for k in range(9)],
    )
    write_report(tmp_path / "r.html", ReportRun(), [slide])
    assert (tmp_path / "r.html").stat().st_size < 320_000


def test_contours_are_where_the_objects_are() -> None:
    mask = np.zeros((400, 600), bool)
    mask[100:200, 40:120] = True
    picture = Thumbnail(np.zeros((100, 150, 3), np.uint8), 4)
    row = slide_row(
        ReportSlide("x", Size(400, 600), 1.0, [ObjectClass("g", Runs.from_mask(mask))], picture), 1
    )
    (path,) = re.findall(r' d="(.*?)"', row.html)
    numbers = np.array([float(n) for n in re.findall(r"-?[\d.]+", path)]).reshape(-1, 2)
    corners = np.cumsum(numbers, axis=0)
    assert {tuple(c) for c in corners.tolist()} == {(10, 25), (30, 25), (30, 50), (10, 50)}
    assert ">1<" in row.html
    assert "3.333 %" in row.html


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[Any]:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on(
            "console", lambda message: page.problems.append(message.text) if message.type == "error" else None
        )
        page.on("dialog", lambda dialog: page.problems.append("a dialog: " + dialog.message))
        page.on(
            "request", lambda r: None if r.url.startswith(("file:", "data:")) else page.problems.append(r.url)
        )
        page.goto(report.as_uri())
        yield page
        assert page.problems == []
        chromium.close()


def names(page: Any) -> list[str]:
    shown: list[str] = page.eval_on_selector_all(
        "tbody tr:not([hidden]) .id", "all => all.map(x => x.textContent)"
    )
    return shown


def test_a_browser_sorts_and_filters(page: Any) -> None:
    assert names(page) == ["slide 1", "slide 2", EVIL, "broken ż"]
    page.click("th button:text('Time')")
    assert names(page) == [EVIL, "slide 2", "slide 1", "broken ż"]
    page.click("th button:text('Time')")
    assert names(page) == ["slide 1", "slide 2", EVIL, "broken ż"]
    assert page.get_attribute("th:has-text('Time')", "aria-sort") == "descending"
    page.fill("#find", "DAMAGED tile")
    assert names(page) == ["broken ż"]
    assert page.text_content("#count") == "1 of 4 slides"
    page.fill("#find", "")
    page.click("th button:text('Probability')")
    assert names(page)[0] == EVIL  # not known
    assert page.text_content("#slide1 >> xpath=ancestor::tr/td[7]") == "0.750lowest 0.50"
    page.click("th button:text('Name')")
    crop = page.locator(".crop").first
    assert not crop.is_visible()
    page.click(".doubts summary >> nth=0")
    assert crop.is_visible()
    assert "0.50" in crop.get_attribute("aria-label")
    for state, count in {"found": 2, "empty": 1, "warned": 1, "failed": 1, "": 4}.items():
        page.select_option("#show", state)
        assert len(names(page)) == count


def test_a_browser_zooms_and_switches_contours(page: Any) -> None:
    page.click("th button:text('Name')")
    page.focus("#slide1 >> xpath=..")
    page.keyboard.press("Enter")
    assert page.is_visible("#view")
    assert page.text_content("#view-title") == "slide 1"

    def box() -> list[float]:
        return [float(x) for x in page.get_attribute("#slide1", "viewBox").split()]

    assert box() == [0, 0, 800, 600]
    page.keyboard.press("+")
    assert box()[2:] == pytest.approx([800 / 1.5, 600 / 1.5])
    page.keyboard.press("ArrowRight")
    assert box()[0] > (800 - 800 / 1.5) / 2
    page.mouse.move(700, 500)
    page.mouse.wheel(0, -100)
    for _ in range(100):  # the page's policy forbids the evaluation that Playwright would wait with
        if box()[2] < 500:
            break
        page.wait_for_timeout(20)
    assert box()[2] == pytest.approx(800 / 1.5 / 1.25)
    page.click("#fit")
    assert box() == [0, 0, 800, 600]
    assert page.is_visible("#slide1 .contour")
    page.keyboard.press("c")
    assert not page.is_visible("#slide1 .contour")
    page.check("#view-contours")
    assert page.is_visible("#slide1 .contour")
    page.keyboard.press("Escape")
    # The picture is back in its row, and so is the focus.
    page.wait_for_selector(".open:focus #slide1")
    assert not page.is_visible("#view")
