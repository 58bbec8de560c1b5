"""Looking and deciding: when to seed, when to leave be, when to refuse."""

from __future__ import annotations

import json

import pytest

from koprogo_deploy.seed import SeedError, decide, parse_state, seed_uuid

HASH = "$2b$12$" + "a" * 53
ZERO = {"organizations": 0, "users": 0, "buildings": 0, "units": 0, "owners": 0, "expenses": 0}


def answer(**changes: object) -> str:
    return json.dumps(
        {
            "schema": True,
            "counts": ZERO,
            "organization_ids": [],
            "password_told": None,
            "total_organizations": 0,
            "taken_slugs": [],
            "taken_logins": [],
        }
        | changes
    )


def organizations(number: int, scale: int, count: int) -> list[str]:
    return [str(seed_uuid("organization", number, scale, index)) for index in range(count)]


def test_parse_reads_everything() -> None:
    ids = organizations(42, 1, 3)
    state = parse_state(
        answer(
            counts=ZERO | {"organizations": 3, "units": 190},
            organization_ids=ids,
            password_told=HASH,
            total_organizations=5,
            taken_slugs=["small-9"],
            taken_logins=["admin@small-9.example"],
        )
    )
    assert state.schema
    assert state.counts["units"] == 190
    assert [str(identifier) for identifier in state.organization_ids] == ids
    assert state.password_told == HASH
    assert state.total_organizations == 5
    assert state.taken_slugs == ("small-9",)
    assert state.taken_logins == ("admin@small-9.example",)
    assert HASH not in repr(state)


def test_parse_without_schema() -> None:
    state = parse_state(' {"schema": false}\n')
    assert not state.schema
    assert state.counts == ZERO
    assert decide(state, 42, 1).action == "refuse"
    assert "Deploy a release first" in decide(state, 42, 1).message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "psql: error: connection refused",
        "[]",
        "null",
        "{}",
        '{"schema": 1}',
        '{"schema": true}',
        answer(counts=None),
        answer(counts={"organizations": 1}),
        answer(counts=ZERO | {"units": -1}),
        answer(counts=ZERO | {"units": True}),
        answer(organization_ids="none"),
        answer(organization_ids=[1]),
        answer(organization_ids=["00000000-0000-0000-0000-000000000001"]),
        answer(password_told=7),
        answer(total_organizations="3"),
        answer(taken_slugs=None),
    ],
)
def test_parse_says_what_is_wrong_and_quotes_nothing(text: str) -> None:
    with pytest.raises(SeedError, match="the database's answer about the seed"):
        parse_state(text)


def test_garbage_with_a_hash_in_it_is_not_repeated() -> None:
    with pytest.raises(SeedError) as refused:
        parse_state(answer(password_told=HASH) + "trailing")
    assert HASH not in str(refused.value)


def test_an_empty_database_is_seeded() -> None:
    assert decide(parse_state(answer()), 42, 1).action == "seed"


def test_a_database_with_real_tenants_is_seeded_beside_them() -> None:
    assert decide(parse_state(answer(total_organizations=8)), 42, 1).action == "seed"


@pytest.mark.parametrize("there", [1, 2, 3])
def test_the_same_seed_is_left_as_people_left_it(there: int) -> None:
    state = parse_state(answer(organization_ids=organizations(42, 1, there)))
    decision = decide(state, 42, 1)
    assert decision.action == "nothing"
    assert f"{there} of 3" in decision.message


@pytest.mark.parametrize(("number", "scale"), [(43, 1), (42, 2), (7, 10)])
def test_another_seed_is_refused_and_named(number: int, scale: int) -> None:
    state = parse_state(answer(organization_ids=organizations(42, 1, 3)))
    decision = decide(state, number, scale)
    assert decision.action == "refuse"
    assert "number 42, scale 1" in decision.what
    assert f"number {number}, scale {scale}" in decision.what
    assert "koprogo seed clear <environment>" in decision.fix
    assert decision.why


def test_two_seeds_at_once_are_refused() -> None:
    ids = organizations(42, 1, 3) + organizations(43, 1, 3)
    assert decide(parse_state(answer(organization_ids=ids)), 42, 1).action == "refuse"


@pytest.mark.parametrize(
    "taken", [{"taken_slugs": ["medium-1"]}, {"taken_logins": ["admin@large.be"]}]
)
def test_a_slug_or_login_that_is_taken_is_refused_and_named(taken: dict[str, list[str]]) -> None:
    decision = decide(parse_state(answer(**taken)), 42, 1)
    assert decision.action == "refuse"
    assert next(iter(taken.values()))[0] in decision.message
    assert "Rename or remove it" in decision.fix


def test_a_slug_that_only_a_larger_scale_wants_is_no_obstacle() -> None:
    state = parse_state(answer(taken_slugs=["small-3"], taken_logins=["admin@small-3.example"]))
    assert decide(state, 42, 1).action == "seed"
    assert decide(state, 42, 2).action == "refuse"


def test_what_is_taken_matters_only_to_a_seed_that_would_be_inserted() -> None:
    state = parse_state(answer(organization_ids=organizations(42, 1, 2), taken_slugs=["large-2"]))
    assert decide(state, 42, 1).action == "nothing"


def test_out_of_range_is_refused() -> None:
    with pytest.raises(SeedError):
        decide(parse_state(answer()), 42, 0)
