"""Belgian people: names of the communities that live there, e-mail addresses, telephone numbers."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from koprogo_deploy.seed.draw import Draw
from koprogo_deploy.seed.places import Commune


@dataclass(frozen=True)
class _Community:
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]


def _community(first_names: str, last_names: str) -> _Community:
    return _Community(tuple(first_names.split(", ")), tuple(last_names.split(", ")))


_FRENCH = _community(
    "Marie, Jean, Anne, Philippe, Isabelle, Michel, Nathalie, Marc, Catherine, Pierre, Sophie, "
    "Thierry, Véronique, Benoît, Martine, Olivier, Christine, Vincent, Valérie, Nicolas, Julie, "
    "François, Céline, Luc, Aurélie, Xavier, Hélène, Bernard, Émilie, Pascal, Monique, Antoine, "
    "Françoise, Thomas, Laurence, Didier, Charlotte, Alain, Bénédicte, Quentin, Geneviève, "
    "Jacqueline, Maxime, Colette, Sébastien, Anne-Marie, Jean-Luc, Raphaël",
    "Dubois, Lambert, Dupont, Martin, Simon, Laurent, Leroy, Renard, Lejeune, Denis, Gérard, "
    "Collard, Fontaine, Mathieu, Noël, Henrard, Delvaux, Wauters, Lemaire, Marchal, Collignon, "
    "Gilles, Servais, Thiry, Piron, Delhaye, Evrard, Rousseau, Bodart, Jacquemin, Pirard, "
    "Hubert, Dumont, Cornet, Legrand, Carlier, Bastin, Dardenne, Lecomte, Lefèvre, Urbain, "
    "Poncelet, Baudoux, Degueldre, Mahieu, Hanotte, De Backer, Vandenbroeck, Deschamps, Wilmet",
)
_DUTCH = _community(
    "Jan, An, Peter, Els, Luc, Kristien, Tom, Hilde, Koen, Ingrid, Bart, Griet, Wim, Katrien, "
    "Geert, Lieve, Stijn, Annelies, Dirk, Marleen, Pieter, Sofie, Johan, Liesbeth, Kristof, "
    "Veerle, Joris, Nele, Filip, Greet, Maarten, Leen, Jef, Eline, Wouter, Rita, Dries, Tine, "
    "Guido, Jozefien, Hendrik, Mieke, Bram, Lotte, Marc, Karolien, Joke, Ruben",
    "Peeters, Janssens, Maes, Jacobs, Willems, Mertens, Claes, Goossens, Wouters, De Smet, "
    "Vermeulen, Pauwels, Aerts, Michiels, Hermans, Martens, Van den Broeck, De Clercq, Desmet, "
    "Lemmens, Verhoeven, Van Damme, Stevens, Segers, Declercq, Smets, Baert, Verstraete, "
    "De Vos, Coppens, Van de Velde, Bogaert, Timmermans, De Cock, Verbeke, Geerts, Cools, "
    "De Wilde, Callens, Vandenberghe, Thys, Van Hoof, Ceulemans, Lauwers, Van Acker, De Meyer, "
    "Verlinden, Moens, Vanhoutte, Heylen",
)
_MOROCCAN = _community(
    "Mohamed, Fatima, Rachid, Samira, Karim, Nadia, Youssef, Naïma, Hassan, Leïla, Mehdi, Khadija",
    "El Amrani, Benali, El Idrissi, Bouzidi, Amrani, El Khattabi, Bennani, Ouali, Haddad, Aziz",
)
_TURKISH = _community(
    "Mehmet, Ayşe, Mustafa, Emine, Ali, Zeynep, Hüseyin, Elif, Emre, Hatice",
    "Yılmaz, Kaya, Demir, Şahin, Çelik, Yıldız, Öztürk, Aydın, Arslan, Doğan",
)
_ITALIAN = _community(
    "Giuseppe, Maria, Salvatore, Rosa, Antonio, Concetta, Calogero, Graziella, Enzo, Laura",
    "Rossi, Russo, Greco, Lombardo, Di Stefano, Marino, Vitale, Amato, Ricci, Caruso, Salerno",
)
_CONGOLESE = _community(
    "Patrick, Chantal, Serge, Béatrice, Christian, Solange, Jean-Pierre, "
    "Clarisse, Trésor, Mireille",
    "Ilunga, Kabongo, Mbuyi, Tshimanga, Mukendi, Kalala, Lukusa, Ngoy, Kasongo, Mutombo",
)
_PORTUGUESE = _community(
    "João, Maria, Manuel, Ana, António, Teresa, Paulo, Fátima",
    "Fernandes, da Silva, Pereira, dos Santos, Ferreira, Costa, Gonçalves",
)
_SPANISH = _community(
    "José, Carmen, Pilar, Carlos, Javier, Isabel, Dolores, Miguel",
    "García, López, Martínez, Sánchez, Álvarez, Fernández, Ruiz",
)
_POLISH = _community(
    "Piotr, Anna, Andrzej, Katarzyna, Marek, Tomasz, Agnieszka, Małgorzata",
    "Nowak, Wójcik, Kowalczyk, Mazur, Kaczmarek, Wróbel, Dudek",
)
_ROMANIAN = _community(
    "Elena, Ionuț, Mihaela, Andrei, Cristina, Gheorghe",
    "Popescu, Ionescu, Dumitru, Stan, Radu, Munteanu",
)

# How likely a name of each community is, by area; rough on purpose, to look like a list of owners
# from there and not like a census.
_MIXES: Final[dict[str, tuple[tuple[_Community, float], ...]]] = {
    "brussels-fr": (
        (_FRENCH, 46),
        (_DUTCH, 14),
        (_MOROCCAN, 14),
        (_TURKISH, 6),
        (_ITALIAN, 6),
        (_CONGOLESE, 5),
        (_PORTUGUESE, 3),
        (_SPANISH, 3),
        (_POLISH, 2),
        (_ROMANIAN, 1),
    ),
    "brussels-nl": (
        (_DUTCH, 52),
        (_FRENCH, 24),
        (_MOROCCAN, 9),
        (_TURKISH, 6),
        (_ITALIAN, 3),
        (_SPANISH, 2),
        (_POLISH, 3),
        (_ROMANIAN, 1),
    ),
    "fr": (
        (_FRENCH, 76),
        (_ITALIAN, 10),
        (_DUTCH, 4),
        (_MOROCCAN, 4),
        (_TURKISH, 2),
        (_SPANISH, 2),
        (_PORTUGUESE, 1),
        (_POLISH, 1),
    ),
    "nl": ((_DUTCH, 84), (_MOROCCAN, 5), (_TURKISH, 4), (_FRENCH, 3), (_POLISH, 3), (_ROMANIAN, 1)),
}

# Prefixes that no operator holds (libphonenumber's carrier data, 2024), in the range that every
# validator takes for a Belgian mobile: no message to an owner of ours ever reaches anyone.
_UNASSIGNED_PREFIXES: Final = ("452", "453", "454", "457", "459", "462", "464")

# RFC 2606 reserves .example: no mail sent there can arrive.
_MAIL_DOMAINS: Final = (
    ("mail.example", 5.0),
    ("webmail.example", 3.0),
    ("post.example", 2.0),
    ("telecom.example", 2.0),
)

# Letters that Unicode does not take apart into an ASCII letter and an accent.
_PLAIN: Final = str.maketrans({"ı": "i", "ł": "l", "Ł": "L", "ø": "o", "ß": "ss", "æ": "ae"})


@dataclass(frozen=True)
class Person:
    """A name, as two columns want it."""

    first_name: str
    last_name: str


def draw_person(draw: Draw, commune: Commune) -> Person:
    """A name that one meets in this commune."""
    mix = f"brussels-{commune.language}" if commune.in_brussels else commune.language
    community = draw.weighted(_MIXES[mix])
    return Person(draw.one(community.first_names), draw.one(community.last_names))


def draw_tradesman(draw: Draw, language: str) -> str:
    """A family name for a local firm, in ``fr`` or ``nl``."""
    return draw.one((_FRENCH if language == "fr" else _DUTCH).last_names)


def draw_mobile(draw: Draw) -> str:
    """A Belgian mobile number that nobody holds, such as ``+32 454 12 34 56`` (16 characters)."""
    prefix = draw.one(_UNASSIGNED_PREFIXES)
    return "+32 {} {:02d} {:02d} {:02d}".format(prefix, *(draw.whole(0, 99) for _ in range(3)))


def ascii_slug(text: str) -> str:
    """Lower-case ASCII letters, digits and hyphens only, for the local part of an address."""
    bare = unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9-]", "", bare.lower())


def draw_email(draw: Draw, person: Person, taken: set[str]) -> str:
    """An address on a reserved domain that nobody in the data set has yet.

    Args:
        draw: the stream to choose from.
        person: whose address it is.
        taken: the addresses given out so far; the new one is added.

    Returns:
        An address such as ``jan.peeters@mail.example``, with a number for a later namesake.
    """
    local = f"{ascii_slug(person.first_name)}.{ascii_slug(person.last_name)}"
    domain = draw.weighted(_MAIL_DOMAINS)
    wanted = draw.weighted(((local, 3.0), (f"{local}{draw.whole(50, 99)}", 1.0)))
    address, count = f"{wanted}@{domain}", 1
    while address in taken:
        count += 1
        address = f"{local}.{count}@{domain}"
    taken.add(address)
    return address
