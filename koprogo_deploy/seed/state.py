"""What the database holds of a seed, and what that means for a run: look, then decide."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from uuid import UUID

from koprogo_deploy.database import digest
from koprogo_deploy.seed.generate import login_email, organization_slug
from koprogo_deploy.seed.identity import (
    SeedError,
    check_number_and_scale,
    is_seeded,
    seed_identity,
)
from koprogo_deploy.seed.sql import schema_present_sql, seeded_sql

COUNTED: Final = ("organizations", "users", "buildings", "units", "owners", "expenses")

_SEEDED_ORGS: Final = f"SELECT id FROM organizations WHERE {seeded_sql('id')}"  # noqa: S608
_COUNTS: Final = ", ".join(
    f"'{table}', (SELECT count(*) FROM {table} WHERE {seeded_sql('id')})"  # noqa: S608
    for table in COUNTED
)
# A login or slug that some seed would use, of a user or organisation that is not the seed's.
_LOGINS: Final = r"^admin@((small|medium|large)\.be|(small|medium|large)-[0-9]+\.example)$"
_SLUGS: Final = "^(small|medium|large)-[0-9]+$"
_INNER: Final = f"""SELECT encode(convert_to(json_build_object(
  'schema', true,
  'counts', json_build_object({_COUNTS}),
  'organization_ids', (SELECT coalesce(json_agg(id ORDER BY id), '[]') FROM ({_SEEDED_ORGS}) AS s),
  'password_told', (SELECT {digest("password_hash")} FROM users
    WHERE email = 'admin@small.be' AND {seeded_sql("id")}),
  'total_organizations', (SELECT count(*) FROM organizations),
  'taken_slugs', (SELECT coalesce(json_agg(slug ORDER BY slug), '[]') FROM organizations
    WHERE slug ~ '{_SLUGS}' AND NOT {seeded_sql("id")}),
  'taken_logins', (SELECT coalesce(json_agg(email ORDER BY email), '[]') FROM users
    WHERE email ~ '{_LOGINS}'
      AND (organization_id IS NULL OR NOT {seeded_sql("organization_id")}))
)::text, 'UTF8'), 'hex') AS j"""  # noqa: S608

# A plain SELECT that names a missing table fails before it starts. query_to_xml takes its query as
# text and looks the tables up only when it is called, which CASE prevents where they are missing;
# the answer passes through XML as hexadecimal, so that nothing in it needs unescaping.
STATE_SQL: Final = f"""SELECT CASE WHEN {schema_present_sql()}
THEN convert_from(decode(substring(
  query_to_xml($q${_INNER}$q$, false, true, '')::text FROM '<j>([0-9a-f]*)</j>'
), 'hex'), 'UTF8')::json
ELSE '{{"schema": false}}'::json END"""  # noqa: S608
"""One SELECT that answers one JSON object; read it with `parse_state`."""


@dataclass(frozen=True)
class State:
    """What is there: counts of rows with seeded ids, and what stands in a new seed's way.

    `password_told` is what `database.digest` tells of the hash of the seeded ``admin@small.be``,
    None when there is none. Where
    `schema` is false the application's tables do not exist and the rest is empty.
    """

    schema: bool
    counts: Mapping[str, int]
    organization_ids: tuple[UUID, ...]
    password_told: str | None = field(repr=False)
    total_organizations: int
    taken_slugs: tuple[str, ...]
    taken_logins: tuple[str, ...]


EMPTY_SCHEMA: Final = State(
    False, dict.fromkeys(COUNTED, 0), (), None, 0, (), ()
)  # fmt: skip


def parse_state(json_text: str) -> State:
    """Read the answer to `STATE_SQL`.

    Args:
        json_text: what psql printed (``-At``), white space around it allowed.

    Returns:
        The state.

    Raises:
        SeedError: not that answer; the message says what is missing and quotes nothing, since the
            answer holds a password hash.
    """
    try:
        answer = json.loads(json_text)
    except ValueError as error:
        raise SeedError(
            "the database's answer about the seed is not JSON"
            f" ({len(json_text.strip())} characters); is psql called with -At?"
        ) from error
    if not isinstance(answer, dict) or not isinstance(answer.get("schema"), bool):
        raise SeedError('the database\'s answer about the seed lacks "schema"')
    if not answer["schema"]:
        return EMPTY_SCHEMA
    return State(
        schema=True,
        counts=_counts(answer),
        organization_ids=_ids(answer),
        password_told=_optional_text(answer, "password_told"),
        total_organizations=_whole(answer, "total_organizations"),
        taken_slugs=_texts(answer, "taken_slugs"),
        taken_logins=_texts(answer, "taken_logins"),
    )


def _wrong(key: str, wanted: str) -> SeedError:
    return SeedError(f'the database\'s answer about the seed: "{key}" is not {wanted}')


def _whole(answer: Mapping[str, Any], key: str) -> int:
    value = answer.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(key, "a count")
    return value


def _counts(answer: Mapping[str, Any]) -> dict[str, int]:
    counts = answer.get("counts")
    if not isinstance(counts, dict):
        raise _wrong("counts", "an object")
    return {table: _whole(counts, table) for table in COUNTED}


def _texts(answer: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = answer.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, "a list of texts")
    return tuple(value)


def _ids(answer: Mapping[str, Any]) -> tuple[UUID, ...]:
    texts = _texts(answer, "organization_ids")
    if not all(is_seeded(text) for text in texts):
        raise _wrong("organization_ids", "a list of seeded ids")
    return tuple(UUID(text) for text in texts)


def _optional_text(answer: Mapping[str, Any], key: str) -> str | None:
    value = answer.get(key)
    if value is not None and not isinstance(value, str):
        raise _wrong(key, "a text")
    return value


def scale_of(state: State) -> int | None:
    """Scale of the seed that is there; None where there is none, or more than one."""
    scales = {seed_identity(id_)[1] for id_ in state.organization_ids}
    return scales.pop() if len(scales) == 1 else None


@dataclass(frozen=True)
class Decision:
    """What a run has to do; `what`, `why` and `fix` are for people, and empty where needless.

    `password`: the seed is there, and its logins' password is another one.
    """

    action: Literal["nothing", "seed", "password", "refuse"]
    what: str
    why: str = ""
    fix: str = ""

    @property
    def changes(self) -> bool:
        """Whether a run writes to the database."""
        return self.action in ("seed", "password")

    @property
    def message(self) -> str:
        """The three in one text."""
        return " ".join(part for part in (self.what, self.why, self.fix) if part)


NO_TABLES: Final = Decision(
    "refuse",
    "There is nothing to seed yet.",
    "The application's tables do not exist; it makes them when it starts.",
    "Deploy a release first.",
)


def decide(state: State, number: int, scale: int) -> Decision:
    """Decide from what is there whether to seed.

    Only the ids of organisations count. People add and delete rows: fewer organisations, or any
    other number of the rest, is no reason to seed again.

    Args:
        state: what the database holds.
        number: which data set is wanted, 0 to 65535.
        scale: its size, 1 to 1000.

    Returns:
        ``nothing`` when (what is left of) this seed is there; ``seed`` when no seed is; ``refuse``
        when there is no schema, when another seed is there, or when someone who is not seeded has
        a slug or a login of this one.

    Raises:
        SeedError: number or scale is out of range.
    """
    check_number_and_scale(number, scale)
    if not state.schema:
        return NO_TABLES
    others = sorted({seed_identity(id_) for id_ in state.organization_ids} - {(number, scale)})
    if others:
        return _refuse_other_seed(others, number, scale)
    if state.organization_ids:
        there, all_ = len(state.organization_ids), 3 * scale
        return Decision(
            "nothing",
            f"Seed {number}, scale {scale} is there: {there} of {all_} organisations.",
        )
    return _refuse_taken(state, scale) or Decision(
        "seed", f"Seed {number}, scale {scale} is to be inserted: {3 * scale} organisations."
    )


def _refuse_other_seed(others: list[tuple[int, int]], number: int, scale: int) -> Decision:
    """Another seed is there: its logins and slugs are the same, so both cannot be."""
    found = " and ".join(f"number {n}, scale {s}" for n, s in others)
    return Decision(
        "refuse",
        f"Another seed is there: {found}; wanted was number {number}, scale {scale}.",
        "Two seeds share logins and slugs, so that one cannot stand beside the other.",
        "Run `koprogo seed clear <environment>` first (it removes the seeded organisations with"
        " everything in them), or set number and scale to those that are there.",
    )


def _refuse_taken(state: State, scale: int) -> Decision | None:
    """Someone who is not seeded has a slug or a login that this seed would use."""
    slugs = {organization_slug(index) for index in range(3 * scale)}
    logins = {login_email(index) for index in range(3 * scale)}
    taken = sorted(slugs & set(state.taken_slugs)) + sorted(logins & set(state.taken_logins))
    if not taken:
        return None
    return Decision(
        "refuse",
        f"Not seeded: {', '.join(taken[:10])}{' and more' if len(taken) > 10 else ''} in use.",
        "An organisation or a user that the seed did not make has that slug or login, and both"
        " are unique in the database.",
        "Rename or remove it in the application, or leave this environment without a seed;"
        " `koprogo seed clear` does not touch it.",
    )
