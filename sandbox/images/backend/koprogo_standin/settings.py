"""The environment, with KoproGo's names, defaults and traps."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from koprogo_standin import faults
from koprogo_standin.faults import Faults

LEVELS = ("off", "error", "warn", "info", "debug", "trace")


class SettingError(Exception):
    """A setting without which the server does not start."""


@dataclass(frozen=True)
class Settings:
    # Secrets stay out of the repr, which ends up in tracebacks.
    database_url: str = field(repr=False)
    jwt_secret: str = field(repr=False)
    host: str
    port: int
    workers: int
    rate_limiting: bool
    cors_origins: tuple[str, ...]
    pool_max: int
    pool_min: int
    acquire_timeout: int
    upload_dir: Path
    log_level: str
    faults: Faults
    extra_migrations: Path | None

    @property
    def log_requests(self) -> bool:
        return LEVELS.index(self.log_level) >= LEVELS.index("info")


def read_dotenv(path: Path) -> dict[str, str]:
    """KoproGo loads a `.env` of its working directory; variables that are set win over it."""
    if not path.is_file():
        return {}
    values: dict[str, str] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = raw.strip().removeprefix("export ").partition("=")
        if not equals or name.startswith("#"):
            continue
        value = value.strip()
        if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
            value = value[1 : value.index(value[0], 1)]
        else:
            value = value.split(" #", 1)[0].rstrip()
        values[name.strip()] = value
    return values


def load(environment: Mapping[str, str], directory: Path) -> Settings:
    env = {**read_dotenv(directory / ".env"), **environment}

    def number(name: str, default: int, least: int = 0) -> int:
        # An unreadable number silently becomes the default there, so it does here.
        value = env.get(name, "")
        return max(least, int(value)) if value.isascii() and value.isdigit() else default

    if "DATABASE_URL" not in env:
        raise SettingError("DATABASE_URL must be set")
    port = env.get("SERVER_PORT", "8080")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingError("SERVER_PORT must be a valid number")
    try:
        wanted_faults = faults.parse(env.get("STANDIN_FAULTS", ""))
    except ValueError as error:
        raise SettingError(str(error)) from error
    extra = env.get("STANDIN_EXTRA_MIGRATIONS", "")
    if extra and not Path(extra).is_dir():
        raise SettingError(f"STANDIN_EXTRA_MIGRATIONS: {extra} is not a directory")
    origins = env.get("CORS_ALLOWED_ORIGINS", "http://localhost:3000")
    pool_max = number("DB_POOL_MAX_CONNECTIONS", 10, least=1)
    return Settings(
        database_url=env["DATABASE_URL"],
        jwt_secret=env.get("JWT_SECRET", "super-secret-key-change-in-production"),
        host=env.get("SERVER_HOST", "127.0.0.1"),
        port=int(port),
        workers=number("ACTIX_WORKERS", 2, least=1),
        # Only a literal "false" switches it off.
        rate_limiting=env.get("ENABLE_RATE_LIMITING", "true").lower() != "false",
        cors_origins=tuple(filter(None, (origin.strip() for origin in origins.split(",")))),
        pool_max=pool_max,
        pool_min=min(number("DB_POOL_MIN_CONNECTIONS", 2), pool_max),
        acquire_timeout=number("DB_POOL_ACQUIRE_TIMEOUT", 30, least=1),
        upload_dir=Path(env.get("UPLOAD_DIR", "./uploads")),
        log_level=log_level(env.get("RUST_LOG", "info")),
        faults=wanted_faults,
        extra_migrations=Path(extra) if extra else None,
    )


def log_level(directives: str) -> str:
    """The level of `warn,sqlx=info` is warn: only the part without a module counts here."""
    for part in directives.lower().split(","):
        if part.strip() in LEVELS:
            return part.strip()
    return "error"


def current() -> Settings:
    return load(os.environ, Path.cwd())
