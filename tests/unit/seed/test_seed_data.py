"""The data: its counts, its rules, and that a Belgian property manager would believe it."""

from __future__ import annotations

import datetime
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from koprogo_deploy.seed import (
    Building,
    Category,
    Dataset,
    Expense,
    Owner,
    PaymentStatus,
    SeedError,
    UnitType,
    generate,
    insert_sql,
    is_seeded,
    summary,
)
from koprogo_deploy.seed.charges import CHARGES, REFERENCE_LOTS, period_words
from koprogo_deploy.seed.houses import thousandths
from koprogo_deploy.seed.places import BRUSSELS_FR, BRUSSELS_NL, COMMUNES, Commune

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

EMAIL = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?@[a-z0-9-]+(\.[a-z0-9-]+)+")
NUMBERS = (0, 1, 42, 65535)


def all_rows(dataset: Dataset) -> list[Any]:
    return [
        *dataset.organizations,
        *dataset.users,
        *dataset.buildings,
        *dataset.owners,
        *dataset.units,
        *dataset.expenses,
    ]


def communes_of(row: Building | Owner) -> list[Commune]:
    """The communes with this row's city and postcode (two where both languages share a name)."""
    return [c for c in COMMUNES if (c.name, c.postal_code) == (row.city, row.postal_code)]


@pytest.mark.parametrize("number", NUMBERS)
def test_scale_one_has_the_counts_of_koprogos_own_seed(
    number: int, bcrypt_hash: str, today: datetime.date
) -> None:
    counts = summary(generate(number, 1, bcrypt_hash, today))
    expenses = counts.pop("expenses")
    assert counts == {
        "organizations": 3, "users": 3, "buildings": 23, "units": 190, "owners": 126,
    }  # fmt: skip
    assert 46 <= expenses <= 69


def test_the_three_organisations(dataset: Dataset) -> None:
    rows = [
        (o.name, o.slug, o.subscription_plan, o.max_buildings, o.max_users)
        for o in dataset.organizations
    ]
    assert rows == [
        ("Petite Copropriété SPRL", "small-0", "starter", 5, 10),
        ("Copropriété Moyenne SA", "medium-1", "professional", 8, 20),
        ("Grande Résidence NV", "large-2", "enterprise", 10, 50),
    ]


def test_each_organisation_has_its_share(dataset: Dataset) -> None:
    def per_organization(rows: Sequence[Any]) -> list[int]:
        counts = Counter(row.organization_id for row in rows)
        return [counts[organization.id] for organization in dataset.organizations]

    assert per_organization(dataset.buildings) == [5, 8, 10]
    assert per_organization(dataset.units) == [30, 60, 100]
    assert per_organization(dataset.owners) == [20, 40, 66]
    assert per_organization(dataset.users) == [1, 1, 1]


def test_logins(dataset: Dataset, bcrypt_hash: str) -> None:
    emails = [user.email for user in dataset.users]
    assert emails == ["admin@small.be", "admin@medium.be", "admin@large.be"]
    assert {user.role for user in dataset.users} == {"syndic"}
    assert {user.password_hash for user in dataset.users} == {bcrypt_hash}
    assert bcrypt_hash not in repr(dataset)


@pytest.mark.parametrize("number", NUMBERS)
def test_quotas_of_a_building_sum_to_a_thousand(
    number: int, bcrypt_hash: str, today: datetime.date
) -> None:
    dataset = generate(number, 1, bcrypt_hash, today)
    sums: Counter[object] = Counter()
    for unit in dataset.units:
        assert 0 < unit.quota <= 1000
        sums[unit.building_id] += unit.quota
    assert sums == {building.id: 1000 for building in dataset.buildings}


def test_thousandths_give_even_the_smallest_one() -> None:
    assert thousandths([1.0, 1e9]) == [1, 999]
    assert thousandths([5.0]) == [1000]
    assert sum(thousandths([1.0] * 7)) == 1000
    assert thousandths([1.0] * 3) == [334, 333, 333]


def test_total_units_is_the_real_number(dataset: Dataset) -> None:
    real = Counter(unit.building_id for unit in dataset.units)
    assert real == {building.id: building.total_units for building in dataset.buildings}


def test_surfaces_fit_the_type(tenfold: Dataset) -> None:
    limits = {
        UnitType.APARTMENT: (45, 150),
        UnitType.PARKING: (12, 18),
        UnitType.CELLAR: (3, 10),
        UnitType.COMMERCIAL: (40, 220),
    }
    assert {unit.unit_type for unit in tenfold.units} == set(limits)
    for unit in tenfold.units:
        low, high = limits[unit.unit_type]
        assert low <= unit.surface_area <= high
        assert isinstance(unit.surface_area, float)


def test_unit_numbers_are_floor_and_box_and_unique_in_a_building(tenfold: Dataset) -> None:
    numbers = [(unit.building_id, unit.unit_number) for unit in tenfold.units]
    assert len(set(numbers)) == len(numbers)
    for unit in tenfold.units:
        assert re.fullmatch(r"-?\d+\.\d+", unit.unit_number)
        assert int(unit.unit_number.split(".")[0]) == unit.floor
        below = unit.unit_type in (UnitType.PARKING, UnitType.CELLAR)
        assert (unit.floor < 0) == below


@pytest.mark.parametrize("number", NUMBERS)
def test_most_units_have_an_owner_and_every_owner_a_unit(
    number: int, bcrypt_hash: str, today: datetime.date
) -> None:
    dataset = generate(number, 1, bcrypt_hash, today)
    organization_of = {owner.id: owner.organization_id for owner in dataset.owners}
    owned = [unit for unit in dataset.units if unit.owner_id is not None]
    assert {unit.owner_id for unit in owned} == set(organization_of)
    for unit in owned:
        assert unit.owner_id is not None
        assert organization_of[unit.owner_id] == unit.organization_id
    for organization in dataset.organizations:
        all_ = sum(unit.organization_id == organization.id for unit in dataset.units)
        some = sum(unit.organization_id == organization.id for unit in owned)
        assert 0.66 <= some / all_ <= 0.90


def test_what_must_be_unique_is_unique(tenfold: Dataset) -> None:
    for values in (
        [row.id for row in all_rows(tenfold)],
        [organization.slug for organization in tenfold.organizations],
        [organization.name for organization in tenfold.organizations],
        [user.email for user in tenfold.users] + [owner.email for owner in tenfold.owners],
        [expense.invoice_number for expense in tenfold.expenses],
    ):
        assert len(set(values)) == len(values)
    places = [(b.organization_id, b.name) for b in tenfold.buildings]
    assert len(set(places)) == len(places)


def test_references_hold_and_stay_within_an_organisation(tenfold: Dataset) -> None:
    organizations = {organization.id for organization in tenfold.organizations}
    building_of = {building.id: building.organization_id for building in tenfold.buildings}
    parents: Sequence[Any] = (*tenfold.users, *tenfold.buildings, *tenfold.owners)
    assert all(row.organization_id in organizations for row in parents)
    children: Sequence[Any] = (*tenfold.units, *tenfold.expenses)
    assert all(building_of[row.building_id] == row.organization_id for row in children)


def test_no_mail_and_no_call_can_reach_anyone(tenfold: Dataset) -> None:
    logins = {"admin@small.be", "admin@medium.be", "admin@large.be"}
    emails = {o.email for o in tenfold.owners} | {u.email for u in tenfold.users}
    emails |= {o.contact_email for o in tenfold.organizations}
    for email in emails:
        assert EMAIL.fullmatch(email) and email.isascii()
        assert email.endswith(".example") or email in logins
    phones = [o.phone for o in tenfold.owners if o.phone]
    phones += [o.contact_phone for o in tenfold.organizations]
    for phone in phones:
        assert len(phone) <= 20
        assert re.fullmatch(r"\+32 (45[23479]|46[24]) \d\d \d\d \d\d", phone)
    assert len({o.phone for o in tenfold.owners}) > 1000


def test_places_are_real_and_speak_their_language(tenfold: Dataset) -> None:
    for building in tenfold.buildings:
        street = building.address.rsplit(" ", 1)[0]
        assert any(street in c.streets for c in communes_of(building))
        words = ("Résidence", "Clos", "Le ", "Les ")
        french = building.name.startswith(words)
        assert any((c.language == "fr") == french for c in communes_of(building))
        assert 1900 <= building.construction_year <= 2025
    for owner in tenfold.owners:
        assert communes_of(owner)


def test_the_nineteen_communes_of_brussels() -> None:
    for communes in (BRUSSELS_FR, BRUSSELS_NL):
        assert len(communes) == 19
        assert all(commune.in_brussels for commune in communes)
    assert [c.postal_code for c in BRUSSELS_FR] == [c.postal_code for c in BRUSSELS_NL]
    assert not any(c.in_brussels for c in COMMUNES if c not in BRUSSELS_FR + BRUSSELS_NL)


def test_every_commune_is_written_once_and_has_streets() -> None:
    keys = [(c.name, c.postal_code, c.language) for c in COMMUNES]
    assert len(set(keys)) == len(keys)
    for commune in COMMUNES:
        assert re.fullmatch(r"[1-9]\d{3}", commune.postal_code)
        assert len(commune.streets) >= 2
        assert all(street == street.strip() and street for street in commune.streets)


def test_an_expense_is_one_of_the_charges_of_its_category(tenfold: Dataset) -> None:
    buildings = {building.id: building for building in tenfold.buildings}
    organizations = {organization.id: organization for organization in tenfold.organizations}
    for expense in tenfold.expenses:
        building = buildings[expense.building_id]
        words = {
            language: period_words(expense.expense_date.year, expense.expense_date.month, language)
            for language in ("fr", "nl")
        }
        (charge,) = {
            charge
            for charge in CHARGES
            if expense.description
            in (charge.french.format(**words["fr"]), charge.dutch.format(**words["nl"]))
        }
        assert charge.category is expense.category
        factor = building.total_units / REFERENCE_LOTS if charge.per_lot else 1.0
        assert charge.low * factor - 0.01 <= expense.amount <= charge.high * factor + 0.01
        assert "{" not in expense.description + expense.supplier
        if "{syndic}" in charge.suppliers_fr:
            assert expense.supplier == organizations[expense.organization_id].name


def test_works_are_dear_and_rare(tenfold: Dataset) -> None:
    works = [e.amount for e in tenfold.expenses if e.category is Category.WORKS]
    others = [e.amount for e in tenfold.expenses if e.category is not Category.WORKS]
    assert min(works) >= 2500 and max(others) < 4000
    assert 0.01 < len(works) / len(tenfold.expenses) < 0.10
    assert {e.category for e in tenfold.expenses} == set(Category)


def test_two_or_three_different_expenses_a_building(tenfold: Dataset) -> None:
    texts = defaultdict(list)
    for expense in tenfold.expenses:
        texts[expense.building_id].append(expense.description)
    assert len(texts) == len(tenfold.buildings)
    for descriptions in texts.values():
        assert 2 <= len(descriptions) <= 3
        assert len(set(descriptions)) == len(descriptions)


@pytest.mark.parametrize("number", NUMBERS)
def test_seven_in_ten_are_paid_the_older_ones_above_all(
    number: int, bcrypt_hash: str, today: datetime.date
) -> None:
    expenses = generate(number, 1, bcrypt_hash, today).expenses
    paid = [e for e in expenses if e.payment_status is PaymentStatus.PAID]
    unpaid = [e for e in expenses if e.payment_status is not PaymentStatus.PAID]
    assert 0.67 <= len(paid) / len(expenses) <= 0.73

    def mean_age(rows: Sequence[Expense]) -> float:
        return float(sum((today - row.expense_date.date()).days for row in rows) / len(rows))

    assert mean_age(paid) > mean_age(unpaid)
    for expense in unpaid:
        if expense.payment_status is PaymentStatus.OVERDUE:
            assert (today - expense.expense_date.date()).days > 30


@pytest.mark.parametrize("day", ["2025-11-24", "2025-01-01", "2024-02-29", "2025-08-17"])
def test_dates_are_working_days_of_the_last_ninety_and_never_in_the_future(
    day: str, bcrypt_hash: str
) -> None:
    today = datetime.date.fromisoformat(day)
    midnight = datetime.datetime.combine(today, datetime.time(), datetime.UTC)
    dataset = generate(42, 2, bcrypt_hash, today)
    for row in all_rows(dataset):
        assert row.created_at.tzinfo is datetime.UTC
        assert row.created_at <= row.updated_at <= midnight
    for expense in dataset.expenses:
        age = (today - expense.expense_date.date()).days
        assert 0 <= age <= 89
        assert expense.expense_date.weekday() < 5
        assert expense.expense_date <= expense.created_at
        assert 7 <= expense.expense_date.hour < 15 or expense.expense_date == midnight


def test_children_are_not_older_than_their_parents(tenfold: Dataset) -> None:
    born = {row.id: row.created_at for row in all_rows(tenfold)}
    for row in all_rows(tenfold):
        for parent in ("organization_id", "building_id"):
            if getattr(row, parent, None):
                assert born[getattr(row, parent)] <= row.created_at


def test_same_arguments_same_data(dataset: Dataset, bcrypt_hash: str, today: datetime.date) -> None:
    assert generate(42, 1, bcrypt_hash, today) == dataset


def test_the_data_is_the_same_on_every_python(
    dataset: Dataset, bcrypt_hash: str, today: datetime.date
) -> None:
    """A change of this digest is a change of everybody's seed: intend it."""
    assert hashlib.sha256(insert_sql(dataset).encode()).hexdigest()[:16] == "617a55ae336b76e1"


def test_another_number_is_another_seed(
    dataset: Dataset, bcrypt_hash: str, today: datetime.date
) -> None:
    other = generate(43, 1, bcrypt_hash, today)
    assert not {row.id for row in all_rows(other)} & {row.id for row in all_rows(dataset)}
    assert [b.address for b in other.buildings] != [b.address for b in dataset.buildings]
    assert [o.last_name for o in other.owners] != [o.last_name for o in dataset.owners]


def test_another_day_moves_dates_only(dataset: Dataset, bcrypt_hash: str) -> None:
    later = generate(42, 1, bcrypt_hash, datetime.date(2026, 7, 1))
    assert [row.id for row in all_rows(later)] == [row.id for row in all_rows(dataset)]
    moving = {"created_at", "updated_at", "expense_date", "description", "invoice_number"}

    def fixed(rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [{k: v for k, v in asdict(row).items() if k not in moving} for row in rows]

    assert fixed(all_rows(later)) == fixed(all_rows(dataset))


def test_a_larger_scale_begins_with_the_smaller_one(dataset: Dataset, tenfold: Dataset) -> None:
    def content(row: DataclassInstance) -> dict[str, Any]:
        return {k: v for k, v in asdict(row).items() if k != "id" and not k.endswith("_id")}

    for table in ("organizations", "users", "buildings", "owners", "units", "expenses"):
        few, many = getattr(dataset, table), getattr(tenfold, table)
        assert [content(row) for row in many[: len(few)]] == [content(row) for row in few]
    assert not {row.id for row in all_rows(tenfold)} & {row.id for row in all_rows(dataset)}


def test_scale_ten_is_tenfold(tenfold: Dataset) -> None:
    counts = summary(tenfold)
    assert 460 <= counts.pop("expenses") <= 690
    assert counts == {
        "organizations": 30, "users": 30, "buildings": 230, "units": 1900, "owners": 1260,
    }  # fmt: skip
    slugs = [organization.slug for organization in tenfold.organizations]
    assert slugs[:5] == ["small-0", "medium-1", "large-2", "small-3", "medium-4"]
    assert tenfold.users[3].email == "admin@small-3.example"
    assert all(is_seeded(row.id) for row in all_rows(tenfold))


@pytest.mark.parametrize(("number", "scale"), [(-1, 1), (65536, 1), (1, 0), (1, -1), (1, 1001)])
def test_numbers_out_of_range_are_refused(
    number: int, scale: int, bcrypt_hash: str, today: datetime.date
) -> None:
    with pytest.raises(SeedError, match=r"the seed's (number|scale) is"):
        generate(number, scale, bcrypt_hash, today)


def test_a_password_in_clear_is_refused_and_not_repeated(today: datetime.date) -> None:
    with pytest.raises(SeedError) as refused:
        generate(1, 1, "hunter2-secret", today)
    assert "hunter2" not in str(refused.value)
    assert "bcrypt" in str(refused.value)


@pytest.mark.parametrize(
    ("year", "month", "language", "expected"),
    [
        (2025, 1, "fr", ("décembre 2024", "4e trimestre 2024", "2024")),
        (2025, 4, "fr", ("mars 2025", "1er trimestre 2025", "2024")),
        (2025, 3, "nl", ("februari 2025", "4e kwartaal 2024", "2024")),
        (2025, 12, "nl", ("november 2025", "3e kwartaal 2025", "2024")),
    ],
)
def test_periods_are_those_that_have_ended(
    year: int, month: int, language: str, expected: tuple[str, str, str]
) -> None:
    words = period_words(year, month, language)
    assert (words["month"], words["quarter"], words["year"]) == expected
