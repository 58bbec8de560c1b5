"""The page: the verdict first, everything escaped, nothing fetched, gaps stay gaps."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from koprogo_deploy import report
from koprogo_deploy.objectives import judge
from koprogo_deploy.report import charts
from koprogo_deploy.report import page as page_module
from koprogo_deploy.runs.model import Run
from tests.made_runs import Stretch, made_run
from tests.project import settings

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def judged(run: Run) -> Run:
    run.verdict = judge(run, settings("sandbox"))
    return run


@pytest.fixture(scope="module")
def passed() -> str:
    return report.html([judged(made_run(seconds=70))])


class Page(HTMLParser):
    """The words that are shown, the elements, and what they point to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


def test_the_verdict_comes_first_in_words_and_sign(passed: str) -> None:
    text = Page(passed).text
    assert "✓ Passed" in text
    assert text.index("✓ Passed") < text.index("Objectives") < text.index("What happened")


def test_a_missed_objective_says_by_how_much_and_what_was_busy() -> None:
    run = judged(made_run(seconds=70, memory={"traefik": 90}, cpu={"backend": 60}))
    text = Page(report.html([run])).text
    assert "✗ Missed" in text
    assert "Traefik memory ✗ missed < 75 MB 90 MB 20% beyond" in text
    assert re.search(r"20% beyond CPU \d+%, backend \d+%", text)


def test_too_few_right_answers_are_short_not_beyond() -> None:
    text = Page(report.html([judged(made_run(rate=150, seconds=70))])).text
    assert "> 200 req/s 150 req/s 25% short" in text


def test_our_own_goals_are_marked(passed: str) -> None:
    assert "P99 our own, tighter ✓ met < 10 ms" in Page(passed).text


def test_an_invalid_run_is_not_called_missed_or_passed() -> None:
    run = judged(made_run(seconds=20, invalid=["its CPU was at 100%"]))
    text = Page(report.html([run])).text
    assert "⚠ Invalid" in text
    assert "Nothing can be said of the stack: its CPU was at 100%." in text
    assert "✓ Passed" not in text


def test_an_interrupted_run_is_invalid() -> None:
    text = Page(report.html([judged(made_run(seconds=20, interrupted=True))])).text
    assert "⚠ Invalid" in text and "it was interrupted" in text


def test_a_run_that_nobody_judged_says_so() -> None:
    text = Page(report.html([made_run(seconds=20)])).text
    assert "– Not judged" in text and "✓ Passed" not in text


def test_what_a_file_says_is_text_and_nothing_else() -> None:
    run = judged(made_run(seconds=20, errors={"5xx": 3}))
    run.id = run.profile = run.environment = run.url = run.command = run.revision = EVIL
    run.monitor_problem = EVIL
    run.machine.host = run.deployed.release = run.cleanup.problem = EVIL
    run.deployed.images = {EVIL: EVIL}
    run.deployed.postgres = {EVIL: EVIL}
    run.phases[0].name = run.phases[0].endpoints[0].name = EVIL
    run.generator.reasons = [EVIL]
    changed = [
        sample.model_copy(
            update={
                "containers": {EVIL: next(iter(sample.containers.values()))},
                "unread": {EVIL: EVIL},
            }
        )
        for sample in run.samples
    ]
    run.samples = changed
    text = report.html([run, run])
    assert "<script>alert" not in text and "<img" not in text
    page = Page(text)
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    assert EVIL in page.text, "it is shown as it is written"


def test_only_its_own_scripts_may_run_and_nothing_is_fetched(passed: str) -> None:
    page = Page(passed)
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a) or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy and "script-src 'unsafe-inline'" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", passed, re.S)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    fetched = [(tag, name) for tag, attributes in page.elements for name in attributes
               if name in ("src", "srcset") or (tag == "link" and name == "href")]  # fmt: skip
    assert not fetched
    assert (
        "@import" not in passed.split("</style>")[0] and "url(" not in passed.split("</style>")[0]
    )


def test_plotly_is_there_once_however_many_runs() -> None:
    run = judged(made_run(seconds=20))
    one, three = report.html([run]), report.html([run, run, run])
    assert len(three) - len(one) < 1_000_000 < len(one)


def test_numbers_are_rounded_so_that_the_file_stays_small(passed: str) -> None:
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', passed, re.S)
    assert len(data) >= 14
    for text in data:
        for trace in json.loads(text)["data"]:
            assert all(value is None or len(str(value)) <= 9 for value in trace["y"])


def test_a_figure_cannot_end_its_own_script_element() -> None:
    figure = go.Figure(layout={"title": {"text": "</script><script>"}})
    assert "<" not in page_module._figure(figure)
    assert json.loads(page_module._figure(figure))["layout"]["title"]["text"][:9] == "</script>"


def test_several_runs_have_an_overview_and_a_section_each() -> None:
    good, bad = judged(made_run(seconds=20)), judged(made_run(seconds=20, id="second", p50=80))
    text = report.html([good, bad])
    page = Page(text)
    assert page.text.index("2 runs") < page.text.index("Latency of all runs")
    assert {"run-1", "run-2"} <= {attributes.get("id") for _, attributes in page.elements}


def test_values_that_were_not_read_are_said() -> None:
    run = made_run(seconds=20)
    run.samples = [
        sample.model_copy(
            update={"unread": {"host.pressure.io": "no /proc/pressure on this kernel"}}
        )
        for sample in run.samples
    ]
    text = Page(report.html([run])).text
    assert "host.pressure.io no /proc/pressure on this kernel 20 of 20" in text
    assert "first sample" not in text


def test_without_a_monitor_the_page_says_why_and_draws_no_host() -> None:
    run = made_run(seconds=20, monitor=False, monitor_problem="SSH was refused")
    assert "No samples of the host: SSH was refused." in Page(report.html([run])).text
    assert {chart.key for chart in charts.charts(run)} == {
        "latency", "distribution", "rate", "errors",
    }  # fmt: skip


def chart(run: Run, key: str) -> charts.Chart:
    return next(one for one in charts.charts(run) if one.key == key)


def test_missing_samples_are_gaps_in_every_line_and_no_bar_is_zero_there() -> None:
    run = made_run(seconds=60)
    run.samples = [s for s in run.samples if not 20 <= s.at - run.began < 30]
    for key in ("cpu", "memory", "load", "transactions"):
        figure = chart(run, key).figure
        assert figure is not None
        trace = figure.data[0]
        missing = [x for x, y in zip(trace.x, trace.y, strict=True) if y is None]
        assert any(19 < x < 31 for x in missing), key
        assert not [x for x, y in zip(trace.x, trace.y, strict=True) if 20.5 < x < 29.5 and y == 0]
        if trace.type == "scatter":
            assert trace.connectgaps is False


def test_a_value_that_was_not_read_is_a_gap_not_a_zero() -> None:
    run = made_run(seconds=20)
    run.samples[5] = run.samples[5].model_copy(update={"containers": {}})
    figure = chart(run, "cpu").figure
    assert figure is not None
    backend = next(trace for trace in figure.data if trace.name == "backend")
    assert backend.y[5] is None


def test_the_hosts_clock_is_set_against_the_runs() -> None:
    run = made_run(seconds=20, clock_offset=37.0)
    figure = chart(run, "load").figure
    assert figure is not None and figure.data[0].x[0] == pytest.approx(0.5)


def test_charts_of_a_run_share_their_time_axis() -> None:
    found = [one for one in charts.charts(made_run(seconds=45)) if one.timed and one.figure]
    assert {tuple(one.figure.layout.xaxis.range) for one in found if one.figure} == {(0, 45)}
    long = charts.charts(made_run(rate=2, seconds=1800, monitor=False))
    assert long[0].figure is not None and long[0].figure.layout.xaxis.title.text == "minutes"


def test_phases_are_bands_and_one_that_is_not_judged_says_so() -> None:
    stretches = [Stretch("warm-up", 20, 10, judged=False), Stretch("realistic", 50, 20)]
    figure = chart(made_run(stretches=stretches), "latency").figure
    assert figure is not None
    assert [note.text for note in figure.layout.annotations] == ["warm-up, not judged", "realistic"]
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (0, 10)


def test_the_percentile_curve_ends_at_the_slowest_answer() -> None:
    run = made_run(seconds=30)
    figure = chart(run, "distribution").figure
    assert figure is not None
    total, *endpoints = figure.data
    assert total.y[-1] == pytest.approx(run.phases[0].latency.max, rel=0.002)
    assert len(endpoints) == len(run.phases[0].endpoints)
    assert {trace.visible for trace in endpoints} == {"legendonly"}


def test_a_broken_histogram_is_said_and_breaks_nothing() -> None:
    run = made_run(seconds=20)
    run.phases[0].histogram = "not base64"
    found = chart(run, "distribution")
    assert found.figure is None and "no histogram that can be read" in found.says


def test_memory_is_drawn_against_each_containers_own_limit() -> None:
    run = made_run(seconds=20, memory={"traefik": 60})
    figure = chart(run, "memory").figure
    assert figure is not None
    traefik = next(trace for trace in figure.data if trace.name.startswith("traefik"))
    assert traefik.name == "traefik (limit 80 MB)"
    assert traefik.y[-1] == pytest.approx(75, abs=0.1)


def test_an_objective_is_drawn_only_where_the_line_comes_near_it() -> None:
    near = chart(judged(made_run(seconds=20, p50=20)), "latency").figure
    far = chart(judged(made_run(seconds=20, p50=1)), "latency").figure
    assert near is not None and far is not None
    assert "objective: P99 &lt; 100 ms" in [trace.name for trace in near.data]
    assert "objective: P99 &lt; 100 ms" not in [trace.name for trace in far.data]
