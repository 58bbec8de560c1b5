"""The dashboard in a real Chromium, against the real box: what a person sees and can do."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from koprogo_deploy.dashboard import server
from koprogo_deploy.runs import store
from tests.integration.rig import ENVIRONMENT, ROOT, Rig

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NEEDED = os.environ.get("KOPROGO_BROWSER") == "required"
# Its packages are the operating system's; `make test` brings them.
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not NEEDED, reason="no chromium and chromedriver here"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
COUNTS = {"organizations": 3, "buildings": 23, "units": 190, "owners": 126}


@dataclass
class Page:
    """A browser with the dashboard open, and the ways to look at it."""

    browser: webdriver.Chrome
    link: str
    cookie: tuple[str, str] | None = None

    def open(self) -> None:
        """By the link; or by the cookie of one that was opened, since a link opens once."""
        self.browser.get(self.link)
        if self.cookie and not self.browser.get_cookie(self.cookie[0]):
            name, value = self.cookie
            self.browser.add_cookie({"name": name, "value": value, "httpOnly": True})
            self.complaints()  # of the refused page, which was there for the cookie to have a place
            self.browser.get(self.link)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def until(self, so: Callable[[], Any], what: str, within: float = 30) -> Any:
        """Wait for something, and give it back."""
        deadline = time.monotonic() + within
        while True:
            with contextlib.suppress(Exception):  # an element that was just replaced
                found = so()
                if found:
                    return found
            if time.monotonic() > deadline:
                shown = self.text("body")[:3000]
                raise AssertionError(f"not within {within:.0f} s: {what}\n{shown}")
            time.sleep(0.2)

    def seeded(self) -> dict[str, int]:
        """The counts as the page shows them."""
        found = self.browser.find_elements(By.CSS_SELECTOR, "#seed-counts dd")
        return {str(dd.get_attribute("data-kind")): int(dd.text) for dd in found}

    def points(self, chart: str) -> int:
        """How many values of the first line of a chart are drawn."""
        script = (
            "const plot = document.getElementById(arguments[0]);"
            "return plot?.data?.[0] ? plot.data[0].y.filter((v) => v !== null).length : 0"
        )
        return int(self.browser.execute_script(script, f"chart-{chart}"))

    def drawn(self, chart: str) -> bool:
        """Whether a chart has values of some seconds."""
        return self.points(chart) >= 3

    def asked(self) -> bool:
        """Whether the dialog is open."""
        return bool(self.browser.execute_script("return document.getElementById('ask').open"))

    def measuring(self) -> bool:
        """Whether a load run shows its figures."""
        return self.text("#job-state") == "running" and "P99" in self.text("#job-figures")

    def job_ended(self, title: str, within: float = 90) -> str:
        """Wait for the end of the job whose title begins so; its result in words."""
        self.until(lambda: self.text("#job-title").startswith(title), title)
        ends = ("done", "! did not succeed", "did not succeed", "stopped")
        self.until(lambda: self.text("#job-state") in ends, "the job's end", within)
        return self.text("#job-result")

    def complaints(self) -> list[str]:
        """What the browser has complained of, without a font of maps that plotly.js tries."""
        log: list[dict[str, Any]] = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        said = [str(entry["message"]) for entry in log]
        return [text for text in said if "/static/plotly.js" not in text]


@contextlib.contextmanager
def chromium(profile: Path, link: str, cookie: tuple[str, str] | None = None) -> Iterator[Page]:
    assert CHROMIUM and DRIVER, "KOPROGO_BROWSER=required, and no chromium and chromedriver here"
    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1400,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(browser, link, cookie)
    finally:
        browser.quit()


@dataclass
class Dashboard:
    """`koprogo dashboard`, running."""

    process: subprocess.Popen[str]
    link: str

    @cached_property
    def cookie(self) -> tuple[str, str]:
        """What the link is exchanged for, once."""
        [cookie] = httpx2.get(self.link).cookies.jar
        return cookie.name, str(cookie.value)

    @property
    def address(self) -> str:
        return self.link.partition("?")[0]

    def end(self, number: signal.Signals = signal.SIGINT, within: float = 60) -> int:
        """End it as a person or a system does; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(within)


def dashboard(*arguments: str) -> contextlib.AbstractContextManager[Dashboard]:
    return started([str(Path(sys.executable).with_name("koprogo")), "dashboard", *arguments])


@contextlib.contextmanager
def started(command: list[str]) -> Iterator[Dashboard]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                yield Dashboard(process, found[0])
                return
        raise AssertionError(f"no link:\n{said}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        process.stdout.close()


@pytest.fixture(scope="module")
def running(rig: Rig) -> Iterator[Dashboard]:
    with dashboard("--env", "sandbox") as made:
        yield made


@pytest.fixture
def page(running: Dashboard, tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "chromium", running.address, running.cookie) as made:
        made.open()
        yield made


def rows(rig: Rig) -> dict[str, int]:
    """What the database holds."""
    return {kind: int(rig.sql(f"SELECT count(*) FROM {kind}")) for kind in COUNTS}


def test_it_shows_the_box_live(page: Page, rig: Rig) -> None:
    browser = page.browser
    assert "token" not in browser.current_url
    assert browser.title == "sandbox · KoproGo dashboard"
    page.until(lambda: page.text("#connection").endswith("live"), "live", within=40)
    for chart in ("cpu", "memory", "load", "connections", "transactions", "requests"):
        page.until(partial(page.drawn, chart), f"values in {chart}")
    names = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#containers tbody th")]
    assert names == ["backend", "frontend", "postgres", "traefik"]
    states = {c.text for c in browser.find_elements(By.CSS_SELECTOR, "#containers tbody td .chip")}
    assert states <= {"normal", "raised", "! alert", "alert", "unknown"}
    assert states
    page.until(lambda: rig.manifest()["id"] in page.text("#release"), "the release")
    page.until(lambda: "healthy" in page.text("#release"), "its health")
    page.until(lambda: "Traefik memory" in page.text("#objectives"), "the objectives")
    assert "< 75 MB" in page.text("#objectives")
    # The cookie is out of reach of scripts, and nothing came from elsewhere.
    assert browser.execute_script("return document.cookie") == ""
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert loaded
    assert all(str(name).startswith("http://127.0.0.1:") for name in loaded)
    assert page.complaints() == []


@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_narrow_and_wide(page: Page, width: int) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    page.until(lambda: page.points("cpu") >= 2, "values")
    page.until(page.seeded, "the seed's counts")
    page.until(lambda: page.find("#release table"), "the release")
    # As the reason why a release was taken back may be: names of tests, each one long word.
    page.browser.execute_script(
        "const item = document.createElement('li'); item.textContent = 'test_'.repeat(60);"
        "document.querySelector('#release ul').append(item)"
    )
    widest = page.browser.execute_script("return document.documentElement.scrollWidth")
    assert widest <= width  # nothing to push sideways


def test_no_button_acts_before_it_has_asked(page: Page, rig: Rig) -> None:
    page.until(lambda: page.seeded().items() >= COUNTS.items(), "the seed's counts")
    before = rows(rig)
    page.click("#seed-clear")
    assert page.asked()
    assert "sandbox" in page.text("#ask-band")
    assert "cannot be undone" in page.text("#ask-what")
    # The safe answer has the focus: Enter does nothing, as Cancel and Escape do.
    focused = page.browser.switch_to.active_element
    assert focused.get_attribute("id") == "ask-no"
    focused.send_keys(Keys.ENTER)
    page.until(lambda: not page.asked(), "the dialog's end")
    page.click("#seed-clear")
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: not page.asked(), "the dialog's end")
    time.sleep(1)
    assert not page.find("#job").is_displayed()
    assert rows(rig) == before


def test_clear_and_generate_do_it_and_show_what_is_there(page: Page, rig: Rig) -> None:
    page.until(lambda: page.seeded().items() >= COUNTS.items(), "the seed's counts")
    try:
        page.click("#seed-clear")
        page.click("#ask-yes")
        assert page.job_ended("Clear").startswith("Nothing seeded is left")
        page.until(lambda: page.seeded()["buildings"] == 0, "no buildings")
        assert rows(rig) == dict.fromkeys(COUNTS, 0)
        assert not page.find("#seed-clear").is_enabled()
        assert "nothing seeded is there" in page.text("#cannot-clear")
    finally:
        page.click("#seed-generate")
        page.click("#ask-yes")
        said = page.job_ended("Generate")
    assert "3 organizations, 23 buildings, 190 units, 126 owners" in said
    page.until(lambda: page.seeded().items() >= COUNTS.items(), "the seed's counts")
    assert rows(rig) == COUNTS
    assert "Seed the realistic data" in page.text("#job-output")


def test_a_load_run_is_shown_while_it_runs_and_opens_its_report(page: Page, rig: Rig) -> None:
    before = rows(rig)
    page.find("#load-form [name=rate]").send_keys("40")
    page.find("#load-form [name=seconds]").send_keys("10")
    page.click("#load-start")
    assert "40 requests a second, for 10 seconds" in page.text("#ask-what")
    page.click("#ask-yes")
    page.until(page.measuring, "its figures", within=60)
    assert "[object" not in page.text("#job")
    # One at a time: the page offers nothing else, and the server would not take it.
    assert not page.find("#seed-clear").is_enabled()
    said = page.browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "fetch('/jobs', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({what: 'clear', name: 'sandbox'})})"
        ".then(async (answer) => done([answer.status, (await answer.json()).problem]))"
    )
    assert said[0] == 409
    assert "Load run realistic" in said[1]
    words = page.job_ended("Load run", within=120)
    link = page.find("#job-report")
    assert link.is_displayed(), words
    run = store.load(store.find(["latest"], "sandbox")[0])
    assert str(link.get_attribute("href")).endswith(run.id)
    try:
        page.until(lambda: run.id in str(page.find("#runs a").get_attribute("href")), "its row")
        assert rows(rig) == before  # what it wrote is gone
        page.click("#job-report")
        page.browser.switch_to.window(page.browser.window_handles[-1])
        page.until(lambda: run.profile in page.text("body"), "the report")
        drawn = "return document.querySelectorAll('.main-svg').length"
        page.until(lambda: page.browser.execute_script(drawn) > 0, "its charts")
        # It runs in an origin of its own: neither the cookie nor the dashboard is in its reach.
        assert page.browser.execute_script("return window.origin") == "null"
        reached = page.browser.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "fetch('/facts/seed').then(() => done('reached'), () => done('refused'))"
        )
        assert reached == "refused"
    finally:
        (store.FOLDER / "sandbox" / f"{run.id}.json").unlink()


def test_a_load_run_can_be_stopped(page: Page, rig: Rig) -> None:
    before = rows(rig)
    kept = set(store.listed("sandbox"))
    try:
        page.find("#load-form [name=rate]").send_keys("20")
        page.find("#load-form [name=seconds]").send_keys("60")
        page.click("#load-start")
        page.click("#ask-yes")
        page.until(page.measuring, "its figures", within=60)
        page.click("#job-cancel")
        assert "nterrupted" in page.job_ended("Load run", within=60)
        assert page.text("#job-state") == "stopped"
        assert rows(rig) == before
    finally:
        for path in set(store.listed("sandbox")) - kept:
            path.unlink()


def test_a_wrong_link_opens_nothing(running: Dashboard, tmp_path: Path) -> None:
    with chromium(tmp_path / "stranger", f"{running.address}?token=wrong") as page:
        page.open()
        assert "not open to you" in page.text("h1")
        assert "sandbox" not in page.browser.page_source
        page.browser.get(f"{running.address}facts/seed")
        assert "organizations" not in page.browser.page_source


def test_open_leads_in_by_a_private_file_and_once(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda uri: True)
    with dashboard("--env", "sandbox") as made:
        file = server.open_browser(made.link)
        try:
            with chromium(tmp_path / "chromium", file.as_uri()) as page:
                page.open()
                page.until(lambda: page.browser.title.startswith("sandbox"), "the dashboard")
                assert page.browser.current_url == made.address
            with chromium(tmp_path / "another", made.link) as page:
                page.open()
                assert "opens once" in page.browser.page_source
        finally:
            file.unlink()


def test_another_page_of_this_machine_can_do_nothing(page: Page, running: Dashboard) -> None:
    """To a browser another port is the same site: it would send the cookie along."""
    asked: list[str] = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Cookie", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>other</title>")

        def log_message(self, *_: object) -> None:
            pass

    body = json.dumps({"what": "clear", "name": "sandbox"})
    attempts: tuple[tuple[str, dict[str, Any]], ...] = (
        ("jobs", {"method": "POST", "mode": "no-cors", "body": body}),
        ("jobs", {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": body}),
        ("facts/seed", {}),
    )
    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        page.browser.get(f"http://127.0.0.1:{other.server_port}/")
        for path, options in attempts:
            said = page.browser.execute_async_script(
                "const [url, options, done] = arguments;"
                "fetch(url, {...options, credentials: 'include'})"
                ".then((answer) => done(answer.type), () => done('refused'))",
                running.address + path,
                options,
            )
            assert said in ("opaque", "refused")
        other.shutdown()
    assert "koprogo-dashboard" in asked[0]  # the cookie was there; it alone is not enough
    page.open()
    page.until(lambda: page.seeded().items() >= COUNTS.items(), "the seed's counts")
    assert "Clear" not in page.text("#job")


def test_it_listens_on_this_machine_alone(running: Dashboard) -> None:
    port = int(running.address.rstrip("/").rpartition(":")[2])
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = re.findall(rf"^ *\d+: ([0-9A-F]+):{port:04X} [0-9A-F]+:0000 0A", table, re.M)
    assert listening == ["0100007F"]  # 127.0.0.1
    rebound = httpx2.get(running.link, headers={"Host": f"evil.example:{port}"})
    assert rebound.status_code == 403


def test_values_that_are_old_are_called_old(page: Page, running: Dashboard) -> None:
    page.until(lambda: page.text("#connection").endswith("live"), "live", within=40)
    (link,) = [pid for pid in descendants(running.process.pid) if "ConnectTimeout" in line_of(pid)]
    os.kill(link, signal.SIGSTOP)  # as a connection that hangs
    try:
        page.until(lambda: "last seen" in page.text("#connection"), "lost", within=20)
        assert "is lost" in page.text("#lost")
        assert "old" in str(page.find("#now").get_attribute("class"))
        assert "old" in str(page.find("#charts").get_attribute("class"))
    finally:
        os.kill(link, signal.SIGCONT)
    page.until(lambda: page.text("#connection").endswith("live"), "live again")
    assert not page.find("#lost").is_displayed()
    os.kill(link, signal.SIGKILL)  # and as one that breaks
    page.until(lambda: line_of(link) == "", "its end")
    time.sleep(3)
    page.until(lambda: page.text("#connection").endswith("live"), "live again")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_end_leaves_nothing_behind(rig: Rig, tmp_path: Path, number: signal.Signals) -> None:
    before, kept, watching = rows(rig), set(store.listed("sandbox")), set(rig.probes())
    try:
        with dashboard() as made, chromium(tmp_path / "chromium", made.link) as page:
            page.open()
            page.until(lambda: page.text("#connection").endswith("live"), "it to be live")
            page.find("#load-form [name=rate]").send_keys("20")
            page.find("#load-form [name=seconds]").send_keys("60")
            page.click("#load-start")
            page.until(page.asked, "the question")
            page.click("#ask-yes")
            page.until(page.measuring, "its figures", within=60)
            started = descendants(made.process.pid)
            assert any("koprogo load" in line_of(pid) for pid in started)
            assert set(rig.probes()) - watching
            assert made.end(number) == 0
            assert [line_of(pid) for pid in started if line_of(pid)] == []
            page.until(lambda: "last seen" in page.text("#connection"), "lost")
            assert "dashboard does not answer" in page.text("#lost")
        assert rows(rig) == before
        page.until(lambda: not set(rig.probes()) - watching, "the probes' end", within=10)
    finally:
        for path in set(store.listed("sandbox")) - kept:
            path.unlink()


def test_production_is_red_and_wants_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fake_dashboard", "production"]
    with started(command) as made, chromium(tmp_path / "chromium", made.link) as page:
        page.open()
        assert "PRODUCTION" in page.text("header")
        band = page.find("header").value_of_css_property("background-color")
        assert band.startswith("rgba(164, 22, 26")
        # A host that does not answer is no empty page: each part says so.
        page.until(lambda: "ssh" in page.text("#release"), "the reason", within=40)
        page.until(lambda: "is not seen" in page.text("#lost"), "the reason", within=40)
        page.click("#load-start")
        yes, name = page.find("#ask-yes"), page.find("#ask-name")
        assert page.browser.switch_to.active_element == name
        assert not yes.is_enabled()
        name.send_keys("prod")
        assert not yes.is_enabled()
        name.send_keys(Keys.ENTER)
        assert page.asked()
        # The server asks for it as well, whatever a page might send.
        page.browser.execute_script("arguments[0].disabled = false", yes)
        yes.click()
        page.until(lambda: "prod" in page.text("#ask-problem"), "the refusal")
        assert "Nothing was started" in page.text("#ask-problem")
        assert not page.find("#job").is_displayed()
        name.send_keys("uction")
        page.until(yes.is_enabled, "the right name")
        yes.click()
        # There is no such host: the command itself refuses, at its door.
        assert "example.invalid" in page.job_ended("Load run")


def descendants(pid: int) -> list[int]:
    """What a process has started, and what that has."""
    try:
        found = Path(f"/proc/{pid}/task").glob("*/children")
        direct = [int(child) for file in found for child in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return direct + [each for child in direct for each in descendants(child)]


def line_of(pid: int) -> str:
    """The command line of a process that runs; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
