"""Buildings and their lots: where they stand, when they were built, how they are divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final

from koprogo_deploy.seed.draw import Draw
from koprogo_deploy.seed.model import UnitType
from koprogo_deploy.seed.places import Commune, Language

_BUILDING_NAMES: Final[dict[Language, tuple[str, ...]]] = {
    "fr": (
        "Résidence Les Tilleuls",
        "Résidence du Parc",
        "Résidence Albert Ier",
        "Résidence Reine Astrid",
        "Résidence Les Érables",
        "Résidence Belle-Vue",
        "Résidence Le Cygne",
        "Résidence Saint-Hubert",
        "Résidence Magritte",
        "Résidence Horta",
        "Résidence Beau Site",
        "Résidence Les Glycines",
        "Résidence Les Marronniers",
        "Résidence L'Hermitage",
        "Résidence Élisabeth",
        "Résidence Prince Charles",
        "Résidence Les Acacias",
        "Résidence Le Belvédère",
        "Résidence Maeterlinck",
        "Résidence Les Platanes",
        "Résidence Le Verger",
        "Résidence Sainte-Anne",
        "Résidence Simenon",
        "Résidence Les Magnolias",
        "Résidence Le Castel",
        "Clos des Hirondelles",
        "Le Vieux Moulin",
        "Les Terrasses",
        "Résidence Les Cerisiers",
        "Résidence Bel-Air",
    ),
    "nl": (
        "Residentie De Linde",
        "Residentie Astrid",
        "Residentie Het Park",
        "Residentie De Zwaan",
        "Residentie Rubens",
        "Residentie Permeke",
        "Residentie Koning Albert",
        "Residentie De Eik",
        "Residentie De Wilg",
        "Residentie Elisabeth",
        "Residentie Zonnebloem",
        "Residentie De Beuk",
        "Residentie Gezelle",
        "Residentie Van Eyck",
        "Residentie De Kastanje",
        "Residentie Hof ter Beke",
        "Residentie Panorama",
        "Residentie Timmermans",
        "Residentie Sint-Anna",
        "Residentie Boudewijn",
        "Residentie De Abdij",
        "Residentie Ensor",
        "Residentie De Reiger",
        "Residentie Bellevue",
        "Residentie De Molen",
        "Hof van Egmont",
        "De Oude Brouwerij",
        "Het Klaverblad",
        "Residentie De Magnolia",
        "Residentie De Hazelaar",
    ),
}

# When Belgian apartment buildings were built, most of them between the war and the oil crisis.
_PERIODS: Final = (
    ((1902, 1939), 18.0),
    ((1955, 1979), 42.0),
    ((1980, 1999), 18.0),
    ((2000, 2021), 22.0),
)

# Bedrooms decide the surface (m²); a lot on the same side is the same on every floor.
_APARTMENTS: Final = (((48, 66), 25.0), ((72, 98), 50.0), ((102, 145), 25.0))

# What a square metre of each kind counts for in the deed that divides a building into thousandths.
_QUOTA_WEIGHT: Final = {
    UnitType.APARTMENT: 1.0,
    UnitType.COMMERCIAL: 1.15,
    UnitType.PARKING: 0.4,
    UnitType.CELLAR: 0.25,
}


@dataclass(frozen=True)
class Lot:
    """A unit before it has an id or an owner."""

    number: str
    type: UnitType
    floor: int
    surface: float
    quota: int


@dataclass(frozen=True)
class House:
    """A building before it has an id, with what the choice of its invoices depends on."""

    commune: Commune
    name: str
    address: str
    year: int
    lots: tuple[Lot, ...]
    traits: frozenset[str]


def draw_houses(draw: Draw, lots: Sequence[int], portfolio: Sequence[Commune]) -> list[House]:
    """One building for each number of lots, with no name or address twice."""
    names: dict[Language, Iterator[str]] = {
        language: iter(draw.shuffled(pool)) for language, pool in _BUILDING_NAMES.items()
    }
    addresses: set[tuple[str, str]] = set()
    houses = []
    for count in lots:
        commune = draw.one(portfolio)
        address = draw_address(draw, commune)
        while (commune.postal_code, address) in addresses:
            address = draw_address(draw, commune)
        addresses.add((commune.postal_code, address))
        year = draw.whole(*draw.weighted(_PERIODS))
        plan = _lots(draw, count, year)
        houses.append(
            House(
                commune,
                next(names[commune.language]),
                address,
                year,
                plan,
                _traits(draw, year, plan),
            )
        )
    return houses


def draw_address(draw: Draw, commune: Commune) -> str:
    """Street, then number, as both languages write it."""
    return f"{draw.one(commune.streets)} {draw.whole(3, 168)}"


def _traits(draw: Draw, year: int, lots: Sequence[Lot]) -> frozenset[str]:
    """What the building has that someone sends invoices for."""
    top = max(lot.floor for lot in lots)
    wanted = {
        "lift": year >= (1955 if top >= 3 else 1995) and top >= 2,
        "heating": 1955 <= year < 2005 and draw.chance(0.75),
        "garage": any(lot.type is UnitType.PARKING for lot in lots),
        "garden": draw.chance(0.4 if year >= 1955 else 0.15),
        "flat-roof": year >= 1955,
        "old": year < 2000,
    }
    return frozenset(trait for trait, present in wanted.items() if present)


def _lots(draw: Draw, count: int, year: int) -> tuple[Lot, ...]:
    """Divide a building into `count` lots: two thirds to live in, the rest below ground."""
    living = (count * 2 + 1) // 3
    accessory = count - living
    # Houses from before the motor car have cellars where later ones have a garage.
    parkings = 0 if year < 1950 else (accessory + 1) // 2
    bare = [
        *_living_lots(draw, living, shop=draw.chance(0.3)),
        *_basement_lots(draw, parkings, accessory - parkings),
    ]
    quotas = thousandths(
        [
            surface * _QUOTA_WEIGHT[type_] * (1 + 0.02 * max(floor, 0))
            for _, type_, floor, surface in bare
        ]
    )
    return tuple(
        Lot(number, type_, floor, surface, quota)
        for (number, type_, floor, surface), quota in zip(bare, quotas, strict=True)
    )


def _living_lots(draw: Draw, count: int, *, shop: bool) -> list[tuple[str, UnitType, int, float]]:
    """Apartments, two a floor, over a shop or from the ground floor up."""
    lots: list[tuple[str, UnitType, int, float]] = []
    if shop:
        lots.append(("0.1", UnitType.COMMERCIAL, 0, draw.between(55, 160, 0)))
    sides = [draw.between(*draw.weighted(_APARTMENTS), 0) for _ in range(2)]
    floor, box = (1, 1) if shop else (0, 1)
    while len(lots) < count:
        # What is left for the top floor is one apartment over its whole width, stepped back.
        alone = box == 1 and len(lots) == count - 1
        wide = float(round((sides[0] + sides[1]) * 0.8))
        surface = min(150.0, max(45.0, (wide if alone else sides[box - 1]) + draw.whole(-2, 2)))
        lots.append((f"{floor}.{box}", UnitType.APARTMENT, floor, surface))
        floor, box = (floor, 2) if box == 1 else (floor + 1, 1)
    return lots


def _basement_lots(
    draw: Draw, parkings: int, cellars: int
) -> list[tuple[str, UnitType, int, float]]:
    """Garage places, then cellars, all on the floor below ground."""
    lots = [(UnitType.PARKING, draw.between(12, 18, 1)) for _ in range(parkings)] + [
        (UnitType.CELLAR, draw.between(3, 10, 1)) for _ in range(cellars)
    ]
    return [(f"-1.{box}", type_, -1, surface) for box, (type_, surface) in enumerate(lots, start=1)]


def thousandths(weights: Sequence[float]) -> list[int]:
    """Share 1000 out in whole thousandths by weight, each at least 1 (largest remainder)."""
    # fsum: Python 3.12 changed how sum() rounds.
    spare, total = 1000 - len(weights), fsum(weights)
    exact = [spare * weight / total for weight in weights]
    shares = [1 + int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (int(exact[i]) - exact[i], i))
    for position in by_remainder[: 1000 - sum(shares)]:
        shares[position] += 1
    return shares
