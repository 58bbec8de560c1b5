"""Nobody but the person with the link gets in, and no other page acts in that person's name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from koprogo_deploy.dashboard.guard import Keys, name_typed, opens, refusal
from tests.unit.dashboard.conftest import HOST, ORIGIN, PORT, Bench

KEYS = Keys(PORT)
POST = {"host": HOST, "origin": ORIGIN, "content-type": "application/json"}
ROUTES = (
    "/", "/events", "/static/main.js", "/static/plotly.js", "/facts/release", "/facts/seed",
    "/facts/measured", "/runs/some", "/jobs", "/nothing",
)  # fmt: skip


def test_the_link_is_on_this_machine_and_carries_the_token() -> None:
    assert KEYS.link == f"http://127.0.0.1:{PORT}/?token={KEYS.token}"
    assert len(KEYS.token) >= 43  # 256 bits
    assert KEYS.token not in repr(KEYS)
    assert Keys(PORT).token != KEYS.token


@pytest.mark.parametrize("host", [HOST, f"localhost:{PORT}"])
def test_the_cookie_opens_under_both_names(host: str) -> None:
    assert refusal(KEYS, "GET", {"host": host}, KEYS.session) is None


@pytest.mark.parametrize(
    "host", [None, "evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}"]
)
def test_a_foreign_name_is_refused_even_with_the_cookie(host: str | None) -> None:
    refused = refusal(KEYS, "GET", {"host": host} if host else {}, KEYS.session)
    assert refused is not None
    assert refused.status == 403
    assert not opens(KEYS, host, KEYS.token)


@pytest.mark.parametrize("cookie", [None, "", "x", KEYS.token, KEYS.session[:-1]])
def test_without_the_right_cookie_nothing_is_shown(cookie: str | None) -> None:
    refused = refusal(KEYS, "GET", {"host": HOST}, cookie)
    assert refused is not None
    assert refused.status == 401


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("origin", None, 403),
        ("origin", "null", 403),
        ("origin", "https://evil.example", 403),
        ("origin", f"http://127.0.0.1:{PORT + 1}", 403),
        ("origin", f"http://localhost:{PORT}", 403),  # another origin than the Host's
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),  # a page on another port of this machine
        ("sec-fetch-site", "none", 403),
        ("content-type", None, 415),
        ("content-type", "text/plain", 415),  # what a foreign form can send
        ("content-type", "application/x-www-form-urlencoded", 415),
    ],
)
def test_only_the_own_page_may_change_something(
    header: str, value: str | None, status: int
) -> None:
    assert refusal(KEYS, "POST", POST, KEYS.session) is None
    headers = {k: v for k, v in (POST | {header: value}).items() if v is not None}
    refused = refusal(KEYS, "POST", headers, KEYS.session)
    assert refused is not None
    assert refused.status == status


@pytest.mark.parametrize(
    "name", ["", "Production", "production ", "prod", "sandbox", None, 1, ["production"]]
)
def test_only_the_exact_name_confirms(name: object) -> None:
    assert name_typed("production", "production")
    assert not name_typed("production", name)


def test_the_link_gives_a_cookie_and_leads_away(bench: Callable[..., Bench]) -> None:
    made = bench(link_opened=False)
    fresh = made.stranger()
    answer = fresh.get(f"/?token={made.keys.token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert made.keys.token not in answer.headers["set-cookie"]
    assert fresh.get("/").status_code == 200
    # The link again, in a browser that has the cookie: away from it as well.
    assert fresh.get(f"/?token={made.keys.token}").status_code == 303


def test_the_link_opens_once(bench: Callable[..., Bench]) -> None:
    made = bench(link_opened=False)
    first, second = made.stranger(), made.stranger()
    assert first.get("/?token=wrong").status_code == 401, "which uses nothing up"
    assert first.head(f"/?token={made.keys.token}").status_code == 401
    assert first.get(f"/?token={made.keys.token}").status_code == 303
    answer = second.get(f"/?token={made.keys.token}", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "opens once" in answer.text
    assert "set-cookie" not in answer.headers
    assert first.get("/").status_code == 200, "who opened it stays in"


@pytest.mark.parametrize("path", [route for route in ROUTES if route != "/"])
def test_another_page_of_this_machine_makes_nobody_ask_the_host(path: str) -> None:
    for site, allowed in (
        ("same-origin", True), ("none", True), (None, True), ("same-site", False),
        ("cross-site", False), ("x", False),
    ):  # fmt: skip
        headers = {"host": HOST, **({"sec-fetch-site": site} if site else {})}
        for method in ("GET", "HEAD"):
            refused = refusal(KEYS, method, headers, KEYS.session, path)
            assert (refused is None) == allowed, (site, method)
    headers = {"host": HOST, "sec-fetch-site": "cross-site"}
    assert refusal(KEYS, "GET", headers, KEYS.session, "/") is None, "a link to it opens it"


def test_from_a_foreign_page_the_link_leads_on_by_the_page_itself(
    bench: Callable[..., Bench],
) -> None:
    # A redirect that another site began would come without the Strict cookie.
    made = bench(link_opened=False)
    fresh = made.stranger()
    answer = fresh.get(f"/?token={made.keys.token}", headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, answer.headers["refresh"]) == (200, "0; url=/")


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_is_behind_the_guard(bench: Callable[..., Bench], path: str) -> None:
    made = bench()
    stranger = made.stranger()
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert stranger.request(method, path).status_code == 401, (method, path)
    assert stranger.get(f"{path}?token=wrong").status_code == 401
    rebound = made.stranger(f"http://evil.example:{PORT}")
    rebound.cookies.update(made.client.cookies)
    assert rebound.get(f"{path}?token={made.keys.token}").status_code == 403


def test_the_token_opens_the_door_and_no_other_room(bench: Callable[..., Bench]) -> None:
    made = bench()
    stranger = made.stranger()
    assert stranger.get(f"/facts/seed?token={made.keys.token}").status_code == 401


def test_a_person_without_the_link_reads_why(bench: Callable[..., Bench]) -> None:
    made = bench()
    stranger = made.stranger()
    answer = stranger.get("/?token=<script>", headers={"Accept": "text/html"})
    assert answer.status_code == 401
    assert "koprogo dashboard printed" in answer.text
    assert "<script>" not in answer.text


def test_what_a_browser_is_told_about_every_answer(bench: Callable[..., Bench]) -> None:
    made = bench()
    for answer in (made.client.get("/"), made.client.get("/nothing"), made.post(what="x")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_holds_no_script_and_nothing_from_elsewhere(bench: Callable[..., Bench]) -> None:
    text = bench().client.get("/").text
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<script") == text.count('<script src="/static/')
