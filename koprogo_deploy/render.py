"""Rendered files of a release. Pure: settings, digests and colours in, text out.

Templates hold no arithmetic; what they need is computed here. What a container mounts lies under
a path with the hash of its content, so that a changed file changes the service's definition and
an unchanged one does not, whichever release it came with.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from koprogo_deploy import database
from koprogo_deploy.budget import unlimited
from koprogo_deploy.data.host import INCOMING
from koprogo_deploy.secrets import OPTIONAL, Secrets
from koprogo_deploy.settings import SERVICES, SWITCHED, Settings
from koprogo_deploy.tuning import tune
from koprogo_deploy.units import MB, show_size

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

UPLOADS = "/app/uploads"  # of the backend's container; a volume

# Who reads a service's secrets, and whom the container runs as.
USERS = {"traefik": 65532, "postgres": 999, "backend": 1000, "frontend": 10001}

CLOSED_PATHS = (
    "/api/v1/auth/register",
    "/api/v1/seed",
    "/metrics",
    "/swagger-ui",
    "/api-docs",
    "/mcp",
)
# Answered to anybody, and deleted for anybody, by KoproGo of 2025 and 2026. The list of meetings
# and POST of a new one check their token themselves.
GUARDED_PATHS = (
    "PathPrefix(`/api/v1/meetings/`)",
    "PathRegexp(`^/api/v1/buildings/[^/]+/meetings`)",
)
SUPERADMIN_PATHS = ("/api/v1/users", "/api/v1/organizations", "/api/v1/stats")


@dataclass(frozen=True)
class Release:
    """A release before it has an id: its files and what decides whether it is another one.

    Attributes:
        files: text by path, relative to the release's directory; `manifest.json` is not there yet.
        definitions: each service as Compose gets it, without colour and spec label.
        specs: short hash of each definition; equal means nothing to do for that service.
        colours: `blue` or `green` of each switched service.
        images: digest reference by service.
        hash: over everything above: equal hash, same release.
    """

    files: dict[str, str]
    definitions: dict[str, dict[str, Any]]
    specs: dict[str, str]
    colours: dict[str, str]
    images: dict[str, str]
    hash: str


def short_hash(*texts: str) -> str:
    """Twelve hexadecimal digits of SHA-256 over the texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@cache
def environment(templates: Path) -> Environment:
    """Jinja as all our templates want it: strict, no stray blank lines, YAML-safe filters.

    Kept for the run, and with it the compiled templates: a deploy renders each several times.
    """
    jinja = Environment(  # noqa: S701 - writes configuration, not HTML
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters["yaml"] = _yaml
    jinja.filters["size"] = show_size
    return jinja


def _yaml(value: object) -> str:
    # JSON is YAML; Compose reads "$" as a variable unless doubled. Traefik has no "$" of ours.
    return json.dumps(value, ensure_ascii=False).replace("$", "$$")


def template(name: str, /, **context: object) -> str:
    """Render one template of `templates/`."""
    return environment(TEMPLATES).get_template(f"{name}.j2").render(**context)


def gateway(network: str) -> str:
    """The host's own address on a Docker network: the first one of its subnet."""
    return str(next(ipaddress.ip_network(network).hosts()))


def traefik_address(network: str) -> str:
    """Traefik's fixed address on the edge network, so that the host can ask it what it serves."""
    hosts = ipaddress.ip_network(network).hosts()
    next(hosts)
    return str(next(hosts))


def edge_range(network: str) -> str:
    """The upper half of the edge network, which Docker hands out to the other containers."""
    return str(list(ipaddress.ip_network(network).subnets())[1])


def backend_environment(settings: Settings) -> dict[str, str]:
    """The backend's settings that are no secrets: the complete list, and the group data's own."""
    ours = {
        "ACTIX_WORKERS": str(settings.backend_workers),
        "CORS_ALLOWED_ORIGINS": ",".join(settings.cors_origins),
        "DB_POOL_ACQUIRE_TIMEOUT": str(settings.pool_acquire_timeout),
        "DB_POOL_MAX_CONNECTIONS": str(settings.pool_max_connections),
        "DB_POOL_MIN_CONNECTIONS": str(settings.pool_min_connections),
        # KoproGo's own limiter allows one request in 100 minutes; the proxy limits instead.
        "ENABLE_RATE_LIMITING": "false",
        # Its limiter of logins (2026) allows five in 15 minutes to all behind one address, and
        # counts those that succeed; the proxy limits by login_limit_per_minute.
        "LOGIN_RATE_LIMIT_MAX": "1000000",
        "LOGIN_RATE_LIMIT_WINDOW_SECS": "60",
        "RUST_BACKTRACE": "0",
        "RUST_LOG": settings.backend_log_level,
        "SERVER_HOST": "0.0.0.0",  # noqa: S104 - inside its container, no published port
        "SERVER_PORT": "8080",
        "SMTP_ENABLED": "false",
        "STORAGE_PROVIDER": "local",
        # An upload of up to 50 MB is a temporary file first: /tmp is memory, and of 16 MB.
        "TMPDIR": f"{UPLOADS}/{INCOMING}",
        "UPLOAD_DIR": UPLOADS,
    }
    return ours | settings.backend_environment


def backend_exports(secrets: Secrets) -> list[str]:
    """Secrets that the backend reads under their own name, besides DATABASE_URL."""
    optional = [name for name in OPTIONAL if name in secrets.values]
    return ["JWT_SECRET", "METRICS_AUTH_TOKEN", "TOTP_ENCRYPTION_KEY", *optional]


def secret_sets(
    settings: Settings, secrets: Secrets, tls: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Secret files by service, as they lie on the host: name to content.

    Args:
        settings: decides what Traefik gets.
        secrets: the environment's secrets.
        tls: PEM text of the files that the settings name, by setting.
    """
    exports = ["DATABASE_PASSWORD", *backend_exports(secrets)]
    sets = {
        "postgres": {"postgres_password": secrets["POSTGRES_PASSWORD"]},
        "backend": {name.lower(): secrets[name] for name in exports},
    }
    if settings.tls == "files":
        sets["traefik"] = {name: tls[name] for name in ("tls_certificate", "tls_key")}
    elif settings.acme_ca_certificate:
        sets["traefik"] = {"acme_ca": tls["acme_ca_certificate"]}
    return sets


def secret_directories(sets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Directory name of each service's secrets: changes when one of them does."""
    return {
        service: f"{service}-{short_hash(*(f'{k}={v}' for k, v in sorted(files.items())))}"
        for service, files in sets.items()
    }


def render(
    settings: Settings,
    sets: Mapping[str, Mapping[str, str]],
    images: Mapping[str, str],
    colours: Mapping[str, str],
    release: str = "",
) -> Release:
    """Render every file of a release.

    Args:
        settings: the environment's settings.
        sets: secret files by service, for the paths only; no secret is rendered.
        images: digest reference of each service's image.
        colours: colour of each switched service.
        release: id for the heading of compose.yaml; no part of the hash.
    """
    mounted = _mounted(settings, sets, colours)
    hashes = {
        "traefik": short_hash(mounted["traefik/traefik.yaml"]),
        "postgres": short_hash(*(mounted[f"postgres/{n}"] for n in _POSTGRES_FILES)),
        "backend": short_hash(mounted["backend/start.sh"]),
        "frontend": short_hash(mounted["frontend/config.js"]),
    }
    directories = secret_directories(sets)
    context: dict[str, object] = {
        "settings": settings,
        "root": settings.install_root,
        "users": USERS,
        "images": images,
        "colours": colours,
        "hashes": hashes,
        "edge_gateway": gateway(settings.edge_network),
        "edge_range": edge_range(settings.edge_network),
        "traefik_address": traefik_address(settings.edge_network),
        "shared_memory": _shared_memory(settings),
        "backend_environment": {
            **backend_environment(settings),
            database.USER: database.login_name(directories["backend"]),
        },
        "secrets_of": {service: sorted(sets.get(service, {})) for service in SERVICES},
        "secret_files": {
            name: f"{settings.install_root}/secrets/{directories[service]}/{name}"
            for service, files in sorted(sets.items())
            for name in sorted(files)
        },
    }
    blank = template("compose.yaml", **context, specs=dict.fromkeys(SERVICES, ""), release="")
    definitions = _definitions(blank, colours)
    specs = {s: short_hash(json.dumps(d, sort_keys=True)) for s, d in definitions.items()}
    unnamed = template("compose.yaml", **context, specs=specs, release="")
    compose = unnamed
    if release:
        compose = template("compose.yaml", **context, specs=specs, release=release)
    files = {"compose.yaml": compose, **mounted}
    whole = release_hash({**mounted, "compose.yaml": unnamed})
    return Release(files, definitions, specs, dict(colours), dict(images), whole)


def named(release: Release, identity: str) -> Release:
    """A release under its id: the heading of compose.yaml says it, and nothing else changes."""
    compose = release.files["compose.yaml"].replace("release .", f"release {identity}.", 1)
    return replace(release, files={**release.files, "compose.yaml": compose})


def release_hash(files: Mapping[str, str]) -> str:
    """Hash of a release over its files, compose.yaml without the release's id in its heading."""
    return short_hash(json.dumps(dict(files), sort_keys=True))


def recoloured(
    manifest: Mapping[str, Any], files: Mapping[str, str], colours: Mapping[str, str], release: str
) -> Release:
    """A release that was rendered once, in other colours and under another id.

    Args:
        manifest: of the release as it is.
        files: its files, as they were rendered.
        colours: those that it is to have.
        release: the new id, for the heading.
    """

    def changed(text: str) -> str:
        for service, old in manifest["colours"].items():
            # No name of a service is part of another one's.
            text = text.replace(f"{service}-{old}", f"{service}-{colours[service]}")
        return text

    new = {name: changed(text) for name, text in files.items()}
    heading = f"release {manifest['id']}."
    unnamed = new["compose.yaml"].replace(heading, "release .", 1)
    hashed = release_hash({**new, "compose.yaml": unnamed})
    new["compose.yaml"] = new["compose.yaml"].replace(heading, f"release {release}.", 1)
    return Release(
        new, manifest["definitions"], manifest["specs"], dict(colours), manifest["images"], hashed
    )


def of_manifest(manifest: Mapping[str, Any]) -> Release:
    """A release of which only the manifest is at hand: as it is, without its files."""
    parts = (manifest[part] for part in ("definitions", "specs", "colours", "images", "hash"))
    return Release({}, *parts)


def unlimited_services(settings: Settings) -> list[str]:
    """Services of the Compose file as rendered that have no memory limit; each is an error."""
    nothing = {"postgres": {"-": ""}, "backend": {"-": ""}, "traefik": {"-": ""}}
    images = dict.fromkeys(SERVICES, "-")
    release = render(settings, nothing, images, dict.fromkeys(SWITCHED, "blue"))
    return unlimited(yaml.safe_load(release.files["compose.yaml"]))


def choose_colours(
    specs: Mapping[str, str], live_specs: Mapping[str, str], live_colours: Mapping[str, str]
) -> dict[str, str]:
    """The colour of each switched service in the next release.

    An unchanged service keeps its colour and is not touched; a changed one gets the other.
    """
    colours = {}
    for service in SWITCHED:
        live = live_colours.get(service)
        if live is None:
            colours[service] = "blue"
        elif specs[service] == live_specs.get(service):
            colours[service] = live
        else:
            colours[service] = "green" if live == "blue" else "blue"
    return colours


_POSTGRES_FILES = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")


def _mounted(
    settings: Settings, sets: Mapping[str, Mapping[str, str]], colours: Mapping[str, str]
) -> dict[str, str]:
    exported = [name.upper() for name in sets["backend"] if name != "database_password"]
    return {
        "traefik/traefik.yaml": template("traefik/traefik.yaml", settings=settings),
        "traefik/dynamic.yaml": template(
            "traefik/dynamic.yaml",
            settings=settings,
            colours=colours,
            edge_gateway=gateway(settings.edge_network),
            closed_paths=_any_prefix(CLOSED_PATHS),
            guarded_paths=" || ".join(GUARDED_PATHS),
            superadmin_paths=_any_prefix(SUPERADMIN_PATHS),
            load_clients=" || ".join(f"ClientIP(`{a}`)" for a in settings.load_client_addresses),
            csp=_content_security_policy(settings),
        ),
        "postgres/postgresql.conf": template(
            "postgres/postgresql.conf",
            settings=settings,
            tuned=tune(settings),
            limit=show_size(settings.postgres_memory),
        ),
        "postgres/pg_hba.conf": template("postgres/pg_hba.conf"),
        "postgres/pg_ident.conf": template("postgres/pg_ident.conf"),
        "backend/start.sh": template("scripts/start.sh", exported=sorted(exported)),
        "frontend/config.js": template("frontend/config.js", api_url=settings.api_url),
    }


def _any_prefix(paths: tuple[str, ...]) -> str:
    return " || ".join(f"PathPrefix(`{path}`)" for path in paths)


def _content_security_policy(settings: Settings) -> str:
    api = settings.api_url.removesuffix("/api/v1")
    # Astro's islands start from inline scripts and styles.
    return (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; font-src 'self' data:; connect-src 'self' {api}; "
        "frame-ancestors 'none'; base-uri 'self'; object-src 'none'"
    )


def _shared_memory(settings: Settings) -> int:
    # /dev/shm holds the segments of parallel plans; Docker's 64 MB is too little for index builds.
    return 64 * MB if settings.vps_vcpus == 1 else 256 * MB


def _definitions(compose: str, colours: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    parsed = yaml.safe_load(compose)
    files = parsed["secrets"]
    definitions = {}
    for service, name in container_names(colours).items():
        definition = parsed["services"][name]
        # By path, which changes with the content: another secret is another definition.
        if "secrets" in definition:
            definition["secrets"] = [files[secret]["file"] for secret in definition["secrets"]]
        definitions[service] = definition
    return definitions


def container_names(release_colours: Mapping[str, str]) -> dict[str, str]:
    """Compose's name of each service in a release: `backend-green`, `traefik` and so on."""
    return {s: f"{s}-{release_colours[s]}" if s in SWITCHED else s for s in SERVICES}
