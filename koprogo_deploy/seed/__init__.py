"""The realistic seed: three Belgian property managers, reproducible from a number.

`generate` makes the rows and nothing else; `insert_sql`, `clear_sql` and `password_sql` write psql
scripts; `STATE_SQL`, `parse_state` and `decide` say whether there is anything to do. Nothing here
talks to a host.
"""

from koprogo_deploy.seed.generate import generate
from koprogo_deploy.seed.identity import (
    MAX_NUMBER,
    MAX_SCALE,
    SeedError,
    fingerprint,
    is_seeded,
    seed_identity,
    seed_uuid,
)
from koprogo_deploy.seed.model import (
    Building,
    Category,
    Dataset,
    Expense,
    Organization,
    Owner,
    PaymentStatus,
    Unit,
    UnitType,
    User,
    summary,
)
from koprogo_deploy.seed.sql import clear_sql, insert_sql, password_sql
from koprogo_deploy.seed.state import (
    NO_TABLES,
    STATE_SQL,
    Decision,
    State,
    decide,
    parse_state,
    scale_of,
)

__all__ = [
    "MAX_NUMBER",
    "MAX_SCALE",
    "NO_TABLES",
    "STATE_SQL",
    "Building",
    "Category",
    "Dataset",
    "Decision",
    "Expense",
    "Organization",
    "Owner",
    "PaymentStatus",
    "SeedError",
    "State",
    "Unit",
    "UnitType",
    "User",
    "clear_sql",
    "decide",
    "fingerprint",
    "generate",
    "insert_sql",
    "is_seeded",
    "parse_state",
    "password_sql",
    "scale_of",
    "seed_identity",
    "seed_uuid",
    "summary",
]
