"""Belgian communes with their postcodes, streets and water company, grouped as a syndic works.

Streets stand in the language of the commune; the nineteen communes of Brussels are bilingual and
appear twice, once in each language, with the same streets. Source: general knowledge of the
country; postcodes are bpost's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Language = Literal["fr", "nl"]


@dataclass(frozen=True)
class Commune:
    """A commune, or a part of one with its own postcode."""

    name: str
    postal_code: str
    language: Language
    water: str
    streets: tuple[str, ...]

    @property
    def in_brussels(self) -> bool:
        """Whether this is one of the nineteen communes of the capital."""
        return 1000 <= int(self.postal_code) <= 1210


def _brussels(postal_code: str, names: str, *streets: str) -> tuple[Commune, Commune]:
    """A bilingual commune, once in each language; names and streets are ``French/Dutch``."""
    french, _, dutch = names.partition("/")
    pairs = [street.split("/") for street in streets]
    return (
        Commune(french, postal_code, "fr", "Vivaqua", tuple(pair[0] for pair in pairs)),
        Commune(dutch or french, postal_code, "nl", "Vivaqua", tuple(pair[1] for pair in pairs)),
    )


def _commune(postal_code: str, name: str, language: Language, water: str, streets: str) -> Commune:
    """A commune of one language; `streets` is separated by semicolons."""
    return Commune(name, postal_code, language, water, tuple(streets.split("; ")))


_BRUSSELS: Final = (
    _brussels(
        "1000",
        "Bruxelles/Brussel",
        "Rue Haute/Hoogstraat",
        "Rue Blaes/Blaesstraat",
        "Rue de Flandre/Vlaamsesteenweg",
        "Boulevard Anspach/Anspachlaan",
        "Rue Antoine Dansaert/Antoine Dansaertstraat",
        "Rue de Laeken/Lakensestraat",
    ),
    _brussels(
        "1030",
        "Schaerbeek/Schaarbeek",
        "Avenue Louis Bertrand/Louis Bertrandlaan",
        "Avenue Rogier/Rogierlaan",
        "Boulevard Lambermont/Lambermontlaan",
        "Rue Josaphat/Josafatstraat",
        "Avenue Paul Deschanel/Paul Deschanellaan",
    ),
    _brussels(
        "1040",
        "Etterbeek",
        "Chaussée de Wavre/Waversesteenweg",
        "Avenue des Celtes/Keltenlaan",
        "Rue des Tongres/Tongerenstraat",
        "Boulevard Saint-Michel/Sint-Michielslaan",
    ),
    _brussels(
        "1050",
        "Ixelles/Elsene",
        "Chaussée d'Ixelles/Elsensesteenweg",
        "Rue du Bailli/Baljuwstraat",
        "Avenue de la Couronne/Kroonlaan",
        "Rue Lesbroussart/Lesbroussartstraat",
        "Chaussée de Boondael/Boondaalsesteenweg",
        "Rue Américaine/Amerikaansestraat",
    ),
    _brussels(
        "1060",
        "Saint-Gilles/Sint-Gillis",
        "Chaussée de Charleroi/Charleroisesteenweg",
        "Rue de Moscou/Moskoustraat",
        "Avenue Paul Dejaer/Paul Dejaerlaan",
        "Rue de Savoie/Savoiestraat",
        "Avenue du Parc/Parklaan",
    ),
    _brussels(
        "1070",
        "Anderlecht",
        "Rue Wayez/Wayezstraat",
        "Chaussée de Mons/Bergensesteenweg",
        "Boulevard Aristide Briand/Aristide Briandlaan",
        "Avenue d'Itterbeek/Itterbeekselaan",
    ),
    _brussels(
        "1080",
        "Molenbeek-Saint-Jean/Sint-Jans-Molenbeek",
        "Chaussée de Gand/Gentsesteenweg",
        "Boulevard Edmond Machtens/Edmond Machtenslaan",
        "Boulevard du Jubilé/Jubelfeestlaan",
        "Avenue Brigade Piron/Brigade Pironlaan",
    ),
    _brussels(
        "1081",
        "Koekelberg",
        "Avenue de la Liberté/Vrijheidslaan",
        "Avenue de Jette/Jetselaan",
        "Boulevard Léopold II/Leopold II-laan",
    ),
    _brussels(
        "1082",
        "Berchem-Sainte-Agathe/Sint-Agatha-Berchem",
        "Avenue Charles-Quint/Keizer Karellaan",
        "Avenue du Roi Albert/Koning Albertlaan",
        "Rue des Soldats/Soldatenstraat",
    ),
    _brussels(
        "1083",
        "Ganshoren",
        "Avenue Van Overbeke/Van Overbekelaan",
        "Avenue des Neuf Provinces/Negen Provinciënlaan",
        "Avenue Marie de Hongrie/Maria van Hongarijelaan",
    ),
    _brussels(
        "1090",
        "Jette",
        "Rue Léon Théodor/Léon Théodorstraat",
        "Avenue Odon Warland/Odon Warlandlaan",
        "Avenue Charles Woeste/Charles Woestelaan",
        "Boulevard de Smet de Naeyer/De Smet de Naeyerlaan",
    ),
    _brussels(
        "1140",
        "Evere",
        "Avenue Henry Dunant/Henry Dunantlaan",
        "Avenue des Anciens Combattants/Oud-Strijderslaan",
        "Avenue Cicéron/Cicerolaan",
    ),
    _brussels(
        "1150",
        "Woluwe-Saint-Pierre/Sint-Pieters-Woluwe",
        "Avenue de Tervueren/Tervurenlaan",
        "Avenue Orban/Orbanlaan",
        "Avenue Parmentier/Parmentierlaan",
    ),
    _brussels(
        "1160",
        "Auderghem/Oudergem",
        "Boulevard du Souverain/Vorstlaan",
        "Chaussée de Wavre/Waversesteenweg",
        "Avenue Henri Schoofs/Henri Schoofslaan",
    ),
    _brussels(
        "1170",
        "Watermael-Boitsfort/Watermaal-Bosvoorde",
        "Avenue Léopold Wiener/Leopold Wienerlaan",
        "Rue Middelbourg/Middelburgstraat",
        "Chaussée de La Hulpe/Terhulpsesteenweg",
    ),
    _brussels(
        "1180",
        "Uccle/Ukkel",
        "Avenue Brugmann/Brugmannlaan",
        "Chaussée d'Alsemberg/Alsembergsesteenweg",
        "Rue Vanderkindere/Vanderkinderestraat",
        "Avenue Winston Churchill/Winston Churchilllaan",
        "Avenue De Fré/De Frélaan",
    ),
    _brussels(
        "1190",
        "Forest/Vorst",
        "Avenue Molière/Molièrelaan",
        "Avenue Albert/Albertlaan",
        "Avenue Kersbeek/Kersbeeklaan",
        "Avenue Van Volxem/Van Volxemlaan",
    ),
    _brussels(
        "1200",
        "Woluwe-Saint-Lambert/Sint-Lambrechts-Woluwe",
        "Avenue Georges Henri/Georges Henrilaan",
        "Avenue Paul Hymans/Paul Hymanslaan",
        "Boulevard Brand Whitlock/Brand Whitlocklaan",
    ),
    _brussels(
        "1210",
        "Saint-Josse-ten-Noode/Sint-Joost-ten-Node",
        "Chaussée de Louvain/Leuvensesteenweg",
        "Rue du Méridien/Middaglijnstraat",
        "Avenue Galilée/Galileelaan",
    ),
)

BRUSSELS_FR: Final = tuple(french for french, _ in _BRUSSELS)
BRUSSELS_NL: Final = tuple(dutch for _, dutch in _BRUSSELS)

LIEGE: Final = (
    _commune(
        "4000",
        "Liège",
        "fr",
        "CILE",
        "Boulevard d'Avroy; Rue Saint-Gilles; "
        "Rue Hors-Château; Rue Sainte-Marguerite; Boulevard de la Sauvenière; Rue Louvrex",
    ),
    _commune(
        "4020",
        "Liège",
        "fr",
        "CILE",
        "Rue Grétry; Boulevard de l'Est; Rue Puits-en-Sock; Avenue du Luxembourg",
    ),
    _commune(
        "4100",
        "Seraing",
        "fr",
        "CILE",
        "Rue Cockerill; Rue Ferrer; Avenue du Centenaire; Rue de Plainevaux",
    ),
    _commune(
        "4500",
        "Huy",
        "fr",
        "SWDE",
        "Avenue des Ardennes; Quai de Compiègne; Chaussée de Liège; Avenue Joseph Lebeau",
    ),
    _commune(
        "4800", "Verviers", "fr", "SWDE", "Rue de Heusy; Avenue de Spa; Rue du Palais; Rue Laoureux"
    ),
)
NAMUR: Final = (
    _commune(
        "5000",
        "Namur",
        "fr",
        "SWDE",
        "Rue de Fer; Rue de Bruxelles; Rue Godefroid; "
        "Boulevard Cauchy; Avenue Cardinal Mercier; Rue Henri Lemaître",
    ),
    _commune(
        "5100", "Jambes", "fr", "SWDE", "Rue de Dave; Rue Mazy; Avenue du Bourgmestre Jean Materne"
    ),
    _commune(
        "6700",
        "Arlon",
        "fr",
        "SWDE",
        "Avenue de Longwy; Rue de Bastogne; Avenue Nothomb; Avenue Tesch",
    ),
)
HAINAUT: Final = (
    _commune(
        "6000",
        "Charleroi",
        "fr",
        "SWDE",
        "Boulevard Tirou; Rue de Montigny; "
        "Boulevard Audent; Rue de Marcinelle; Boulevard Joseph II; Rue du Fort",
    ),
    _commune(
        "7000",
        "Mons",
        "fr",
        "SWDE",
        "Rue de Nimy; Rue d'Havré; Rue des Capucins; "
        "Rue de la Clef; Rue de Bertaimont; Boulevard Sainctelette",
    ),
    _commune(
        "7100",
        "La Louvière",
        "fr",
        "SWDE",
        "Rue Sylvain Guyaux; Rue Albert Ier; Boulevard Mairaux; Rue Hamoir",
    ),
    _commune(
        "7500",
        "Tournai",
        "fr",
        "SWDE",
        "Quai Dumon; Boulevard Bara; Rue Saint-Martin; "
        "Avenue des Frères Rimbaut; Boulevard Léopold",
    ),
)
BRABANT_WALLON: Final = (
    _commune(
        "1300",
        "Wavre",
        "fr",
        "SWDE",
        "Rue de Bruxelles; Chaussée de Louvain; Rue du Pont du Christ; Chaussée de Namur",
    ),
    _commune(
        "1340",
        "Ottignies-Louvain-la-Neuve",
        "fr",
        "SWDE",
        "Avenue des Combattants; Rue du Monument; Avenue Provinciale; Boulevard Martin",
    ),
    _commune(
        "1400",
        "Nivelles",
        "fr",
        "SWDE",
        "Rue de Namur; Faubourg de Mons; Rue de Soignies; Faubourg de Bruxelles",
    ),
    _commune(
        "1410",
        "Waterloo",
        "fr",
        "SWDE",
        "Chaussée de Bruxelles; Chaussée de Tervuren; Avenue Reine Astrid; Rue de la Station",
    ),
    _commune(
        "1420",
        "Braine-l'Alleud",
        "fr",
        "SWDE",
        "Avenue Alphonse Allard; Avenue Léon Jourez; Rue Sainte-Anne",
    ),
)
ANTWERPEN: Final = (
    _commune(
        "2000",
        "Antwerpen",
        "nl",
        "water-link",
        "Nationalestraat; Kloosterstraat; "
        "Lange Nieuwstraat; Frankrijklei; Britselei; Volkstraat; Amerikalei; Vlaamsekaai",
    ),
    _commune(
        "2018",
        "Antwerpen",
        "nl",
        "water-link",
        "Mechelsesteenweg; Belgiëlei; "
        "Lange Leemstraat; Plantin en Moretuslei; Van Eycklei; Lamorinièrestraat",
    ),
    _commune("2100", "Deurne", "nl", "water-link", "Herentalsebaan; Gallifortlei; Bosuilbaan"),
    _commune(
        "2300",
        "Turnhout",
        "nl",
        "Pidpa",
        "Gasthuisstraat; Herentalsstraat; Patersstraat; de Merodelei",
    ),
    _commune(
        "2600",
        "Berchem",
        "nl",
        "water-link",
        "Statiestraat; Grotesteenweg; Cogels-Osylei; Fruithoflaan; Elisabethlaan",
    ),
    _commune(
        "2800",
        "Mechelen",
        "nl",
        "Pidpa",
        "Bruul; Hanswijkstraat; Leopoldstraat; Adegemstraat; Liersesteenweg",
    ),
)
OOST_VLAANDEREN: Final = (
    _commune(
        "9000",
        "Gent",
        "nl",
        "Farys",
        "Coupure Links; Veldstraat; Kortrijksesteenweg; "
        "Koningin Elisabethlaan; Sint-Pietersnieuwstraat; Burgstraat; Voskenslaan; Nederkouter",
    ),
    _commune("9050", "Gentbrugge", "nl", "Farys", "Brusselsesteenweg; Kerkstraat"),
    _commune(
        "9100",
        "Sint-Niklaas",
        "nl",
        "De Watergroep",
        "Stationsstraat; Ankerstraat; Parklaan; Plezantstraat; Kokkelbeekstraat",
    ),
    _commune(
        "9300",
        "Aalst",
        "nl",
        "Farys",
        "Molenstraat; Gentsestraat; Parklaan; Geraardsbergsestraat; Dendermondsesteenweg",
    ),
)
WEST_VLAANDEREN: Final = (
    _commune(
        "8000",
        "Brugge",
        "nl",
        "Farys",
        "Langestraat; Ezelstraat; Katelijnestraat; Smedenstraat; Hoogstraat; Komvest",
    ),
    _commune(
        "8400",
        "Oostende",
        "nl",
        "Farys",
        "Torhoutsesteenweg; Nieuwpoortsesteenweg; "
        "Alfons Pieterslaan; Leopold II-laan; Van Iseghemlaan",
    ),
    _commune(
        "8500",
        "Kortrijk",
        "nl",
        "De Watergroep",
        "Doorniksestraat; Zwevegemsestraat; Budastraat; Doorniksewijk",
    ),
    _commune("8670", "Koksijde", "nl", "Aquaduin", "Zeelaan; Strandlaan; Koninklijke Baan"),
)
LEUVEN_HASSELT: Final = (
    _commune(
        "1800",
        "Vilvoorde",
        "nl",
        "De Watergroep",
        "Leuvensestraat; Schaarbeeklei; Vlaanderenstraat; Mechelsesteenweg",
    ),
    _commune(
        "3000",
        "Leuven",
        "nl",
        "De Watergroep",
        "Bondgenotenlaan; Naamsestraat; "
        "Tiensestraat; Brusselsestraat; Diestsestraat; Vaartstraat; Justus Lipsiusstraat",
    ),
    _commune(
        "3001", "Heverlee", "nl", "De Watergroep", "Naamsesteenweg; Celestijnenlaan; Waversebaan"
    ),
    _commune("3010", "Kessel-Lo", "nl", "De Watergroep", "Diestsesteenweg; Martelarenlaan"),
    _commune(
        "3500",
        "Hasselt",
        "nl",
        "De Watergroep",
        "Maastrichterstraat; Demerstraat; Luikersteenweg; Guffenslaan; Koning Boudewijnlaan",
    ),
)

FRENCH: Final = BRUSSELS_FR + LIEGE + NAMUR + HAINAUT + BRABANT_WALLON
DUTCH: Final = BRUSSELS_NL + ANTWERPEN + OOST_VLAANDEREN + WEST_VLAANDEREN + LEUVEN_HASSELT
COMMUNES: Final = FRENCH + DUTCH

# A small office works in one city, a larger one in two or three neighbouring areas.
PORTFOLIOS_FR: Final = (
    BRUSSELS_FR,
    BRUSSELS_FR + BRABANT_WALLON,
    LIEGE,
    NAMUR + BRABANT_WALLON,
    HAINAUT,
    HAINAUT + NAMUR,
)
PORTFOLIOS_NL: Final = (
    ANTWERPEN,
    OOST_VLAANDEREN + WEST_VLAANDEREN,
    LEUVEN_HASSELT + BRUSSELS_NL,
    ANTWERPEN + OOST_VLAANDEREN,
    WEST_VLAANDEREN,
)
# What the three organisations of the first set have: a Brussels office, one for Brussels and the
# province south of it, and one with a Dutch name all over Flanders.
FIRST_PORTFOLIOS: Final = (
    BRUSSELS_FR,
    BRUSSELS_FR + BRABANT_WALLON + NAMUR,
    ANTWERPEN + OOST_VLAANDEREN + WEST_VLAANDEREN + LEUVEN_HASSELT,
)
