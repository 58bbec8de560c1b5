"""KoproGo's HTTP contract, asked of a deployed and seeded instance through its proxy.

What is asserted holds for the stand-in and for the real image alike, so that the one can take the
other's place. Rows are written under names of their own; a building is deleted with what is in it,
an owner stays, because neither image can delete one.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

SMALL, MEDIUM, LARGE = "admin@small.be", "admin@medium.be", "admin@large.be"
NOBODY = "00000000-0000-0000-0000-00000000dead"
Headers = dict[str, str]

# One login for each account: a hash costs the server a quarter of a second of its one CPU.
sessions: dict[tuple[str, str], dict[str, Any]] = {}


def session(api: httpx2.Client, email: str, password: str) -> dict[str, Any]:
    key = (str(api.base_url), email)
    if key not in sessions:
        response = api.post("/auth/login", json={"email": email, "password": password})
        assert response.status_code == 200, response.text
        sessions[key] = response.json()
    return sessions[key]


@pytest.fixture
def auth(api: httpx2.Client, seed_password: str) -> Headers:
    return {"Authorization": f"Bearer {session(api, SMALL, seed_password)['token']}"}


def building_body(**changes: object) -> dict[str, object]:
    return {
        "organization_id": "",
        "name": f"Contract {uuid.uuid4()}",
        "address": "Rue du Contrat 1",
        "city": "Namur",
        "postal_code": "5000",
        "country": "Belgium",
        "total_units": 4,
        **changes,
    }


@pytest.fixture
def building(api: httpx2.Client, auth: Headers) -> Iterator[dict[str, Any]]:
    response = api.post("/buildings", json=building_body(construction_year=1999), headers=auth)
    assert response.status_code == 201, response.text
    yield response.json()
    deleted = api.delete(f"/buildings/{response.json()['id']}", headers=auth)
    assert deleted.status_code == 204, deleted.text


def unit_body(building_id: str, **changes: object) -> dict[str, object]:
    return {
        "organization_id": "",
        "building_id": building_id,
        "unit_number": uuid.uuid4().hex[:12],
        "unit_type": "Parking",
        "floor": -1,
        "surface_area": 12.5,
        "quota": 10.0,
        **changes,
    }


def owner_body(**changes: object) -> dict[str, object]:
    return {
        "organization_id": "",
        "first_name": "Contract",
        "last_name": "Test",
        "email": f"{uuid.uuid4().hex}@contract.example.com",
        "address": "Rue du Contrat 1",
        "city": "Namur",
        "postal_code": "5000",
        "country": "Belgium",
        **changes,
    }


def expense_body(building_id: str, **changes: object) -> dict[str, object]:
    return {
        "organization_id": "",
        "building_id": building_id,
        "category": "Maintenance",
        "description": "Contract test",
        "amount": 150.5,
        "expense_date": "2025-01-15T00:00:00Z",
        **changes,
    }


def assert_json_error(response: httpx2.Response, status: int, text: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    assert text is None or response.json()["error"] == text


def assert_text_error(response: httpx2.Response, status: int, start: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("text/plain")
    assert response.text.startswith(start)


def test_health_says_ok_without_a_token(api: httpx2.Client) -> None:
    response = api.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "service": "koprogo-api"}


# Signing in


@pytest.mark.parametrize("email", [SMALL, MEDIUM, LARGE])
def test_a_seeded_account_signs_in(api: httpx2.Client, seed_password: str, email: str) -> None:
    signed_in = session(api, email, seed_password)
    user = signed_in["user"]
    assert (user["email"], user["role"], user["is_active"]) == (email, "syndic", True)
    assert uuid.UUID(user["organization_id"])
    me = api.get("/auth/me", headers={"Authorization": f"Bearer {signed_in['token']}"})
    assert me.status_code == 200
    assert me.json() == user


@pytest.mark.parametrize("email", [SMALL, "nobody@contract.example.com"])
def test_a_bad_login_does_not_tell_whether_the_account_exists(
    api: httpx2.Client, email: str
) -> None:
    response = api.post("/auth/login", json={"email": email, "password": "not-the-password"})
    assert_json_error(response, 401, "Invalid email or password")


@pytest.mark.parametrize(
    "body", [{"email": "no address", "password": "long enough"}, {"email": SMALL, "password": "x"}]
)
def test_a_login_is_validated(api: httpx2.Client, body: dict[str, str]) -> None:
    response = api.post("/auth/login", json=body)
    assert_json_error(response, 400, "Validation failed")
    assert response.json()["details"]


def test_a_refresh_token_works_once(api: httpx2.Client, seed_password: str) -> None:
    # A session of its own: the shared one's refresh token would be used up.
    first = api.post("/auth/login", json={"email": SMALL, "password": seed_password}).json()
    second = api.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200, second.text
    assert second.json()["refresh_token"] != first["refresh_token"]
    again = api.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert_json_error(again, 401, "Refresh token expired or revoked")
    unknown = api.post("/auth/refresh", json={"refresh_token": "unknown"})
    assert_json_error(unknown, 401, "Invalid refresh token")


def test_me_refuses_in_json(api: httpx2.Client) -> None:
    assert_json_error(api.get("/auth/me"), 401, "Missing authorization header")
    response = api.get("/auth/me", headers={"Authorization": "Bearer rubbish"})
    assert_json_error(response, 401)
    assert response.json()["error"].startswith("Invalid token: ")


# Lists


@pytest.mark.parametrize(
    "path", ["/buildings", "/units", "/owners", "/expenses", "/meetings", "/users"]
)
def test_a_list_refuses_in_plain_text_without_a_token(api: httpx2.Client, path: str) -> None:
    assert_text_error(api.get(path), 401, "Missing authorization header")


def test_a_forged_token_is_refused(api: httpx2.Client, auth: Headers) -> None:
    head, body, _ = auth["Authorization"].split(".")
    forged = {"Authorization": f"{head}.{body}.{'A' * 43}"}
    assert_text_error(api.get("/buildings", headers=forged), 401, "Invalid token: ")


@pytest.mark.parametrize(
    ("path", "least", "fields"),
    [
        ("/buildings", 5, {"id", "name", "address", "city", "total_units", "created_at"}),
        ("/units", 30, {"id", "building_id", "unit_number", "unit_type", "quota", "owner_id"}),
        ("/owners", 20, {"id", "first_name", "last_name", "email", "phone", "country"}),
        ("/expenses", 10, {"id", "building_id", "category", "amount", "payment_status"}),
        ("/meetings", 0, set()),
    ],
)
def test_a_list_holds_at_least_what_was_seeded(
    api: httpx2.Client, auth: Headers, path: str, least: int, fields: set[str]
) -> None:
    response = api.get(path, params={"per_page": 2}, headers=auth)
    assert response.status_code == 200, response.text
    page = response.json()["pagination"]
    assert page["total_items"] >= least
    assert page == {
        "current_page": 1,
        "per_page": 2,
        "total_items": page["total_items"],
        "total_pages": -(-page["total_items"] // 2),
        "has_next": page["total_items"] > 2,
        "has_previous": False,
    }
    data = response.json()["data"]
    assert len(data) == min(2, page["total_items"])
    assert all(fields <= item.keys() for item in data)


def test_a_tenant_sees_its_own_buildings_only(
    api: httpx2.Client, auth: Headers, seed_password: str
) -> None:
    token = session(api, LARGE, seed_password)["token"]
    others = {"Authorization": f"Bearer {token}"}
    mine, theirs = (
        {item["id"] for item in api.get("/buildings?per_page=100", headers=headers).json()["data"]}
        for headers in (auth, others)
    )
    assert mine and theirs and not mine & theirs


def test_pages_and_order(api: httpx2.Client, auth: Headers) -> None:
    query: dict[str, str | int] = {"sort_by": "email", "per_page": 10}
    pages = [
        api.get("/owners", params={**query, "page": page}, headers=auth).json() for page in (1, 2)
    ]
    assert pages[1]["pagination"]["has_previous"] is True
    ids = [item["id"] for page in pages for item in page["data"]]
    assert len(set(ids)) == 20
    turned = api.get("/owners", params={**query, "order": "desc"}, headers=auth).json()
    assert turned["data"][0]["email"] != pages[0]["data"][0]["email"]
    beyond = api.get("/owners", params={"page": 100_000}, headers=auth)
    assert (beyond.status_code, beyond.json()["data"]) == (200, [])


@pytest.mark.parametrize("query", ["page=0", "per_page=0", "per_page=101", "sort_by=password"])
def test_a_value_out_of_range_is_a_500(api: httpx2.Client, auth: Headers, query: str) -> None:
    assert_json_error(api.get(f"/buildings?{query}", headers=auth), 500)


@pytest.mark.parametrize("query", ["page=one", "per_page=1.5", "order=ASC"])
def test_a_value_of_another_type_is_a_400(api: httpx2.Client, auth: Headers, query: str) -> None:
    response = api.get(f"/buildings?{query}", headers=auth)
    assert_text_error(response, 400, "Query deserialize error: ")


@pytest.mark.parametrize("path", ["/users", "/organizations", "/stats/dashboard"])
def test_the_superadmins_lists_are_closed_to_others(
    api: httpx2.Client, auth: Headers, path: str
) -> None:
    response = api.get(path, headers=auth)
    assert_json_error(response, 403)
    assert response.json()["error"].startswith("Only SuperAdmin can access ")


# Single records


def test_a_record_by_id_needs_no_token(api: httpx2.Client, building: dict[str, Any]) -> None:
    response = api.get(f"/buildings/{building['id']}")
    assert response.status_code == 200
    assert response.json()["name"] == building["name"]


@pytest.mark.parametrize("path", ["/buildings", "/owners", "/expenses"])
def test_an_unknown_id_is_a_404(api: httpx2.Client, path: str) -> None:
    response = api.get(f"{path}/{NOBODY}")
    assert_json_error(response, 404)
    assert response.json()["error"].endswith(" not found")
    malformed = api.get(f"{path}/not-a-uuid")
    assert malformed.status_code == 404
    assert "json" not in malformed.headers.get("content-type", "")


def test_an_unknown_route_is_an_empty_404(api: httpx2.Client) -> None:
    response = api.get("/no-such-route")
    assert (response.status_code, response.content) == (404, b"")


# Writes


def test_a_building_is_created(building: dict[str, Any]) -> None:
    assert uuid.UUID(building["id"])
    assert (building["total_units"], building["construction_year"]) == (4, 1999)
    assert "organization_id" not in building


def test_the_token_is_looked_at_before_the_body(api: httpx2.Client) -> None:
    response = api.post("/buildings", content=b"{broken")
    assert_text_error(response, 401, "Missing authorization header")


def test_the_body_is_read_before_it_is_validated(api: httpx2.Client, auth: Headers) -> None:
    untyped = api.post("/buildings", content=b"{}", headers=auth)
    assert_text_error(untyped, 400, "Content type error")
    broken = {**auth, "Content-Type": "application/json"}
    response = api.post("/buildings", content=b"{broken", headers=broken)
    assert_text_error(response, 400, "Json deserialize error: ")
    # Invalid as well, and yet it is the missing field that is told.
    incomplete = building_body(name="")
    del incomplete["organization_id"]
    response = api.post("/buildings", json=incomplete, headers=auth)
    assert_text_error(response, 400, "Json deserialize error: missing field `organization_id`")


@pytest.mark.parametrize("change", [{"name": ""}, {"country": ""}, {"total_units": 0}])
def test_a_building_is_validated(
    api: httpx2.Client, auth: Headers, change: dict[str, object]
) -> None:
    response = api.post("/buildings", json=building_body(**change), headers=auth)
    assert_json_error(response, 400, "Validation failed")
    assert next(iter(change)) in response.json()["details"]


def test_the_database_speaks_last(api: httpx2.Client, auth: Headers) -> None:
    response = api.post("/buildings", json=building_body(name="x" * 300), headers=auth)
    assert_json_error(response, 400)
    assert response.json()["error"].startswith("Database error: ")


def test_a_unit(api: httpx2.Client, auth: Headers, building: dict[str, Any]) -> None:
    body = unit_body(building["id"], extra_field="is ignored")
    response = api.post("/units", json=body, headers=auth)
    assert response.status_code == 201, response.text
    unit = response.json()
    assert (unit["unit_number"], unit["unit_type"]) == (body["unit_number"], "Parking")
    assert (unit["surface_area"], unit["owner_id"]) == (12.5, None)
    twice = api.post("/units", json=body, headers=auth)
    assert_json_error(twice, 400)
    assert "Database error" in twice.json()["error"]


@pytest.mark.parametrize("kind", ["parking", "studio"])
def test_a_unit_type_is_written_in_pascal_case(
    api: httpx2.Client, auth: Headers, kind: str
) -> None:
    response = api.post("/units", json=unit_body(NOBODY, unit_type=kind), headers=auth)
    assert_text_error(response, 400, f"Json deserialize error: unknown variant `{kind}`")


def test_a_unit_is_validated(api: httpx2.Client, auth: Headers) -> None:
    response = api.post("/units", json=unit_body(NOBODY, quota=1000.5), headers=auth)
    assert_json_error(response, 400, "Validation failed")
    homeless = api.post("/units", json=unit_body(NOBODY), headers=auth)
    assert_json_error(homeless, 400)
    assert "Database error" in homeless.json()["error"]


def test_an_owner(api: httpx2.Client, auth: Headers) -> None:
    body = owner_body(phone="+32 470 00 00 00")
    response = api.post("/owners", json=body, headers=auth)
    assert response.status_code == 201, response.text
    owner = response.json()
    assert (owner["email"], owner["phone"]) == (body["email"], body["phone"])
    assert api.get(f"/owners/{owner['id']}").json() == owner
    twice = api.post("/owners", json=body, headers=auth)
    assert_json_error(twice, 400, "Email already exists")
    nameless = api.post("/owners", json=owner_body(email="no address"), headers=auth)
    assert_json_error(nameless, 400, "Validation failed")


def test_an_expense(api: httpx2.Client, auth: Headers, building: dict[str, Any]) -> None:
    response = api.post("/expenses", json=expense_body(building["id"]), headers=auth)
    assert response.status_code == 201, response.text
    expense = response.json()
    assert (expense["category"], expense["payment_status"]) == ("Maintenance", "Pending")
    assert expense["amount"] == 150.5
    assert expense["expense_date"].startswith("2025-01-15T00:00:00")
    assert api.get(f"/expenses/{expense['id']}").json()["id"] == expense["id"]


def test_an_expense_is_validated(
    api: httpx2.Client, auth: Headers, building: dict[str, Any]
) -> None:
    free = api.post("/expenses", json=expense_body(building["id"], amount=0), headers=auth)
    assert_json_error(free, 400, "Validation failed")
    day = expense_body(building["id"], expense_date="2025-01-15")
    assert_json_error(api.post("/expenses", json=day, headers=auth), 400, "Invalid date format")
    lower = expense_body(building["id"], category="maintenance")
    response = api.post("/expenses", json=lower, headers=auth)
    assert_text_error(response, 400, "Json deserialize error: unknown variant")


# Documents


def upload(
    api: httpx2.Client, headers: Headers, building_id: str, content: bytes, **changes: str
) -> httpx2.Response:
    fields = {
        "building_id": building_id,
        "document_type": "Invoice",
        "title": "Contract test",
        "uploaded_by": NOBODY,
        **changes,
    }
    files = {"file": ("../facture.pdf", content, "application/pdf")}
    return api.post("/documents", data=fields, files=files, headers=headers)


def test_a_document_comes_back_as_it_was_sent(
    api: httpx2.Client, auth: Headers, building: dict[str, Any]
) -> None:
    content = uuid.uuid4().bytes * 100_000
    response = upload(api, auth, building["id"], content, description="Toit")
    assert response.status_code == 201, response.text
    document = response.json()
    assert document["document_type"] == "Invoice"
    assert (document["file_size"], document["mime_type"]) == (len(content), "application/pdf")
    assert document["file_path"].startswith(f"{building['id']}/")
    assert "/.." not in document["file_path"].partition("/")[2]
    assert api.get(f"/documents/{document['id']}").json() == document
    download = api.get(f"/documents/{document['id']}/download")
    assert download.content == content
    assert download.headers["content-type"] == "application/pdf"
    assert "attachment" in download.headers["content-disposition"]
    assert api.delete(f"/documents/{document['id']}").status_code == 401
    assert api.delete(f"/documents/{document['id']}", headers=auth).status_code == 204
    gone = api.get(f"/documents/{document['id']}/download")
    assert (gone.status_code, gone.json()) == (404, "Document not found")


def test_an_upload_is_checked(api: httpx2.Client, auth: Headers, building: dict[str, Any]) -> None:
    assert_text_error(upload(api, {}, building["id"], b"x"), 401, "Missing authorization")
    unknown = upload(api, auth, building["id"], b"x", document_type="Poem")
    assert (unknown.status_code, unknown.json()) == (400, "Invalid document_type")
    nowhere = upload(api, auth, "home", b"x")
    assert (nowhere.status_code, nowhere.json()) == (400, "Invalid building_id")
    empty = upload(api, auth, building["id"], b"")
    assert (empty.status_code, empty.json()) == (500, "File content cannot be empty")
    alone = api.post("/documents", files={"file": ("a", b"x")}, headers=auth)
    assert alone.status_code == 400, alone.text
    homeless = upload(api, auth, NOBODY, b"x")
    assert homeless.status_code == 500
    assert "Database error" in homeless.json()


# What the proxy closes


@pytest.mark.parametrize(
    "path",
    [
        "/auth/register",
        "/seed/demo",
        "/seed/realistic",
        "/seed/clear",
        "/seed/%63lear",
        "/auth//register",
        "/auth/%72egister",
    ],
)
def test_a_dangerous_route_is_closed(api: httpx2.Client, path: str) -> None:
    # Neither a validation error nor a missing token: it does not get as far as the application.
    response = api.post(path, json={})
    assert response.status_code == 404, response.text


def test_metrics_are_closed(api: httpx2.Client) -> None:
    assert api.get(api.base_url.copy_with(path="/metrics")).status_code == 404


def test_the_superadmins_public_password_is_of_no_use(api: httpx2.Client) -> None:
    body = {"email": "admin@koprogo.com", "password": "admin123"}
    response = api.post("/auth/login", json=body)
    assert response.status_code in {401, 403, 404}, response.status_code
    assert '"token"' not in response.text


def test_a_meeting_is_there_for_who_is_signed_in_alone(
    api: httpx2.Client, auth: Headers, building: dict[str, Any]
) -> None:
    """The application checks no token for these; the proxy has it asked."""
    body = {
        "organization_id": NOBODY,
        "building_id": building["id"],
        "meeting_type": "Ordinary",
        "title": "Contract",
        "description": None,
        "scheduled_date": "2030-01-01T18:00:00Z",
        "location": "Namur",
    }
    made = api.post("/meetings", json=body, headers=auth)
    assert made.status_code == 201, made.text
    path = f"/meetings/{made.json()['id']}"
    for stranger in ({}, {"Authorization": "Bearer nonsense"}):
        assert api.get(path, headers=stranger).status_code == 401
        assert api.delete(path, headers=stranger).status_code == 401
    assert api.get(path, headers=auth).json()["title"] == "Contract"
    assert api.delete(path, headers=auth).status_code == 204
    assert api.get(path, headers=auth).status_code == 404
