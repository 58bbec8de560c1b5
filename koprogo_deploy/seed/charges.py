"""What a Belgian building is invoiced for: texts in both languages, suppliers and price ranges.

A range is in EUR, VAT included, for a building of eight lots. National suppliers keep their names;
local firms are made up from family names, so that no small business finds itself in the data.
Amounts follow everyday Belgian prices of 2024 and 2025; source: general knowledge of the trade.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from koprogo_deploy.seed.model import Category

REFERENCE_LOTS: Final = 8
"""The number of lots that the ranges of `Charge` are written for."""

WATER_COMPANY: Final = "{water}"
SYNDIC: Final = "{syndic}"

_ENERGY = ("ENGIE", "Luminus", "TotalEnergies", "Eneco", "Mega")
_INSURERS = ("AG Insurance", "AXA Belgium", "Ethias", "Baloise", "Allianz Benelux")
_LIFTS = ("Schindler", "KONE Belgium", "Otis Belgium", "TK Elevator Belgium")
_INSPECTION = ("Vinçotte", "OCB", "BTV", "SGS Statutory Services Belgium")
_HEAT_METERS = ("ista Belgium", "Techem Caloribel")
_BANKS_FR = ("Belfius Banque", "BNP Paribas Fortis", "CBC Banque", "ING Belgique")
_BANKS_NL = ("Belfius Bank", "BNP Paribas Fortis", "KBC Bank", "ING België")


@dataclass(frozen=True)
class Charge:
    """One thing a building pays for.

    `french` and `dutch` may hold ``{month}``, ``{quarter}`` or ``{year}``. A supplier list holds
    names, or patterns with ``{name}`` (a family name), ``{water}`` (the commune's company) or
    ``{syndic}`` (the organisation itself). `low` and `high` are EUR; `per_lot` says that they grow
    with the number of lots. `needs` names what the building must have.
    """

    category: Category
    french: str
    dutch: str
    suppliers_fr: tuple[str, ...]
    suppliers_nl: tuple[str, ...]
    low: float
    high: float
    per_lot: bool = False
    needs: frozenset[str] = frozenset()


def _charge(
    category: Category,
    french: str,
    dutch: str,
    suppliers: tuple[str, ...] | tuple[tuple[str, ...], tuple[str, ...]],
    low: float,
    high: float,
    *,
    per_lot: bool = False,
    needs: str = "",
) -> Charge:
    """A charge whose suppliers are the same in both languages, or a pair ``(French, Dutch)``."""
    first, second = (
        (suppliers, suppliers) if isinstance(suppliers[0], str) else (suppliers[0], suppliers[1])
    )
    return Charge(
        category,
        french,
        dutch,
        tuple(first),
        tuple(second),
        low,
        high,
        per_lot,
        frozenset(needs.split()),
    )


def _firm(french: str, dutch: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A local firm: its name in both languages, with ``{name}`` for the family name."""
    return (french,), (dutch,)


_ELECTRICIAN = _firm("Électricité {name} SRL", "Elektro {name} BV")
_PLUMBER = _firm("Plomberie-Chauffage {name} SRL", "Sanitair & Verwarming {name} BV")
_ROOFER = _firm("Toitures {name} SRL", "Dakwerken {name} BV")
_CLEANER = _firm("Nettoyage {name} SRL", "Schoonmaakbedrijf {name} BV")
_GARDENER = _firm("Parcs et Jardins {name}", "Tuinonderhoud {name}")
_JOINER = _firm("Menuiserie {name} SRL", "Schrijnwerkerij {name} BV")
_LOCKSMITH = _firm("Serrurerie {name}", "Slotenmakerij {name}")
_PAINTER = _firm("Peintures {name} SRL", "Schilderwerken {name} BV")
_BUILDER = _firm("Entreprise générale {name} SA", "Bouwonderneming {name} NV")
_SURVEYOR = _firm("Bureau d'expertise {name}", "Studiebureau {name}")

CHARGES: Final[tuple[Charge, ...]] = (
    _charge(
        Category.UTILITIES,
        "Électricité des communs, {quarter}",
        "Elektriciteit gemene delen, {quarter}",
        _ENERGY,
        140,
        420,
        per_lot=True,
    ),
    _charge(
        Category.UTILITIES,
        "Eau, facture de régularisation {quarter}",
        "Water, afrekening {quarter}",
        (WATER_COMPANY,),
        240,
        720,
        per_lot=True,
    ),
    _charge(
        Category.UTILITIES,
        "Gaz chaufferie collective, acompte {month}",
        "Aardgas collectieve stookplaats, voorschot {month}",
        _ENERGY,
        380,
        1450,
        per_lot=True,
        needs="heating",
    ),
    _charge(
        Category.INSURANCE,
        "Assurance incendie de l'immeuble, prime annuelle",
        "Brandverzekering gebouw, jaarpremie",
        _INSURERS,
        1150,
        2400,
        per_lot=True,
    ),
    _charge(
        Category.INSURANCE,
        "RC copropriété et conseil de copropriété, prime annuelle",
        "BA mede-eigendom en raad van mede-eigendom, jaarpremie",
        _INSURERS,
        140,
        380,
    ),
    _charge(
        Category.INSURANCE,
        "Protection juridique de l'ACP, prime annuelle",
        "Rechtsbijstand VME, jaarpremie",
        ("D.A.S.", "ARAG", "Euromex"),
        190,
        460,
    ),
    _charge(
        Category.MAINTENANCE,
        "Contrat d'entretien ascenseur, {quarter}",
        "Onderhoudscontract lift, {quarter}",
        _LIFTS,
        260,
        620,
        needs="lift",
    ),
    _charge(
        Category.MAINTENANCE,
        "Contrôle périodique de l'ascenseur par organisme agréé",
        "Periodieke keuring lift door erkend organisme",
        _INSPECTION,
        95,
        190,
        needs="lift",
    ),
    _charge(
        Category.MAINTENANCE,
        "Entretien de la chaudière collective et attestation",
        "Onderhoud collectieve ketel en attest",
        _PLUMBER,
        190,
        480,
        needs="heating",
    ),
    _charge(
        Category.MAINTENANCE,
        "Vérification des extincteurs et de l'éclairage de secours",
        "Nazicht brandblussers en noodverlichting",
        ("Sicli", "Somati FIE", "Ansul"),
        85,
        320,
    ),
    _charge(
        Category.MAINTENANCE,
        "Entretien des abords et du jardin, {month}",
        "Onderhoud tuin en omgeving, {month}",
        _GARDENER,
        120,
        420,
        needs="garden",
    ),
    _charge(
        Category.MAINTENANCE,
        "Entretien de la porte de garage motorisée",
        "Onderhoud automatische garagepoort",
        _firm("Portes & Automatismes {name} SRL", "Poortautomatisatie {name} BV"),
        95,
        260,
        needs="garage",
    ),
    _charge(
        Category.REPAIRS,
        "Réparation d'une fuite sur la colonne d'eau",
        "Herstelling lek waterkolom",
        _PLUMBER,
        220,
        1400,
    ),
    _charge(
        Category.REPAIRS,
        "Dépannage de la parlophonie",
        "Herstelling parlofonie",
        _ELECTRICIAN,
        120,
        780,
    ),
    _charge(
        Category.REPAIRS,
        "Débouchage de la décharge et de l'égout",
        "Ontstopping afvoer en riolering",
        _firm("Débouchage {name} SRL", "Ontstoppingen {name} BV"),
        165,
        540,
    ),
    _charge(
        Category.REPAIRS,
        "Réparation d'une infiltration en toiture",
        "Herstelling daklek",
        _ROOFER,
        450,
        2800,
    ),
    _charge(
        Category.REPAIRS,
        "Remplacement du ferme-porte de la porte d'entrée",
        "Vervanging deurpomp inkomdeur",
        _JOINER,
        190,
        520,
    ),
    _charge(
        Category.REPAIRS,
        "Intervention ascenseur hors contrat",
        "Interventie lift buiten contract",
        _LIFTS,
        190,
        860,
        needs="lift",
    ),
    _charge(
        Category.CLEANING,
        "Nettoyage des communs, {month}",
        "Schoonmaak gemene delen, {month}",
        _CLEANER,
        180,
        420,
        per_lot=True,
    ),
    _charge(
        Category.CLEANING,
        "Nettoyage des vitres du hall et de la cage d'escalier",
        "Glasbewassing inkomhal en trappenhuis",
        _CLEANER,
        65,
        180,
    ),
    _charge(
        Category.CLEANING,
        "Sortie des poubelles et entretien du local, {month}",
        "Buitenzetten huisvuil en onderhoud afvalberging, {month}",
        _CLEANER,
        65,
        150,
    ),
    _charge(
        Category.ADMINISTRATION,
        "Honoraires de syndic, {quarter}",
        "Ereloon syndicus, {quarter}",
        (SYNDIC,),
        430,
        640,
        per_lot=True,
    ),
    _charge(
        Category.ADMINISTRATION,
        "Assemblée générale : convocations et location de salle",
        "Algemene vergadering: oproepingen en zaalhuur",
        (SYNDIC,),
        95,
        260,
    ),
    _charge(
        Category.ADMINISTRATION,
        "Relevé des calorimètres et décompte de chauffage {year}",
        "Opname warmtemeters en stookafrekening {year}",
        _HEAT_METERS,
        160,
        420,
        per_lot=True,
        needs="heating",
    ),
    _charge(
        Category.ADMINISTRATION,
        "Frais de tenue des comptes de l'ACP, {quarter}",
        "Kosten bankrekeningen VME, {quarter}",
        (_BANKS_FR, _BANKS_NL),
        12,
        45,
    ),
    _charge(
        Category.WORKS,
        "Rénovation de la façade avant",
        "Renovatie voorgevel",
        _firm("Façades {name} SA", "Gevelrenovatie {name} NV"),
        8000,
        45000,
    ),
    _charge(
        Category.WORKS,
        "Renouvellement de l'étanchéité et isolation de la toiture plate",
        "Vernieuwing dakdichting en isolatie plat dak",
        _ROOFER,
        9000,
        32000,
        needs="flat-roof",
    ),
    _charge(
        Category.WORKS,
        "Remplacement de la chaudière collective",
        "Vervanging collectieve ketel",
        _PLUMBER,
        12000,
        36000,
        needs="heating old",
    ),
    _charge(
        Category.WORKS,
        "Modernisation de l'ascenseur",
        "Modernisering lift",
        _LIFTS,
        14000,
        42000,
        needs="lift old",
    ),
    _charge(
        Category.WORKS,
        "Mise en conformité de l'installation électrique des communs",
        "Conform maken elektrische installatie gemene delen",
        _ELECTRICIAN,
        2500,
        9500,
        needs="old",
    ),
    _charge(
        Category.WORKS,
        "Peinture de la cage d'escalier",
        "Schilderwerken trappenhuis",
        _PAINTER,
        3200,
        9800,
    ),
    _charge(
        Category.WORKS,
        "Réfection des balcons en façade arrière",
        "Betonherstelling balkons achtergevel",
        _BUILDER,
        6500,
        28000,
        needs="old flat-roof",
    ),
    _charge(
        Category.OTHER,
        "Inventaire amiante des parties communes",
        "Asbestinventaris gemene delen",
        _SURVEYOR,
        380,
        900,
        needs="old",
    ),
    _charge(
        Category.OTHER,
        "Audit énergétique de l'immeuble",
        "Energieaudit van het gebouw",
        _SURVEYOR,
        650,
        1600,
    ),
    _charge(
        Category.OTHER,
        "Double de clés et badges d'accès",
        "Bijmaken sleutels en badges",
        _LOCKSMITH,
        45,
        240,
    ),
)

# How often an invoice of each category comes in; works are rare and dear.
CATEGORY_WEIGHTS: Final[tuple[tuple[Category, float], ...]] = (
    (Category.UTILITIES, 26),
    (Category.MAINTENANCE, 19),
    (Category.CLEANING, 16),
    (Category.REPAIRS, 13),
    (Category.ADMINISTRATION, 12),
    (Category.INSURANCE, 7),
    (Category.WORKS, 4),
    (Category.OTHER, 3),
)

MONTHS: Final = {
    "fr": (
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ),
    "nl": (
        "januari",
        "februari",
        "maart",
        "april",
        "mei",
        "juni",
        "juli",
        "augustus",
        "september",
        "oktober",
        "november",
        "december",
    ),
}


def period_words(year: int, month: int, language: str) -> dict[str, str]:
    """The periods that an invoice of this month is about: those that have just ended.

    Args:
        year: of the invoice.
        month: of the invoice, 1 to 12.
        language: ``fr`` or ``nl``.

    Returns:
        ``month`` (the one before), ``quarter`` (the last complete one), ``year`` (the last one).
    """
    month_year, month_before = (year, month - 1) if month > 1 else (year - 1, 12)
    quarter = (month - 1) // 3
    quarter_year, quarter = (year, quarter) if quarter else (year - 1, 4)
    if language == "fr":
        ordinal = "1er trimestre" if quarter == 1 else f"{quarter}e trimestre"
    else:
        ordinal = f"{quarter}e kwartaal"
    return {
        "month": f"{MONTHS[language][month_before - 1]} {month_year}",
        "quarter": f"{ordinal} {quarter_year}",
        "year": str(year - 1),
    }
