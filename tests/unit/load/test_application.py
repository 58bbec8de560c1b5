"""When an answer is right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from koprogo_deploy.load import application
from koprogo_deploy.load.application import KINDS, Tenant, body, wrong
from tests.unit.load.server import created, page

TENANT = Tenant(
    "admin@small.be", "org-1", ("b-1", "b-2"), frozenset({"foreign"}), frozenset({"GET /buildings"})
)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BUILDINGS = KINDS["GET /buildings"]


def judged(kind: str, answer: Any, sent: dict[str, Any] | None = None) -> str:
    return wrong(KINDS[kind], TENANT, sent, orjson.dumps(answer))


def changed(answer: dict[str, Any], **pagination: Any) -> dict[str, Any]:
    return {**answer, "pagination": {**answer["pagination"], **pagination}}


@pytest.mark.parametrize("name", ["buildings", "units", "owners", "expenses", "meetings"])
def test_a_page_of_a_list_is_right(name: str) -> None:
    assert judged(f"GET /{name}", page(name, "x", 20)) == ""
    assert judged(f"GET /{name}", page(name, "x", 20, total=3)) == ""


GOOD = page("buildings", "x", 20)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([], "not an object"),
        ({}, "no data or no pagination"),
        ({"data": []}, "no data or no pagination"),
        ({**GOOD, "data": GOOD["data"][1:]}, "19 rows on a page of 23 items"),
        (changed(GOOD, total_items="23"), "total_items is '23'"),
        (changed(GOOD, total_items=-1), "total_items is -1"),
        (changed(GOOD, current_page=2), "page, per_page, total_pages are (2, 20, 2)"),
        (changed(GOOD, total_pages=3), "page, per_page, total_pages are (1, 20, 3)"),
        (changed(GOOD, has_next=False), "has_next or has_previous"),
        (page("buildings", "x", 20, total=0), "empty, and was not before"),
        ({**GOOD, "data": [{"id": 1}] * 20}, "a row without address, city"),
        ({**GOOD, "data": [{**GOOD["data"][0], "id": "foreign"}] * 20}, "of another tenant"),
    ],
)
def test_a_page_that_is_not(answer: Any, says: str) -> None:
    assert says in judged("GET /buildings", answer)


def test_no_json_is_wrong_whatever_the_status() -> None:
    assert "not JSON" in wrong(BUILDINGS, TENANT, None, b"<html>welcome</html>")
    assert "not JSON" in wrong(BUILDINGS, TENANT, None, b"")


def test_me_is_who_asked() -> None:
    me = {"id": "1", "email": "admin@small.be", "role": "syndic"}
    assert judged("GET /auth/me", me) == ""
    other = judged("GET /auth/me", {**me, "email": "admin@large.be"})
    assert other == "admin@small.be was told to be admin@large.be"


def test_health_says_ok() -> None:
    assert judged("GET /health", {"status": "ok", "service": "koprogo-api"}) == ""
    assert judged("GET /health", {"status": "degraded"}) == "status is 'degraded'"


@pytest.mark.parametrize("name", ["buildings", "units", "owners", "expenses"])
def test_a_created_row_is_what_was_sent(name: str) -> None:
    kind = f"POST /{name}"
    sent = body(KINDS[kind], TENANT, "0123abcd", 17, NOW)
    assert judged(kind, created(name, sent), sent) == ""
    assert judged(kind, {**created(name, sent), "id": None}, sent) == "the created row has no id"
    for key in sent:
        if key in ("organization_id", "phone", "supplier", "invoice_number"):
            continue
        other = {**created(name, sent), key: "2000-01-01T00:00:00+00:00"}
        assert f"{key} is" in judged(kind, other, sent)
        without = created(name, sent)
        del without[key]
        assert judged(kind, without, sent) == f"the created row has no {key}"


def test_later_revisions_write_numbers_as_text_and_show_the_organisation() -> None:
    sent = body(KINDS["POST /expenses"], TENANT, "0123abcd", 1, NOW)
    answer = created("expenses", sent) | {"amount": f"{sent['amount']:.2f}", "extra": [1]}
    answer |= {"expense_date": "2026-03-01T11:59:00Z", "organization_id": "org-1"}
    assert judged("POST /expenses", answer, sent) == ""
    assert "amount is" in judged("POST /expenses", answer | {"amount": "9.99"}, sent)
    assert "organization_id is" in judged(
        "POST /expenses", answer | {"organization_id": "org-2"}, sent
    )


def test_bodies_are_valid_and_unique_for_very_many_rows() -> None:
    seen: set[str] = set()
    for number in (*range(1, 300), 999_999, 1_000_000, 12_345_678):
        unit = body(KINDS["POST /units"], TENANT, "0123abcd", number, NOW)
        assert 0.1 <= unit["quota"] <= 1000
        assert unit["surface_area"] >= 0.1
        assert len(unit["unit_number"]) <= 50
        building = body(KINDS["POST /buildings"], TENANT, "0123abcd", number, NOW)
        assert building["total_units"] >= 1
        seen |= {unit["unit_number"]}
    assert len(seen) == 302


def test_a_mark_is_recognised_and_nothing_else_is() -> None:
    assert application.is_marked(application.mark("0123abcd", 5))
    assert application.is_marked("load-0123abcd-1234567@load.koprogo.invalid")
    assert not application.is_marked("Résidence load-bearing-1")
    assert not application.is_marked(None)
