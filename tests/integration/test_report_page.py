"""The report's page in a real browser: offline, light and dark, narrow and wide, on paper.

Needs Chromium and its driver (`scripts/browser`), and no box.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from koprogo_deploy import report
from koprogo_deploy.objectives import judge
from koprogo_deploy.runs.model import Run
from tests.made_runs import Stretch, made_run
from tests.project import settings

EVIL = "<script>document.title='evil'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
# A sheet of A4 between its margins, in CSS pixels.
PAPER = 703


def runs() -> list[Run]:
    stretches = [Stretch("warm-up", 50, 10, judged=False), Stretch("realistic", 220, 60)]
    bad = made_run(
        stretches=stretches, errors={"5xx": 300}, memory={"traefik": 78}, id=f"bad {EVIL}"
    )
    bad.phases[1].endpoints[0].name = EVIL
    bad.samples = bad.samples[:20] + bad.samples[30:]
    both = [made_run(seconds=70), bad]
    for run in both:
        run.verdict = judge(run, settings("sandbox"))
    return both


class Browser:
    """A page in headless Chromium."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver: Any = driver  # its own types are incomplete

    def size(self, width: int, height: int = 900, mobile: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
        )

    def media(self, scheme: str, medium: str = "") -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {
                "media": medium,
                "features": [{"name": "prefers-color-scheme", "value": scheme}],
            },
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())
        drawn = "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
        self.until(f"return document.querySelector('.plot') && {drawn}")

    def until(self, script: str) -> None:
        WebDriverWait(self.driver, 20, poll_frequency=0.05).until(lambda _: self.run(script))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.fail("no chromium and chromedriver: scripts/browser installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report.html(runs()), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.media("light")
    browser.size(1400)
    browser.open(page)
    return browser


def contrast(one: str, other: str) -> float:
    """Contrast of two `rgb(r, g, b)` colours, as WCAG counts it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


COLOURS = """
const style = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
return {
  page: style("body", "backgroundColor"), text: style("body", "color"),
  panel: style(".chart", "backgroundColor"), tick: style(".plot .xtick text", "fill"),
  legend: style(".plot .legendtext", "fill"), grid: style(".plot .gridlayer path", "stroke"),
  soft: style(".facts", "color"),
}
"""


def test_it_asks_nobody_for_anything_and_no_foreign_script_runs(
    browser: Browser, page: Path
) -> None:
    browser.driver.get_log("performance")
    browser.driver.get_log("browser")
    browser.open(page)
    messages = [json.loads(e["message"])["message"] for e in browser.driver.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert asked == {page.as_uri()}
    assert browser.driver.get_log("browser") == [], "no error, no refusal by the page's policy"
    assert browser.driver.title == "2 runs"
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert EVIL in browser.driver.find_element(By.ID, "run-2").text


def test_a_script_that_got_in_all_the_same_would_not_run(opened: Browser) -> None:
    ran = opened.run(
        "const foreign = document.createElement('script');"
        "foreign.textContent = 'window.foreign = true'; document.body.append(foreign);"
        "return window.foreign === true"
    )
    assert not ran


def test_every_chart_is_drawn(opened: Browser) -> None:
    counts = opened.run(
        "return [...document.querySelectorAll('.plot')].map("
        "p => [p.id, p.querySelectorAll('.trace path, .trace .point').length])"
    )
    assert len(counts) > 25
    assert [name for name, count in counts if not count] == []


def test_zooming_one_chart_zooms_all_of_its_run_and_no_other(opened: Browser) -> None:
    opened.run("Plotly.relayout('run-1-latency', {'xaxis.range': [20, 30]})")
    ranges = (
        "return [...document.querySelectorAll('.plot[data-time=\"%d\"]')]"
        ".map(p => p._fullLayout.xaxis.range.map(Math.round).join())"
    )
    opened.until(f"const r = (() => {{ {ranges % 1} }})(); return r.every(x => x === '20,30')")
    assert set(opened.run(ranges % 2)) == {"0,70"}
    opened.run("Plotly.relayout('run-1-memory', {'xaxis.autorange': true})")
    opened.until(f"const r = (() => {{ {ranges % 1} }})(); return r.every(x => x === '0,70')")


def test_the_latency_axis_can_be_logarithmic(opened: Browser) -> None:
    button = opened.driver.find_element(By.CSS_SELECTOR, "button[data-axis='run-1-latency']")
    button.click()
    axis = "return document.getElementById('run-1-latency')._fullLayout.yaxis.type"
    opened.until(f"{axis} === 'log'")
    assert button.get_attribute("aria-pressed") == "true" and button.text == "Linear axis"
    button.click()
    opened.until(f"{axis} === 'linear'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_charts_are_readable_in_the_systems_colours(opened: Browser, scheme: str) -> None:
    opened.media(scheme)
    opened.until(f"return document.documentElement.dataset.theme === '{scheme}'")
    found = opened.run(COLOURS)
    for name in ("text", "soft"):
        assert contrast(found[name], found["page"]) >= 4.5, (name, found)
    for name in ("tick", "legend"):
        assert contrast(found[name], found["panel"]) >= 4.5, (name, found)
    assert 1.05 < contrast(found["grid"], found["panel"]) < 2, "a grid is seen, and not in the way"
    dark = contrast(found["page"], "rgb(0, 0, 0)") < 2
    assert dark == (scheme == "dark")


def test_the_verdicts_and_the_lines_stand_out_in_both(opened: Browser) -> None:
    for scheme in ("light", "dark"):
        opened.media(scheme)
        opened.until(f"return document.documentElement.dataset.theme === '{scheme}'")
        pairs = opened.run(
            "return [...document.querySelectorAll('.verdict')].map(v => ["
            "getComputedStyle(v).color, getComputedStyle(v).backgroundColor])"
        )
        assert pairs and all(contrast(*pair) >= 4.5 for pair in pairs)
        panel = opened.run(COLOURS)["panel"]
        lines = opened.run(
            "return [...document.querySelectorAll('.plot .js-line')]"
            ".map(line => getComputedStyle(line).stroke)"
        )
        assert lines and all(contrast(line, panel) >= 2.5 for line in set(lines)), scheme


def test_the_reader_can_choose(opened: Browser) -> None:
    button = opened.driver.find_element(By.ID, "theme")
    assert button.text == "Dark"
    button.click()
    assert opened.run("return document.documentElement.dataset.theme") == "dark"
    assert button.text == "Light"
    opened.media("dark")
    button.click()
    assert opened.run("return document.documentElement.dataset.theme") == "light"


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_hangs_over_the_edge(browser: Browser, page: Path, width: int) -> None:
    browser.media("light")
    browser.size(width, mobile=width < 500)
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth") == width
    beyond = browser.run(
        "return [...document.querySelectorAll('.plot, .verdict, h1, h2')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth).length"
    )
    assert beyond == 0


def test_on_paper_it_is_light_and_no_chart_is_cut(opened: Browser) -> None:
    opened.media("dark", "print")
    opened.size(PAPER)
    opened.run("dispatchEvent(new Event('beforeprint'))")
    opened.until("return document.getElementById('run-1-latency')._fullLayout.width === 670")
    found = opened.run(COLOURS)
    assert found["page"] == found["panel"] == "rgb(255, 255, 255)"
    assert contrast(found["tick"], found["panel"]) >= 7
    assert opened.run("return document.documentElement.scrollWidth") == PAPER, "not shrunk to fit"
    over = opened.run(
        "return [...document.querySelectorAll('.plot .main-svg')].filter(s => "
        "s.getBoundingClientRect().right > s.closest('.chart').getBoundingClientRect().right + 1)"
        ".length"
    )
    assert over == 0
    assert opened.run(
        "return [...document.querySelectorAll('.chart')]"
        ".every(c => getComputedStyle(c).breakInside === 'avoid')"
    )
    tallest = opened.run(
        "return Math.max(...[...document.querySelectorAll('.chart')].map(c => c.offsetHeight))"
    )
    assert tallest < 900, "it fits on a sheet"
    opened.media("light")
    printed = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
