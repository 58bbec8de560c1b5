"""What `koprogo` prints: tables that a person reads at a glance."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from koprogo_deploy import backups as where
from koprogo_deploy import budget as budgets
from koprogo_deploy import seed
from koprogo_deploy.door import Environment
from koprogo_deploy.settings import Settings
from koprogo_deploy.tuning import tune
from koprogo_deploy.units import megabytes

_KINDS = {"limit": "limit", "switch": "during a switch", "reserve": "reserve"}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        narrow = column in ("memory", "setting", "value", "service", "action")
        right = column == "memory"
        table.add_column(column, justify="right" if right else "left", no_wrap=narrow)
    return table


def budget(out: Console, environment: Environment) -> None:
    """The memory budget, line by line, and whether it fits."""
    proven = budgets.budget(environment.settings)
    out.print("Memory budget", style="bold")
    table = _table("memory", "what", "kind", "for")
    for line in proven.lines:
        table.add_row(megabytes(line.size), line.name, _KINDS[line.kind], line.why)
    table.add_row("", "", "", "")
    bold = Text(megabytes(proven.total), "bold"), Text("all at once, at worst", "bold")
    table.add_row(*bold, "", "")
    table.add_row(megabytes(proven.ram), "of the machine", "", "")
    out.print(table)
    if proven.fits:
        out.print(f"fits, {megabytes(proven.free)} to spare", style="green")
    else:
        out.print(f"does not fit: {budgets.overrun(proven)}", style="red")
    out.print()


def tuning(out: Console, environment: Environment) -> None:
    """Postgres' settings, each with its reason."""
    out.print("Postgres", style="bold")
    table = _table("setting", "value", "why")
    for setting in tune(environment.settings):
        table.add_row(setting.name, setting.value, Text(setting.reason, "dim"))
    out.print(table)
    out.print()


def backups(out: Console, environment: Environment) -> None:
    """Say where backups go if they do not outlive the host, and what they do not hold."""
    for warning in where.warnings(environment.settings):
        out.print(warning, style="yellow")


def about(out: Console, environment: Environment) -> None:
    """Where the site is and what to try next."""
    settings = environment.settings
    name = settings.environment
    authority = f" --cacert {settings.ca_certificate}" if settings.ca_certificate else ""
    out.print(f"KoproGo ({name}) is live: {settings.url}", style="bold")
    out.print(f"  API          {settings.api_url}", highlight=False)
    out.print(f"  try it       curl{authority} {settings.api_url}/health", soft_wrap=True)
    program = ".venv/bin/koprogo"  # works without the environment being activated
    if settings.seed_enabled:
        by_secret = f"{program} secrets show {name} SEED_PASSWORD"
        out.print("  log in       admin@small.be, admin@medium.be or admin@large.be")
        out.print(f"  password     {'admin123' if settings.seed_via == 'api' else by_secret}")
    tries = [
        (f"{program} plan {name}", "the memory budget, and what a deploy would change"),
        (f"{program} smoke {name}", "the smoke tests again"),
        (f"{program} ssh {name}", "a shell on the host"),
    ]
    if name == "sandbox":
        tries.append(("make test", "the whole test suite"))
    width = max(len(command) for command, _ in tries)
    for number, (command, why) in enumerate(tries):
        out.print(f"  {'' if number else 'next':12} {command:{width}}  {why}")


def seed_preview(out: Console, settings: Settings, rows: int) -> None:
    """Some rows of each kind of the seed."""
    from dataclasses import fields
    from datetime import UTC, datetime

    today = datetime.now(UTC).date()
    unused = "$2b$12$" + "." * 53
    data = seed.generate(settings.seed_number, settings.seed_scale, unused, today)
    hidden = {"password_hash", "created_at", "updated_at", "organization_id", "id"}
    for kind in ("organizations", "buildings", "units", "owners", "expenses"):
        items = getattr(data, kind)
        names = [f.name for f in fields(items[0]) if f.name not in hidden and "_id" not in f.name]
        out.print(Text.assemble((kind, "bold"), f" ({len(items)})"))
        table = _table(*names)
        for item in items[:rows]:
            table.add_row(*(str(getattr(item, name)) for name in names))
        out.print(table)
        out.print()
