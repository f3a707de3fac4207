"""The report in a real browser: no error, no request, both colour schemes, the keyboard."""

import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from distill.report import render_comparison, render_report
from distill.report.pages import PictureRow, PictureSection, render_pictures
from tests.distill.report.cases import MARKUP, make_report, make_sweep

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")


SECTION = PictureSection(
    "pairs",
    MARKUP,
    MARKUP,
    ("Pictures", MARKUP),
    [PictureRow([(np.full((8, 8, 3), number / 4), MARKUP)] * 2, [MARKUP]) for number in range(4)],
)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report, one with names of markup, and a comparison, as files."""
    folder = tmp_path_factory.mktemp("pages")
    report = make_report()
    names = [f"{MARKUP}{k}" for k in range(10)]
    evil = replace(report, class_names=names, title=MARKUP)
    texts = {
        "report": render_report(report),
        "evil": render_report(evil),
        "pictures": render_pictures(MARKUP, MARKUP, [MARKUP] * 2, [(MARKUP, MARKUP)], [SECTION]),
        "comparison": render_comparison({"a": report, "b": replace(report, sweep=make_sweep())}),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def show(browser, pages):
    """Opens a page; a message in its console, an error or a request fails the test."""
    opened, troubles = [], []

    def call(name, scheme="light", width=1100):
        page = browser.new_page(
            color_scheme=scheme, viewport={"width": width, "height": 700}, reduced_motion="reduce"
        )
        opened.append(page)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        address = (pages / f"{name}.html").as_uri()
        page.on(
            "request",
            lambda request: (
                request.url == address
                or request.url.startswith("data:")
                or troubles.append(request.url)
            ),
        )
        page.goto(address)
        return page

    yield call
    for page in opened:
        page.close()
    assert troubles == []


def _luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(a, b):
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_page_renders_in_both_schemes_with_enough_contrast(show, name):
    grounds = []
    for scheme in ("light", "dark"):
        page = show(name, scheme)
        ground = page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
        for part in ("h1", ".hint", "nav a", "caption", ".verdict"):
            colour = page.eval_on_selector(part, "e => getComputedStyle(e).color")
            assert _contrast(colour, ground) >= 4.5, (scheme, part)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
        assert len(picture.resize((200, 120)).getcolors()) > 20
        grounds.append(_luminance(ground))
    assert grounds[0] > 0.8
    assert grounds[1] < 0.1


def test_pictures_stand_in_their_table_and_names_stay_words(show):
    page = show("pictures")
    assert page.locator("tbody tr").count() == 4
    loaded = page.locator("tbody img").evaluate_all("all => all.map(e => e.naturalWidth)")
    assert loaded == [8] * 8
    assert page.locator("h1").text_content() == MARKUP


def test_page_fits_a_telephone_without_scrolling_sideways(show):
    for name in ("report", "comparison", "pictures"):
        page = show(name, width=390)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_keyboard_reaches_the_tooltips_and_moves_along_the_points(show):
    page = show("report")
    tip = page.locator("[role=tooltip]")
    assert tip.is_hidden()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('point')"):
            break
    shown = []
    for key in ("ArrowRight", "End", "Home"):
        assert tip.is_visible()
        assert tip.text_content() == page.evaluate("document.activeElement.ariaLabel")
        shown.append(tip.text_content())
        page.keyboard.press(key)
    assert len(set(shown)) == 3
    box, view = tip.bounding_box(), page.viewport_size
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= view["width"]
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    # One stop for each plot: the next Tab leaves it.
    before = page.evaluate("document.activeElement.closest('svg').querySelector('title').id")
    page.keyboard.press("Tab")
    after = page.evaluate("document.activeElement.closest('svg')?.querySelector('title').id")
    assert before != after


def test_pointer_shows_and_hides_the_tooltip(show):
    page = show("report")
    page.locator(".point circle").nth(1).hover()
    tip = page.locator("[role=tooltip]")
    assert "% over 3 seeds" in tip.text_content()
    assert tip.is_visible()
    page.locator("h1").hover()
    assert tip.is_hidden()


def test_soft_labels_of_another_image_are_shown_by_keyboard(show):
    page = show("report")
    page.locator("#soft-label-choice").focus()
    before = page.locator(".bars tbody").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator(".chosen figcaption").inner_text() == "digit 0, image 2"
    assert page.locator(".bars tbody").inner_text() != before


@pytest.mark.parametrize("name", ["report", "evil", "comparison"])
def test_every_table_and_figure_is_named_for_readers_of_the_screen(show, name):
    page = show(name)
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("table:not(:has(th[scope]))").count() == 0
    assert page.locator("svg:not([aria-labelledby])").count() == 0
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("main, h1").count() == 2
    for figure in page.locator("svg").all():
        named = figure.get_attribute("aria-labelledby").split()
        assert all(page.locator(f"[id='{part}']").count() == 1 for part in named)


def test_names_of_markup_stay_text(show):
    page = show("evil")
    assert page.locator("h1").inner_text() == MARKUP
    assert page.locator("img[src=x]").count() == 0
