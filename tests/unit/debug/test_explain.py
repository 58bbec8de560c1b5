"""The plan of a list: what is explained, for whom, and what its steps mean in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from koprogo_deploy.debug import explain
from koprogo_deploy.debug.explain import About, Page, Query, Seen

BIG = About(rows=19_000, pages=330, analyzed="2026-01-01", indexes={"units_pkey": ("id",)})
SMALL = About(rows=190, pages=5, analyzed="2026-01-01")

# --- what the application asks -------------------------------------------------------------------


def test_the_contracts_lists_are_the_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are KoproGo's at its revision: table, columns, sorting, and the forgotten filters."""
    text = (explain_root() / "lists.py").read_text(encoding="utf-8")
    for name, wanted in explain.LISTS.items():
        if name == "users":
            continue
        block = text[text.index(f'    "{name}",') :]
        block = block[: block.index("# fmt: skip") if "# fmt: skip" in block else None]
        block = block[: block.index("\n)")]
        for column in (*wanted.columns, *wanted.sorts):
            assert f'"{column}"' in block, (name, column)
        assert ("leaks=True" in block) is not wanted.filtered, name
        if wanted.fixed:
            assert f'fixed_order="{wanted.fixed}"' in block


def explain_root() -> Any:
    from tests.project import ROOT

    return ROOT / "sandbox" / "images" / "backend" / "koprogo_standin"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"endpoint": "unit"}, "there are buildings, units"),
        ({"endpoint": "units", "page": 0}, "1 or more"),
        ({"endpoint": "units", "per_page": 101}, "1 to 100"),
        ({"endpoint": "units", "sort": "id"}, "it can sort by unit_number"),
        ({"endpoint": "meetings", "sort": "title"}, "its order is fixed"),
    ],
)
def test_what_the_application_refuses_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Page(**arguments)


def test_a_list_that_koprogo_filters_is_the_tenants() -> None:
    page = Page("buildings", sort="name", descending=True)
    assert explain.page_query(page, []) == Query(
        "SELECT id, name, address, city, postal_code, country, total_units, construction_year, "
        "created_at, updated_at FROM buildings WHERE organization_id = $1 ORDER BY name DESC "
        "LIMIT $2 OFFSET $3",
        ("org", "limit", "offset"),
        filtered=True,
    )
    count = explain.count_query(page, [])
    assert count is not None
    assert count.text == "SELECT count(*) FROM buildings WHERE organization_id = $1"


def test_a_list_that_koprogo_forgot_to_filter_is_everybodys() -> None:
    query = explain.page_query(Page("units"), [])
    assert query.text.endswith("FROM units ORDER BY unit_number ASC LIMIT $1 OFFSET $2")
    assert (query.filtered, query.arguments) == (False, ("limit", "offset"))


def test_users_have_no_pages() -> None:
    assert explain.count_query(Page("users"), []) is None
    assert explain.page_query(Page("users"), []).text.endswith(
        "FROM users ORDER BY created_at DESC"
    )


def test_what_the_application_was_seen_asking_goes_before_the_contract() -> None:
    mended = (
        "SELECT id, unit_type::text AS unit_type\n FROM units WHERE organization_id = $1\n"
        " ORDER BY unit_number ASC LIMIT $3 OFFSET $2"
    )
    seen = [
        Seen("SELECT u.id FROM units u JOIN buildings b ON b.id = u.building_id", 999),
        Seen("SELECT id FROM units ORDER BY floor ASC LIMIT $1 OFFSET $2", 99),
        Seen(mended, 9),
    ]
    query = explain.page_query(Page("units"), seen)
    assert query.calls == 9
    assert query.arguments == ("org", "offset", "limit")
    assert query.filtered


def test_parameters_are_numbered_anew_where_constants_stood_between() -> None:
    seen = [Seen("SELECT id FROM units ORDER BY unit_number LIMIT $2 OFFSET $4", 5)]
    query = explain.page_query(Page("units"), seen)
    assert query.text == "SELECT id FROM units ORDER BY unit_number LIMIT $1 OFFSET $2"


def test_the_superadmins_unfiltered_query_is_not_taken_for_a_tenants() -> None:
    seen = [Seen("SELECT count(*) FROM buildings", 99)]
    count = explain.count_query(Page("buildings"), seen)
    assert count is not None
    assert count.calls is None
    assert count.filtered


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM units; DELETE FROM units",
        "SELECT count(*) FROM units WHERE organization_id = $1 OR true",
        "SELECT $1 FROM units ORDER BY unit_number ASC LIMIT $2 OFFSET $3",
        "DELETE FROM units",
    ],
)
def test_nothing_else_that_was_seen_is_ever_run(text: str) -> None:
    page = Page("units")
    assert explain.page_query(page, [Seen(text, 1)]).calls is None
    assert getattr(explain.count_query(page, [Seen(text, 1)]), "calls", 0) is None


def test_a_query_is_prepared_and_executed_as_the_application_does() -> None:
    page = Page("buildings", page=3, per_page=50)
    count = explain.count_query(page, [])
    assert count is not None
    sql = explain.explain_sql([explain.page_query(page, []), count], "0-0", page)
    assert "PREPARE debug_0 AS SELECT id, name" in sql
    assert "EXECUTE debug_0('0-0', 50, 100);" in sql
    assert "EXECUTE debug_1('0-0');" in sql
    assert sql.count("EXPLAIN (ANALYZE, BUFFERS, SETTINGS, FORMAT JSON)") == 2


# --- whose list ----------------------------------------------------------------------------------

ORGANIZATIONS = [
    explain.Organization("2", "Grande Résidence NV", "large-2", 100),
    explain.Organization("1", "Petite Copropriété SPRL", "small-0", 30),
]


@pytest.mark.parametrize(
    ("asked", "slug"),
    [
        (None, "large-2"),
        ("small-0", "small-0"),
        ("petite copropriété sprl", "small-0"),
        ("2", "large-2"),
    ],
)
def test_an_organisation_is_chosen_by_name_or_slug_else_the_largest(
    asked: str | None, slug: str
) -> None:
    assert explain.choose(ORGANIZATIONS, asked).slug == slug


def test_an_unknown_organisation_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r'"medium".*large-2, small-0'):
        explain.choose(ORGANIZATIONS, "medium")
    with pytest.raises(ValueError, match="no organisation"):
        explain.choose([], None)


# --- reading a plan ------------------------------------------------------------------------------


def node(kind: str, *plans: dict[str, Any], **more: Any) -> dict[str, Any]:
    values = {"Plan Rows": 20, "Actual Rows": 20, "Actual Loops": 1, "Actual Total Time": 1.5}
    return {"Node Type": kind, "Plans": list(plans), **values, **more}


def plan(
    top: dict[str, Any], page: Page | None = None, table: About = BIG, filtered: bool = True
) -> explain.Plan:
    whole = {"Plan": top, "Planning Time": 0.2, "Execution Time": 2.0, "Settings": {"jit": "off"}}
    return explain.parse_plan([whole], page or Page("units"), table, filtered)


def scan(**more: Any) -> dict[str, Any]:
    return node("Seq Scan", **{"Relation Name": "units", **more})


def notes(found: explain.Plan) -> str:
    return " | ".join(note for step in found.root.walk() for note in step.notes)


def test_rows_and_times_are_of_all_rounds() -> None:
    step = plan(node("Index Scan", **{"Actual Loops": 50, "Actual Rows": 2, "Plan Rows": 2})).root
    assert (step.rows, step.estimated, step.total_ms, step.off) == (100, 100, 75.0, 1.0)


@pytest.mark.parametrize(
    ("estimated", "actual", "off"), [(1, 190, 190), (5000, 5, 1000), (20, 21, 1.05), (1, 0, 1)]
)
def test_a_wrong_estimate_is_seen_both_ways(estimated: int, actual: int, off: float) -> None:
    step = plan(node("Index Scan", **{"Plan Rows": estimated, "Actual Rows": actual})).root
    assert step.off == pytest.approx(off)


def test_what_a_limit_stops_early_is_no_wrong_estimate() -> None:
    wide = node("Index Scan", **{"Plan Rows": 19_000, "Actual Rows": 20})
    assert plan(node("Limit", wide)).root.steps[0].off == 1.0
    # A sort reads all there is, so below it the figure is true again.
    below = plan(node("Limit", node("Sort", wide))).root.steps[0].steps[0]
    assert below.off == 950
    # More rows than estimated are wrong in any case.
    more = node("Index Scan", **{"Plan Rows": 1, "Actual Rows": 20})
    assert plan(node("Limit", more)).root.steps[0].off == 20


@pytest.mark.parametrize(
    ("more", "table", "said"),
    [
        ({}, SMALL, "small (5 pages of 8 kB)"),
        ({}, BIG, "the query has no filter"),
        ({"Filter": "x", "Rows Removed by Filter": 5}, BIG, "most of units's rows are wanted"),
        (
            {"Filter": "x", "Rows Removed by Filter": 18_000},
            BIG,
            "an index on units (organization_id, unit_number) would help",
        ),
        (
            {"Filter": "x", "Rows Removed by Filter": 18_000},
            About(19_000, 330, None, {"idx_org": ("organization_id", "created_at")}),
            "idx_org could serve and was thought dearer",
        ),
    ],
)
def test_a_sequential_scan_is_explained(more: dict[str, Any], table: About, said: str) -> None:
    assert said in notes(plan(scan(**more), table=table))


def test_sorting_much_for_a_page_asks_for_an_index_in_that_order() -> None:
    sort = node("Limit", node("Sort", scan(**{"Actual Rows": 19_000})))
    everybody = notes(plan(sort, filtered=False))
    assert "19,000 rows sorted for a page of 20" in everybody
    assert "an index on units (unit_number) would" in everybody
    assert "units (organization_id, unit_number) would" in notes(plan(sort, filtered=True))
    few = node("Limit", node("Sort", scan(**{"Actual Rows": 60})))
    assert "sorted" not in notes(plan(few))


def test_a_deep_page_throws_away_what_comes_before_it() -> None:
    deep = node("Limit", node("Index Scan", **{"Actual Rows": 5020}), **{"Actual Rows": 20})
    assert "5,000 rows before this page are made and thrown away" in notes(plan(deep))


def test_a_sort_on_disk_and_a_filter_without_index_are_told() -> None:
    disk = node("Sort", **{"Sort Space Type": "Disk", "Sort Space Used": 9000})
    assert "work_mem is too small" in notes(plan(disk))
    waste = node("Index Scan", **{"Rows Removed by Filter": 900, "Relation Name": "owners"})
    assert "900 rows read and thrown away" in notes(plan(waste))


def test_a_steps_texts_are_not_shown() -> None:
    step = plan(scan(**{"Filter": "(email = 'anna@example.be'::text)"})).root
    assert step.details == ("filter: (email = '…'::text)",)
