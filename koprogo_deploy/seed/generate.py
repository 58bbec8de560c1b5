"""A realistic data set for KoproGo: what three Belgian property managers would have in it.

Everything is drawn from streams keyed by the seed's number and the thing's position, never by the
clock, the scale or a neighbour: the first three organisations of scale 10 are those of scale 1 (but
for their ids), and only dates, and the periods and invoice numbers that name them, follow `today`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from koprogo_deploy.seed.charges import (
    CATEGORY_WEIGHTS,
    CHARGES,
    REFERENCE_LOTS,
    SYNDIC,
    WATER_COMPANY,
    Charge,
    period_words,
)
from koprogo_deploy.seed.draw import Draw
from koprogo_deploy.seed.houses import House, Lot, draw_address, draw_houses
from koprogo_deploy.seed.identity import Kind, SeedError, check_number_and_scale, seed_uuid
from koprogo_deploy.seed.model import (
    Building,
    Dataset,
    Expense,
    Organization,
    Owner,
    PaymentStatus,
    Unit,
    UnitType,
    User,
)
from koprogo_deploy.seed.people import (
    Person,
    draw_email,
    draw_mobile,
    draw_person,
    draw_tradesman,
)
from koprogo_deploy.seed.places import (
    FIRST_PORTFOLIOS,
    PORTFOLIOS_FR,
    PORTFOLIOS_NL,
    Commune,
    Language,
)

COUNTRY: Final = "Belgique"  # what the application's own forms fill in
EXPENSE_DAYS: Final = 89  # the oldest expense, in days before today
OVERDUE_AFTER_DAYS: Final = 60  # two reminders later
PAID_SHARE: Final = 0.70

_BCRYPT = re.compile(r"\$2[abxy]\$\d\d\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True)
class _Size:
    """One of the three sizes of organisation, as KoproGo's own realistic seed lays them out."""

    slug: str
    plan: str
    max_users: int
    lots: tuple[int, ...]
    owners: int
    first_name: str
    other_names: dict[Language, str]


_SIZES: Final = (
    _Size(
        "small",
        "starter",
        10,
        (6,) * 5,
        20,
        "Petite Copropriété SPRL",
        {"fr": "Syndic {} SRL", "nl": "Syndicus {} BV"},
    ),
    _Size(
        "medium",
        "professional",
        20,
        (*(7,) * 7, 11),
        40,
        "Copropriété Moyenne SA",
        {"fr": "Gérance {} SA", "nl": "Vastgoedbeheer {} NV"},
    ),
    _Size(
        "large",
        "enterprise",
        50,
        (10,) * 10,
        66,
        "Grande Résidence NV",
        {"fr": "Régie {} SA", "nl": "Residentiebeheer {} NV"},
    ),
)

_OFFICE_WORDS: Final[dict[Language, tuple[str, ...]]] = {
    "fr": (
        "Lambert",
        "Delta",
        "Horizon",
        "Atrium",
        "Concorde",
        "Belvédère",
        "Alliance",
        "Harmonie",
        "Équilibre",
        "Pivoine",
        "Tilleul",
        "Érable",
        "Alizé",
        "Cadran",
        "Beffroi",
        "Perron",
        "Polaris",
        "Zénith",
        "Azur",
        "Opale",
    ),
    "nl": (
        "Van Damme",
        "Delta",
        "Horizon",
        "Atrium",
        "Concordia",
        "Belfort",
        "Alliantie",
        "Harmonie",
        "Evenwicht",
        "Meerkoet",
        "Linde",
        "Esdoorn",
        "Zeewind",
        "Kompas",
        "Halletoren",
        "Ankerplaats",
        "Polaris",
        "Zenit",
        "Azuur",
        "Klaver",
    ),
}


@dataclass
class _Rows:
    """The rows made so far, and what must not occur twice among them."""

    number: int
    scale: int
    password_hash: str
    midnight: datetime
    organizations: list[Organization] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)
    expenses: list[Expense] = field(default_factory=list)
    emails: set[str] = field(default_factory=set)
    invoices: set[str] = field(default_factory=set)

    def new_id(self, kind: Kind, rows: Sequence[object]) -> UUID:
        """The id of the row that comes next in `rows`."""
        return seed_uuid(kind, self.number, self.scale, len(rows))


def generate(number: int, scale: int, password_hash: str, today: date) -> Dataset:
    """Make a data set: the same arguments give the same one, on every machine and Python.

    The distribution is that of KoproGo's own realistic seed (3 organisations, 23 buildings,
    190 units, 126 owners, 46 to 69 expenses), times `scale`.

    Args:
        number: which data set, 0 to 65535; another number gives other people and buildings.
        scale: how many sets of three organisations, 1 to 1000.
        password_hash: bcrypt hash that every login gets.
        today: the date in UTC; expenses are 0 to 89 days older, and no timestamp is later than
            the midnight that begins it.

    Returns:
        The rows, in an order in which they can be inserted.

    Raises:
        SeedError: number or scale is out of range, or the hash is not a bcrypt hash.
    """
    check_number_and_scale(number, scale)
    check_bcrypt(password_hash)
    rows = _Rows(number, scale, password_hash, datetime.combine(today, time(), UTC))
    for index in range(3 * scale):
        _add_organization(rows, index)
    return Dataset(
        number,
        scale,
        tuple(rows.organizations),
        tuple(rows.users),
        tuple(rows.buildings),
        tuple(rows.owners),
        tuple(rows.units),
        tuple(rows.expenses),
    )


def check_bcrypt(password_hash: str) -> None:
    """Refuse what is not a bcrypt hash, above all a password in clear.

    Raises:
        SeedError: not a bcrypt hash; the message does not repeat the value.
    """
    if not _BCRYPT.fullmatch(password_hash):
        raise SeedError(
            "the password of the seeded logins must be given as a bcrypt hash"
            " (60 characters, such as $2b$12$...)"
        )


def login_email(index: int) -> str:
    """The login of the `index`-th organisation: ``admin@small.be`` and its like in the first set,
    on a reserved domain in the others.
    """
    slug = _SIZES[index % 3].slug
    return f"admin@{slug}.be" if index < 3 else f"admin@{slug}-{index}.example"


def organization_slug(index: int) -> str:
    """The slug of the `index`-th organisation: ``small-0``, ``medium-1``, ``large-2``, ..."""
    return f"{_SIZES[index % 3].slug}-{index}"


def _add_organization(rows: _Rows, index: int) -> None:
    """Add the `index`-th organisation with everything that belongs to it."""
    size = _SIZES[index % 3]
    draw = Draw(rows.number, "organization", index)
    language, portfolio = _territory(draw, index)
    created = _office_hours(draw, rows.midnight, draw.whole(520, 1400))
    organization = Organization(
        id=rows.new_id("organization", rows.organizations),
        name=_organization_name(index, language),
        slug=organization_slug(index),
        contact_email=f"contact@{organization_slug(index)}.example",
        contact_phone=draw_mobile(draw),
        subscription_plan=size.plan,
        max_buildings=len(size.lots),
        max_users=size.max_users,
        is_active=True,
        created_at=created,
        updated_at=created,
    )
    rows.organizations.append(organization)
    person = draw_person(draw, portfolio[0])
    rows.users.append(
        User(
            id=rows.new_id("user", rows.users),
            email=login_email(index),
            password_hash=rows.password_hash,
            first_name=person.first_name,
            last_name=person.last_name,
            role="syndic",
            organization_id=organization.id,
            is_active=True,
            created_at=created + timedelta(minutes=4),
            updated_at=created + timedelta(minutes=4),
        )
    )
    houses = draw_houses(Draw(rows.number, "houses", index), size.lots, portfolio)
    buildings = _add_buildings(rows, organization, houses)
    _add_owners_and_units(rows, organization, houses, buildings, size.owners, index)
    _add_expenses(rows, organization, houses, buildings, index)


def _territory(draw: Draw, index: int) -> tuple[Language, tuple[Commune, ...]]:
    """Language and communes of an organisation; those of the first set are fixed."""
    if index < 3:
        return ("nl" if index == 2 else "fr"), FIRST_PORTFOLIOS[index]
    language: Language = draw.one(("fr", "nl"))
    return language, draw.one(PORTFOLIOS_FR if language == "fr" else PORTFOLIOS_NL)


def _organization_name(index: int, language: Language) -> str:
    """A firm's name; no two of one data set are equal."""
    size, set_index = _SIZES[index % 3], index // 3
    if set_index == 0:
        return size.first_name
    words = _OFFICE_WORDS[language]
    round_, position = divmod(set_index - 1, len(words))
    word = words[position] if round_ == 0 else f"{words[position]} {round_ + 1}"
    return size.other_names[language].format(word)


# --- buildings and their lots -------------------------------------------------------------------


def _add_buildings(
    rows: _Rows, organization: Organization, houses: Sequence[House]
) -> list[Building]:
    """Add the buildings of an organisation, taken over one after the other."""
    added = []
    for position, house in enumerate(houses):
        draw = Draw(rows.number, "takeover", organization.slug, position)
        days = (rows.midnight - organization.created_at).days
        created = _office_hours(draw, rows.midnight, days - 3 - position * 25)
        building = Building(
            id=rows.new_id("building", rows.buildings),
            organization_id=organization.id,
            name=house.name,
            address=house.address,
            city=house.commune.name,
            postal_code=house.commune.postal_code,
            country=COUNTRY,
            total_units=len(house.lots),
            construction_year=house.year,
            created_at=created,
            updated_at=created,
        )
        rows.buildings.append(building)
        added.append(building)
    return added


# --- owners and units ---------------------------------------------------------------------------

_Place = tuple[int, int]
"""A lot by position: which building of the organisation, which lot of it."""


def _add_owners_and_units(
    rows: _Rows,
    organization: Organization,
    houses: Sequence[House],
    buildings: Sequence[Building],
    count: int,
    index: int,
) -> None:
    """Add the owners of an organisation, and its units, most of them with one of those owners."""
    draw = Draw(rows.number, "owners", index)
    holdings = _holdings(draw, houses, count)
    owner_ids: dict[_Place, UUID] = {}
    for holding in holdings:
        owner = _owner(rows, draw, organization, houses, buildings, holding[0])
        rows.owners.append(owner)
        owner_ids.update((place, owner.id) for place in holding)
    for house_index, (house, building) in enumerate(zip(houses, buildings, strict=True)):
        for lot_index, lot in enumerate(house.lots):
            created = building.created_at + timedelta(minutes=10 + 2 * lot_index)
            rows.units.append(
                Unit(
                    id=rows.new_id("unit", rows.units),
                    organization_id=organization.id,
                    building_id=building.id,
                    owner_id=owner_ids.get((house_index, lot_index)),
                    unit_number=lot.number,
                    unit_type=lot.type,
                    floor=lot.floor,
                    surface_area=lot.surface,
                    quota=lot.quota,
                    created_at=created,
                    updated_at=created,
                )
            )


def _holdings(draw: Draw, houses: Sequence[House], count: int) -> list[list[_Place]]:
    """Which lots each of `count` owners holds; the first lot of each is the one it is known by.

    Every owner gets a lot of its own, apartments and shops first; then garages and cellars go to
    owners in the same building until four fifths of all lots have an owner.
    """
    places = [(h, i) for h, house in enumerate(houses) for i in range(len(house.lots))]
    below = (UnitType.PARKING, UnitType.CELLAR)
    living = [place for place in places if _lot(houses, place).type not in below]
    basement = draw.shuffled([place for place in places if _lot(houses, place).type in below])
    ordered = draw.shuffled(living) + basement
    holdings = [[place] for place in sorted(ordered[:count])]
    wanted = round(len(places) * draw.between(0.76, 0.86, 2))
    for place in ordered[count:wanted]:
        neighbours = [holding for holding in holdings if holding[0][0] == place[0]]
        # Nobody collects three cellars while a neighbour has none.
        fewest = min(len(holding) for holding in neighbours)
        draw.one([holding for holding in neighbours if len(holding) == fewest]).append(place)
    return holdings


def _lot(houses: Sequence[House], place: _Place) -> Lot:
    return houses[place[0]].lots[place[1]]


def _owner(
    rows: _Rows,
    draw: Draw,
    organization: Organization,
    houses: Sequence[House],
    buildings: Sequence[Building],
    place: _Place,
) -> Owner:
    """The owner of a lot: six in ten live in it, the others elsewhere in the same area."""
    house, building = houses[place[0]], buildings[place[0]]
    person: Person = draw_person(draw, house.commune)
    home = house.commune
    if _lot(houses, place).type is UnitType.APARTMENT and draw.chance(0.6):
        word = "bte" if home.language == "fr" else "bus"
        address = f"{house.address} {word} {place[1] + 1}"
    else:
        home = draw.one(tuple(other.commune for other in houses)) if draw.chance(0.6) else home
        address = draw_address(draw, home)
    created = building.created_at + timedelta(days=draw.whole(1, 20), minutes=draw.whole(0, 90))
    return Owner(
        id=rows.new_id("owner", rows.owners),
        organization_id=organization.id,
        first_name=person.first_name,
        last_name=person.last_name,
        email=draw_email(draw, person, rows.emails),
        phone=draw_mobile(draw) if draw.chance(0.92) else None,
        address=address,
        city=home.name,
        postal_code=home.postal_code,
        country=COUNTRY,
        created_at=created,
        updated_at=created,
    )


# --- expenses -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Invoice:
    """An expense before it is known whether it has been paid."""

    house: int
    charge: Charge
    age: int
    day: date


def _add_expenses(
    rows: _Rows,
    organization: Organization,
    houses: Sequence[House],
    buildings: Sequence[Building],
    index: int,
) -> None:
    """Add two or three expenses a building; seven in ten are paid, the older ones above all."""
    draw = Draw(rows.number, "expenses", index)
    invoices = [
        _Invoice(position, charge, age, _working_day(rows.midnight.date(), age))
        for position, house in enumerate(houses)
        for charge in _charges(draw, house, draw.whole(2, 3))
        for age in (draw.whole(0, EXPENSE_DAYS),)
    ]
    paid = _paid(draw, [invoice.age for invoice in invoices])
    for position, invoice in enumerate(invoices):
        rows.expenses.append(
            _expense(
                rows,
                draw,
                organization,
                houses[invoice.house],
                buildings[invoice.house],
                invoice,
                paid=position in paid,
            )
        )


def _charges(draw: Draw, house: House, count: int) -> list[Charge]:
    """`count` different charges that make sense for this building."""
    fitting = [charge for charge in CHARGES if charge.needs <= house.traits]
    chosen: list[Charge] = []
    while len(chosen) < count:
        category = draw.weighted(CATEGORY_WEIGHTS)
        charge = draw.one([charge for charge in fitting if charge.category is category])
        if charge not in chosen:
            chosen.append(charge)
    return chosen


def _paid(draw: Draw, ages: Sequence[int]) -> frozenset[int]:
    """Positions of the paid ones: exactly `PAID_SHARE` of them (rounded), mostly the oldest."""
    lateness = [age + draw.whole(0, 75) for age in ages]
    ranked = sorted(range(len(ages)), key=lambda position: (-lateness[position], position))
    return frozenset(ranked[: round(len(ages) * PAID_SHARE)])


def _expense(
    rows: _Rows,
    draw: Draw,
    organization: Organization,
    house: House,
    building: Building,
    invoice: _Invoice,
    *,
    paid: bool,
) -> Expense:
    """The row of an invoice."""
    language = house.commune.language
    charge = invoice.charge
    text = charge.french if language == "fr" else charge.dutch
    supplier = _supplier(rows.number, organization, house, building, charge)
    when = _hour_of(draw, rows.midnight, invoice.day)
    booked = min(rows.midnight, when + timedelta(days=draw.whole(1, 4)))
    settled = min(rows.midnight, booked + timedelta(days=draw.whole(2, 24)))
    if paid:
        status = PaymentStatus.PAID
    elif invoice.age > OVERDUE_AFTER_DAYS:
        status = PaymentStatus.OVERDUE
    else:
        status = PaymentStatus.PENDING
    return Expense(
        id=rows.new_id("expense", rows.expenses),
        organization_id=organization.id,
        building_id=building.id,
        category=charge.category,
        description=text.format(**period_words(when.year, when.month, language)),
        amount=_amount(draw, charge, len(house.lots)),
        expense_date=when,
        payment_status=status,
        supplier=supplier,
        invoice_number=_invoice_number(draw, supplier, when.year, rows.invoices),
        created_at=booked,
        updated_at=settled if paid else booked,
    )


def _supplier(
    number: int, organization: Organization, house: House, building: Building, charge: Charge
) -> str:
    """Who sends the invoice: a building keeps its contracts, an office its tradesmen."""
    language = house.commune.language
    pool = charge.suppliers_fr if language == "fr" else charge.suppliers_nl
    if pool == (WATER_COMPANY,):
        return house.commune.water
    if pool == (SYNDIC,):
        return organization.name
    pattern = Draw(number, "contract", building.name, building.address, pool).one(pool)
    trade = Draw(number, "trade", organization.slug, pattern)
    return pattern.format(name=draw_tradesman(trade, language))


def _amount(draw: Draw, charge: Charge, lots: int) -> float:
    """EUR with cents, for a building of so many lots; low amounts are the likelier ones."""
    factor = lots / REFERENCE_LOTS if charge.per_lot else 1.0
    position = (draw.fraction() + draw.fraction() * draw.fraction()) / 2
    return round((charge.low + (charge.high - charge.low) * position) * factor, 2)


def _invoice_number(draw: Draw, supplier: str, year: int, taken: set[str]) -> str:
    """A number that no other invoice has, in a style that the supplier keeps."""
    style = (
        "{y}-{n:05d}",
        "F{y}/{n:05d}",
        "VF{yy:02d}{n:06d}",
        "{y}{n:06d}",
        "INV-{yy:02d}-{n:05d}",
    )
    kept = sum(map(ord, supplier)) % len(style)
    # Unique without its year, so that what is drawn next does not depend on today.
    while (key := f"{kept}/{(count := draw.whole(120, 99_999))}") in taken:
        pass
    taken.add(key)
    return style[kept].format(y=year, yy=year % 100, n=count)


# --- dates --------------------------------------------------------------------------------------


# The Belgian holidays that fall on the same day each year, as (month, day).
_HOLIDAYS: Final = frozenset({(1, 1), (5, 1), (7, 21), (8, 15), (11, 1), (11, 11), (12, 25)})


def _is_working_day(day: date) -> bool:
    return day.weekday() < 5 and (day.month, day.day) not in _HOLIDAYS


def _working_day(today: date, age: int) -> date:
    """The day `age` days before today, moved off holidays but never out of the last 89 days."""
    earlier = range(age, EXPENSE_DAYS + 1)
    later = range(age - 1, -1, -1)
    for days in (*earlier, *later):
        day = today - timedelta(days=days)
        if _is_working_day(day):
            return day
    raise AssertionError("no working day within 89 days")


def _hour_of(draw: Draw, midnight: datetime, day: date) -> datetime:
    """An office hour (Belgium is one or two hours ahead of UTC) of a day, not in the future."""
    moment = datetime.combine(day, time(draw.whole(7, 14), draw.whole(0, 59)), UTC)
    return min(midnight, moment)


def _office_hours(draw: Draw, midnight: datetime, days: int) -> datetime:
    """An office hour about `days` days before `midnight`, on a working day."""
    day = (midnight - timedelta(days=days)).date()
    day -= timedelta(days=max(0, day.weekday() - 4))
    return _hour_of(draw, midnight, day)
