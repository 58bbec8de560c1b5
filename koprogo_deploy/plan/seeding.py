"""Whether a deploy seeds, from what the database holds. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from koprogo_deploy import direct, seed
from koprogo_deploy.door import Environment
from koprogo_deploy.seed import Decision

LATER = Decision("seed", "once the application's tables are there")


def decide(environment: Environment, raw: Mapping[str, Any]) -> Decision:
    """What a deploy does about the realistic data.

    Args:
        environment: which seed is wanted, and its password.
        raw: the answer to `seed.STATE_SQL`; empty where there is no database yet.

    Raises:
        seed.SeedError: the answer is none, or number or scale is out of range.
    """
    settings = environment.settings
    state = seed.parse_state(json.dumps(raw)) if raw else None
    if state is None or not state.schema:
        return LATER
    if settings.seed_via == "api":
        if state.total_organizations:
            return Decision("nothing", "there is data already; KoproGo's own seed takes none")
        return Decision("seed", "by KoproGo's own endpoint")
    found = seed.decide(state, settings.seed_number, settings.seed_scale)
    password, told = environment.secrets["SEED_PASSWORD"], state.password_told
    if found.action == "nothing" and told and not direct.is_told(password, told):
        return Decision("password", "the seeded logins get the new SEED_PASSWORD")
    return found
