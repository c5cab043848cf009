"""The page in a real browser: pick a sampler, draw, see digits, move the slider, visit all tabs."""

import re
import shutil
import time
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Milliseconds; of a machine with much else to do.
PATIENCE = 120_000
# What ends a drawing takes its time on the way.
SLOW_CANCEL = """() => {
  const now = window.fetch;
  window.fetch = async (what, ...rest) => {
    const late = String(what.url ?? what).endsWith("/cancel") ? 1000 : 0;
    await new Promise((go) => setTimeout(go, late));
    return now(what, ...rest);
  };
}"""

if CHROMIUM is None:
    pytest.skip("no browser test of the page: apt-get install chromium", allow_module_level=True)
# Looked for and not imported, which takes seconds of whoever collects the tests.
if find_spec("gradio") is None:
    pytest.skip("no test of the page: pip install 'hdzoo[app]'", allow_module_level=True)
if find_spec("playwright") is None:
    pytest.skip("no browser test of the page: pip install playwright", allow_module_level=True)


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


@pytest.fixture(scope="module")
def address(tiny):
    from hdzoo.app.page import serve

    page, address = serve([tiny])
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.faults, page.hosts = [], set()
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.hosts.add(request.url.partition("://")[2][:9]))
    page.goto(address)
    yield page
    page.close()


def finished(page, place):
    """Waits for films that are finished, in the place of those before."""
    page.locator(f"{place} [data-forming=false]").first.wait_for()


def source(page):
    """The picture that is shown of the first sampler."""
    return page.locator("#draw-films .hz-film").first.locator("img:visible").get_attribute("src")


def toast(page):
    found = page.locator(".toast-body").last
    found.wait_for()
    text = found.inner_text()
    found.get_by_test_id("toast-close").click()
    found.wait_for(state="detached")
    return text


def test_the_whole_page(page):
    # Something is drawn before anything is clicked.
    finished(page, "#draw-films")
    assert page.locator("#draw-films .hz-film").count() == 3

    # Another choice of samplers.
    chosen = page.get_by_label("Samplers").first
    for _ in range(3):
        chosen.press("Backspace")
    chosen.fill("example-ddim")
    chosen.press("Enter")
    chosen.press("Escape")
    options = page.get_by_role("button", name="Options of example-ddim")
    options.click()
    page.get_by_label("num_levels").fill("3")
    page.get_by_label(re.compile("number input for Evaluations", re.I)).first.fill("6")
    page.get_by_label(re.compile("number input for Images", re.I)).first.fill("4")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator("#draw-films .hz-film")).to_have_count(1)
    finished(page, "#draw-films")
    command = page.locator("#draw-command .cm-content")
    assert "-s example-ddim -o num_levels=3 -n 4 -t 6 --seed 0" in command.inner_text()
    assert page.locator("#draw-films img:visible").evaluate("image => image.naturalWidth") == 16

    # Back through the trajectory.
    last = source(page)
    slider = page.locator("#draw-films input[type=range]")
    slider.focus()
    slider.press("Home")
    assert source(page) != last
    assert page.locator("#draw-films output").inner_text() == "evaluation 1 of 6"
    slider.press("End")
    assert source(page) == last

    # What cannot be is a message, and the page goes on.
    page.get_by_label("num_levels").fill("NaN")
    page.get_by_role("button", name="Draw", exact=True).click()
    said = toast(page)
    assert "num_levels is nan" in said
    assert "Traceback" not in said
    page.get_by_label("Seed").first.fill("")
    page.get_by_role("button", name="Draw", exact=True).click()
    assert "seed is empty" in toast(page)

    # All tabs.
    for title, place in (
        ("In the plane", "#plane-film"),
        ("Wind tunnel", "#tunnel"),
        ("Inpaint", "#inpaint-films"),
        ("Interpolate", "#turn-film"),
    ):
        page.get_by_role("tab", name=title).click()
        finished(page, place)
    page.get_by_role("tab", name="Leaderboard").click()
    page.get_by_text("hdzoo compare").first.wait_for()
    assert page.faults == []
    assert page.hosts == {"127.0.0.1"}


def test_a_mask_is_drawn_and_the_rest_of_the_picture_stays(page):
    page.get_by_role("tab", name="Inpaint").click()
    finished(page, "#inpaint-films")
    canvas = page.locator("#inpaint-mask canvas")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Paint", exact=True).click()
    assert "the mask is empty" in toast(page)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 4, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Paint", exact=True).click()
    expect(page.locator("#inpaint-films [data-forming]")).to_be_visible()
    time.sleep(0.5)
    finished(page, "#inpaint-films")
    assert page.faults == []


def test_stop_ends_a_drawing_and_the_next_one_is_drawn(page):
    # However long the server takes to hear of it: a click that comes before is not lost.
    page.evaluate(SLOW_CANCEL)
    finished(page, "#draw-films")
    evaluations = page.get_by_label(re.compile("number input for Evaluations", re.I)).first
    evaluations.fill("500")
    begin = page.get_by_role("button", name="Draw", exact=True)
    begin.click()
    page.locator("#draw-films [data-forming=true]").wait_for()
    for held in (begin, page.get_by_label("Samplers").first):
        expect(held).to_be_disabled()
    page.get_by_role("button", name="Stop").first.click()
    evaluations.fill("8")
    begin.click()
    finished(page, "#draw-films")
    assert "-t 8 " in page.locator("#draw-command .cm-content").inner_text()
    expect(begin).to_be_enabled()
