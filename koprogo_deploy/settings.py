"""Every setting of an environment, typed: what `group_data/` says, checked once at the door.

Pure: no host, no clock, no network. `door.py` gathers the values and says where each was set.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from koprogo_deploy import sizing
from koprogo_deploy.units import parse_size, show_size

Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(show_size)]

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9.-]+(?::\d+)?/[a-z0-9._/-]+)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOVING_TAGS = ("latest", "main", "master", "stable", "edge", "nightly", "dev", "develop")
_PLACEHOLDER = "example.invalid"


def _domain(name: str) -> str:
    labels = name.split(".")
    if name.endswith(_PLACEHOLDER):
        raise ValueError(f'"{name}" is the placeholder; write the domain you own')
    if "://" in name or "/" in name:
        raise ValueError('a domain has no scheme and no path; write "koprogo.example.be"')
    if ":" in name:
        raise ValueError("a domain has no port; the ports are public_http_port, public_https_port")
    if name != name.lower():
        raise ValueError(f'write it in lower case: "{name.lower()}"')
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError('not a domain name; write, for instance, "koprogo.example.be"')
    if labels[-1].isdigit():
        raise ValueError("an IP address is not a domain: certificates are issued for names")
    return name


def _origin(origin: str) -> str:
    if _PLACEHOLDER in origin:
        raise ValueError(f'"{origin}" is the placeholder; write the domain you own')
    if "*" in origin:
        raise ValueError(
            'KoproGo refuses to start with a wildcard; write each origin: "https://koprogo.be"'
        )
    if not re.match(r"https?://", origin):
        raise ValueError(f'an origin needs its scheme: "https://{origin}"')
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", origin):
        raise ValueError('an origin is scheme and host only, no path, no final "/"')
    return origin


def _network(address: str) -> str:
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise ValueError(
            f'"{address}" is not an address or network; write "203.0.113.7" or "203.0.113.0/24"'
        ) from None


def _image(reference: str) -> str:
    match = _IMAGE.fullmatch(reference)
    if not match:
        raise ValueError(
            "not an image reference with its registry; write, for instance, "
            '"ghcr.io/gilmry/koprogo/backend:main-17f4460"'
        )
    tag, digest = match["tag"], match["digest"]
    if tag == "latest":
        raise ValueError('"latest" is another image every day; name the tag you tested')
    if tag in _MOVING_TAGS and not digest:
        raise ValueError(f'"{tag}" moves; name a tag that does not, or add "@sha256:…"')
    if not tag and not digest:
        raise ValueError('no tag, which means "latest"; name the tag you tested')
    return reference


def _seconds(text: object) -> int:
    match = re.fullmatch(r"(\d+)\s*(s|min)", str(text).strip())
    if not match or match[1] == "0":
        raise ValueError('write a whole number of seconds or minutes, such as "30s" or "2min"')
    return int(match[1]) * (60 if match[2] == "min" else 1)


Domain = Annotated[str, AfterValidator(_domain)]
Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]
Image = Annotated[str, AfterValidator(_image)]
Seconds = Annotated[int, BeforeValidator(_seconds), PlainSerializer(lambda s: f"{s}s")]
Weight = Annotated[int, Field(ge=2, le=262144)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]

SERVICES = ("traefik", "postgres", "backend", "frontend")
SWITCHED = ("backend", "frontend")  # these run as blue or green and are switched, not recreated


class Settings(BaseModel):
    """All settings of one environment. Each field is a name in `group_data/`.

    The fields' comments in `group_data/all.py` are the documentation for operators.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    environment: Literal["production", "staging", "sandbox"]

    # the machine
    vps_vcpus: Count
    vps_memory: Size
    vps_disk: Size
    vps_disk_kind: Literal["ssd", "nvme", "hdd"]
    swap: Size | None
    timezone: str
    sysctl: dict[str, str]
    extra_packages: list[str]
    unattended_upgrades: bool
    journald_limit: Size
    time_synchronisation: bool
    admin_users: dict[str, list[str]]
    install_root: Annotated[str, Field(pattern=r"^/[a-z0-9/_-]+$")]

    # memory of the services, and the lines of the budget that are not services
    traefik_memory: Size
    postgres_memory: Size
    backend_memory: Size
    frontend_memory: Size
    traefik_binary_memory: Size
    backup_memory: Size
    engine_memory: Size
    system_memory: Size
    page_cache_memory: Size

    # CPU is shared by weight; there are no quotas
    traefik_cpu_weight: Weight
    postgres_cpu_weight: Weight
    backend_cpu_weight: Weight
    frontend_cpu_weight: Weight

    # images
    traefik_image: Image
    postgres_image: Image
    backend_image: Image
    frontend_image: Image
    require_digest: bool
    postgres_major: Annotated[int, Field(ge=15, le=18)]

    # the front door
    domain: Domain
    api_domain: Domain
    public_address: str | None
    scan_address: str | None
    public_http_port: Port
    public_https_port: Port
    ca_certificate: str | None
    tls: Literal["acme", "files"]
    tls_certificate: str | None
    tls_key: str | None
    acme_email: str | None
    acme_server: Annotated[str, Field(pattern=r"^https://")]
    acme_ca_certificate: str | None
    access_log: Literal["off", "stdout"]
    rate_limit_average: Count
    rate_limit_burst: Count
    login_limit_per_minute: Count
    load_client_addresses: list[Network]
    superadmin_addresses: list[Network]
    objective_rate: Count
    edge_network: Network

    # the backend
    backend_command: Annotated[list[str], Field(min_length=1)]
    backend_workers: Count
    backend_log_level: Literal["error", "warn", "info", "debug"]
    backend_environment: dict[str, str]
    backend_start_timeout: Seconds
    cors_origins: Annotated[list[Origin], Field(min_length=1)]
    pool_max_connections: Count
    pool_min_connections: Count
    pool_acquire_timeout: Seconds
    superadmin_guard: bool
    frontend_read_only: bool

    # Postgres
    postgres_connections_reserve: Count
    postgres_settings: dict[str, str]

    # seed
    seed_enabled: bool
    seed_number: Annotated[int, Field(ge=1, le=65535)]
    seed_scale: Annotated[int, Field(ge=1, le=1000)]
    seed_via: Literal["sql", "api"]

    # releases
    lock_wait: Seconds
    releases_kept: Annotated[int, Field(ge=2, le=50)]

    @property
    def max_connections(self) -> int:
        """Connections Postgres must allow: both colours' pools during a switch, and a reserve."""
        return 2 * self.pool_max_connections + self.postgres_connections_reserve

    def memory(self, service: str) -> int:
        """Memory limit of a service, in bytes."""
        return int(getattr(self, f"{service}_memory"))

    def image(self, service: str) -> str:
        """The image a service asks for, as written in group data."""
        return str(getattr(self, f"{service}_image"))

    def cpu_weight(self, service: str) -> int:
        """Relative share of the CPU of a service; 1024 is Docker's default."""
        return int(getattr(self, f"{service}_cpu_weight"))

    @property
    def acme_authority(self) -> str:
        """Host name of the ACME server: its certificates are kept apart from another's."""
        return urlsplit(self.acme_server).hostname or ""

    @property
    def url(self) -> str:
        """Where people find the site, as it looks from outside."""
        return _url(self.domain, self.public_https_port)

    @property
    def api_url(self) -> str:
        """Where the API is found from outside."""
        return _url(self.api_domain, self.public_https_port) + "/api/v1"

    @property
    def hash(self) -> str:
        """Short hash of all the settings; equal settings have an equal one."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was written
        return sizing.resolve(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _together(self) -> Settings:
        problems = list(_contradictions(self))
        if problems:
            raise Contradictions(problems)
        return self


class Contradictions(ValueError):
    """Settings that are right one by one and wrong together: pairs of field and message."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


def _url(domain: str, port: int) -> str:
    return f"https://{domain}" + ("" if port == 443 else f":{port}")


def _contradictions(s: Settings) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if s.require_digest:
        found += [
            (f"{name}_image", 'require_digest asks for a digest; add "@sha256:…" to the image')
            for name in SERVICES
            if "@sha256:" not in s.image(name)
        ]
    if s.domain == s.api_domain:
        found.append(("api_domain", "the same as domain; the API needs a name of its own"))
    if s.pool_min_connections > s.pool_max_connections:
        found.append(
            ("pool_min_connections", f"above pool_max_connections ({s.pool_max_connections})")
        )
    written = s.postgres_settings.get("max_connections")
    if written is not None and written.isdigit() and int(written) < s.max_connections:
        found.append(
            (
                "pool_max_connections",
                f"two colours of {s.pool_max_connections} connections and "
                f"{s.postgres_connections_reserve} in reserve are {s.max_connections}, and "
                f"postgres_settings allows {written}; lower the pool to "
                f"{max(1, (int(written) - s.postgres_connections_reserve) // 2)} or drop "
                "max_connections from postgres_settings (it is computed)",
            )
        )
    if s.rate_limit_average < s.objective_rate and not s.load_client_addresses:
        found.append(
            (
                "rate_limit_average",
                f"{s.rate_limit_average} requests a second for each client would block the load "
                f"test at {s.objective_rate}; raise it to {s.objective_rate} or more, or list the "
                "load client in load_client_addresses",
            )
        )
    if s.rate_limit_burst < s.rate_limit_average:
        found.append(("rate_limit_burst", f"below rate_limit_average ({s.rate_limit_average})"))
    if s.tls == "files" and not (s.tls_certificate and s.tls_key):
        found.append(("tls", '"files" needs tls_certificate and tls_key'))
    if s.tls == "acme" and not s.acme_email:
        found.append(("acme_email", 'missing; tls = "acme" needs an address for expiry warnings'))
    if s.tls == "acme" and s.acme_email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.\w+", s.acme_email):
        found.append(("acme_email", f'"{s.acme_email}" is not an e-mail address'))
    if s.tls == "acme" and (s.acme_email or "").endswith(_PLACEHOLDER):
        found.append(("acme_email", "the placeholder; write your own e-mail address"))
    secret_like = [k for k in s.backend_environment if re.search("SECRET|PASSWORD|TOKEN|KEY", k)]
    found += [
        ("backend_environment", f"{name} looks like a secret; it belongs in .env.{s.environment}")
        for name in secret_like
    ]
    return found
