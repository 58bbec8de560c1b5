"""Which indexes a benchmark drops, and what it reads out of a plan."""

from __future__ import annotations

import json

from bench.indexes import columns, migration, parse_plan, same_service


def defined(name: str, table: str, listed: str) -> str:
    return f"CREATE INDEX {name} ON public.{table} USING btree ({listed})"


DEFINITIONS = {
    "idx_units_building_id": defined("idx_units_building_id", "units", "building_id"),
    "idx_units_building": defined("idx_units_building", "units", "building_id"),
    "idx_units_org_created": defined(
        "idx_units_org_created", "units", "organization_id, created_at DESC"
    ),
    "idx_units_org_number": defined(
        "idx_units_org_number", "units", "organization_id, unit_number"
    ),
    "idx_units_unit_number": defined("idx_units_unit_number", "units", "unit_number"),
    "idx_owners_org_created": defined(
        "idx_owners_org_created", "owners", "organization_id, created_at DESC"
    ),
}


def test_the_migration_names_its_indexes_of_the_lists() -> None:
    found = migration()
    assert {"idx_units_org_number", "idx_expenses_org_date", "idx_buildings_org_name"} <= found
    assert not any("refresh" in name or "meetings" in name for name in found)
    assert len(found) == 11


def test_what_would_serve_in_its_place_goes_as_well() -> None:
    dropped = same_service(DEFINITIONS, {"idx_units_building_id", "idx_units_org_number", "gone"})
    assert dropped == {
        "idx_units_building_id", "idx_units_building", "idx_units_org_number",
        "idx_units_org_created",
    }  # fmt: skip


def test_columns_of_a_definition() -> None:
    assert columns(DEFINITIONS["idx_units_org_created"]) == ("organization_id", "created_at")


def test_a_plan_in_short() -> None:
    scan = {
        "Node Type": "Index Scan", "Relation Name": "units", "Index Name": "idx_units_unit_number",
        "Actual Rows": 20.0, "Actual Loops": 1, "Rows Removed by Filter": 5,
    }  # fmt: skip
    top = {
        "Node Type": "Limit", "Actual Rows": 20, "Actual Loops": 1, "Shared Hit Blocks": 7,
        "Shared Read Blocks": 2, "Plans": [scan],
    }  # fmt: skip
    plan = parse_plan(json.dumps([{"Plan": top, "Planning Time": 0.25, "Execution Time": 0.5}]))
    assert plan.nodes == ("Limit", "Index Scan units by idx_units_unit_number")
    assert plan.indexes == ("idx_units_unit_number",)
    assert (plan.rows, plan.blocks, plan.milliseconds) == (25, 9, 0.75)
    assert str(plan).startswith("Limit < Index Scan units by idx_units_unit_number: 0.75 ms, 25")
