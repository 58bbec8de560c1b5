"""Every setting of an environment, typed: what `group_data/` says, checked once at the door.

Pure: no host, no clock, no network. `door.py` gathers the values and says where each was set.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from koprogo_deploy import secrets, sizing
from koprogo_deploy.units import parse_size, show_size

Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(show_size)]

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9.-]*(?::\d+)?/[a-z0-9._/-]+)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOVING_TAGS = ("latest", "main", "master", "stable", "edge", "nightly", "dev", "develop")
_PLACEHOLDER = "example.invalid"
# Without these as they are, Postgres is not reachable, or by more than the application's role; or
# it reads or writes other files, loads other libraries, runs programs, logs people's data, waits
# for a standby or refuses to write, believes damaged pages, lets what the application makes stand
# in for what is its own, or takes quotes otherwise. Those of PostgreSQL 15 to 18.
_POSTGRES_FIXED = (
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "backslash_quote",
    "bonjour",
    "bonjour_name",
    "config_file",
    "createrole_self_grant",
    "data_directory",
    "data_sync_retry",
    "db_user_namespace",
    "debug_print_parse",
    "debug_print_plan",
    "debug_print_raw_parse",
    "debug_print_rewritten",
    "default_tablespace",
    "default_transaction_read_only",
    "dynamic_library_path",
    "event_triggers",
    "extension_control_path",
    "extension_destdir",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "gss_accept_delegation",
    "hba_file",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "ignore_system_indexes",
    "include",
    "include_dir",
    "include_if_exists",
    "jit_dump_bitcode",
    "jit_profiling_support",
    "jit_provider",
    "krb_caseins_users",
    "krb_server_keyfile",
    "listen_addresses",
    "lo_compat_privileges",
    "local_preload_libraries",
    "log_destination",
    "log_directory",
    "log_error_verbosity",
    "log_filename",
    "log_min_duration_sample",
    "log_min_error_statement",
    "log_min_messages",
    "log_parameter_max_length",
    "log_parameter_max_length_on_error",
    "log_statement",
    "log_transaction_sample_rate",
    "logging_collector",
    "oauth_validator_libraries",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "restore_command",
    "role",
    "row_security",
    "scram_iterations",
    "search_path",
    "session_authorization",
    "session_preload_libraries",
    "session_replication_role",
    "shared_preload_libraries",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
    "ssl_passphrase_command",
    "ssl_passphrase_command_supports_reload",
    "standard_conforming_strings",
    "synchronous_standby_names",
    "temp_tablespaces",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "zero_damaged_pages",
)


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


def _own_address(address: str) -> str:
    if address.count(":") > 1 and re.fullmatch(r"\[?[0-9a-fA-F:.]+\]?", address):
        raise ValueError(
            "an IPv6 address, and the site is published on IPv4 alone; write the host's IPv4 "
            'address, such as "203.0.113.7"'
        )
    if not re.fullmatch(r"(?!-)[A-Za-z0-9.-]+", address):
        raise ValueError(
            'not an address or a name alone; write, for instance, "203.0.113.7", no scheme, no port'
        )
    return address


def network(address: str) -> str:
    """An address or network as Traefik takes it.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        raise ValueError(
            f'"{address}" is not an address or network; write "203.0.113.7" or "203.0.113.0/24"'
        ) from None


def _private_network(address: str) -> str:
    try:
        network = ipaddress.IPv4Network(address)
    except ValueError:
        raise ValueError(
            f'"{address}" is not an IPv4 network; write, for instance, "172.30.80.0/24"'
        ) from None
    if network.prefixlen > 28 or not network.is_private:
        raise ValueError(
            "the containers need a private network of 16 addresses or more; "
            'write, for instance, "172.30.80.0/24"'
        )
    return str(network)


def _postgres_setting(name: str) -> str:
    if name.lower() in _POSTGRES_FIXED:
        raise ValueError(f'"{name}" is decided by koprogo-deploy; take it out')
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?", name):
        raise ValueError(f'"{name}" is not the name of a Postgres setting; write, as "work_mem"')
    return name


def _one_line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError('a value has one line and is not empty; write, for instance, "6MB"')
    if "\\" in text:
        raise ValueError(r"a value has no \; Postgres takes it for the beginning of an escape")
    return text


def _client_network(address: str) -> str:
    found = ipaddress.ip_network(network(address))
    # Half of all addresses, twice, are all of them as well; and an IPv4 address may be written as
    # one of IPv6.
    shortest = 8 if found.version == 4 else 16
    mapped = ipaddress.ip_network("::ffff:0:0/96")
    if found.prefixlen < shortest or (found.version == 6 and found.overlaps(mapped)):
        raise ValueError(
            f'"{address}" is nearly everybody; write your own address or network, such as '
            '"203.0.113.7" or "2001:db8:1::/48"'
        )
    return str(found)


def _package(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name):
        raise ValueError('not the name of a package; write, for instance, "htop"')
    return name


def _parameter(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*([./][A-Za-z0-9_:@-]+)+", name):
        raise ValueError('not a kernel parameter; write, for instance, "net.core.somaxconn"')
    return name


_NO_CORE = re.compile(r"\|(/usr)?/bin/(false|true)")  # the kernel starts it in place of a core


def spaced(value: str) -> str:
    """A kernel parameter's value with one space between its numbers: the kernel writes tabs."""
    return re.sub(r"[ \t]+", " ", value).strip(" ")


def _parameter_value(text: str) -> str:
    value = spaced(text)
    if value.startswith("|") and not _NO_CORE.fullmatch(value):
        raise ValueError(
            "not the value of a kernel parameter: the kernel would start a program as root; "
            'write "|/bin/false", which keeps no core, or the path of a file'
        )
    if not value.startswith("|") and not re.fullmatch(
        r"-?[A-Za-z0-9/][A-Za-z0-9 ._:,/+%-]*", value
    ):
        raise ValueError('not the value of a kernel parameter; write one line, such as "4096"')
    return value


def _timezone(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name):
        raise ValueError('not a time zone; write, for instance, "Europe/Brussels"')
    return name


def _listener(text: str) -> str:
    protocol, slash, port = text.partition("/")
    named = protocol in ("tcp", "udp") and slash and re.fullmatch(r"[1-9]\d{0,4}", port)
    if not named or int(port) > 65535:
        raise ValueError('not a protocol and its port; write, for instance, "udp/51820"')
    return text


_ROOTS = ("/opt", "/srv", "/usr/local", "/var/opt", "/var/lib")


def _install_root(path: str) -> str:
    below = any(path.startswith(f"{root}/") for root in _ROOTS)
    if re.match(r"/var/lib/(docker|containerd)(/|$)", path):
        raise ValueError(
            "Docker Engine keeps its own data there and may remove what it does not know; write "
            '"/opt/koprogo"'
        )
    if not below or not re.fullmatch(r"(/[a-z0-9_-]+)+", path):
        raise ValueError(
            "root runs programs from there, so it lies where only root writes; write "
            f'"/opt/koprogo", or a folder below {", ".join(_ROOTS)}'
        )
    return path


def _acme_server(url: str) -> str:
    if not re.fullmatch(r"https://[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._~/-]*)?", url):
        raise ValueError(
            "not the directory of an ACME server; write, for instance, "
            '"https://acme-v02.api.letsencrypt.org/directory"'
        )
    return url


def _value(text: str) -> str:
    # YAML takes some of these for the end of a line.
    if not text.replace("\n", "").replace("\t", "").isprintable():
        raise ValueError("a value has a control character; take it out")
    return text


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError(
            f'"{name}" is not the name of a variable; write, for instance, "SMTP_HOST"'
        )
    return name


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


def _milliseconds(text: object) -> int:
    match = re.fullmatch(r"(\d+)\s*(ms|s)", str(text).strip())
    if not match or int(match[1]) == 0:
        raise ValueError('write a whole number of milliseconds or seconds, such as "100ms"')
    return int(match[1]) * (1000 if match[2] == "s" else 1)


def _percent(text: object) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", str(text).strip())
    if not match or not 0 < float(match[1]) <= 100:
        raise ValueError('write a share above 0 in percent, such as "1%"')
    return float(match[1])


def _seconds(text: object) -> int:
    match = re.fullmatch(r"(\d+)\s*(s|min)", str(text).strip())
    if not match or int(match[1]) == 0:
        raise ValueError('write a whole number of seconds or minutes, such as "30s" or "2min"')
    return int(match[1]) * (60 if match[2] == "min" else 1)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = r"([01]\d|2[0-3]):[0-5]\d"


def _time(text: str) -> str:
    if not re.fullmatch(_TIME, text):
        raise ValueError(f'"{text}" is no time of day; write, for instance, "03:30"')
    return text


def _day_and_time(text: str) -> str:
    if not re.fullmatch(rf"({'|'.join(_DAYS)}) {_TIME}", text):
        raise ValueError(f'"{text}" is no day and time; write, for instance, "Sun 04:30"')
    return text


def _repository(place: str) -> str:
    if place.startswith("/"):
        if place == "/" or not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._-]+)+", place):
            raise ValueError(f'"{place}" is no directory for backups; write "/srv/backups"')
        return place
    # A user or a host that begins with - is an option of ssh.
    user, host, path = r"[A-Za-z0-9_][A-Za-z0-9_.-]*", r"[A-Za-z0-9][A-Za-z0-9.-]*", r"[!-~]+"
    if re.fullmatch(rf"sftp:{user}@{host}:{path}|sftp://{user}@{host}(:\d+)?/{path}", place):
        return place
    if re.fullmatch(rf"s3:https?://{host}(:\d+)?/{path}", place):
        return place
    if re.match(r"(sftp:(//)?([^@/]*@)?|s3:https?://)\[[0-9a-fA-F:.]+\]", place):
        raise ValueError(
            f'"{place}" names the storage by an IPv6 address, which is not built; write its '
            "host name, which may have that address"
        )
    raise ValueError(
        f'"{place}" is no place for backups; write "sftp:user@host:/path", '
        '"s3:https://host/bucket" or a directory such as "/srv/backups"'
    )


_ACCOUNT = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


def _account(name: str) -> str:
    # adduser takes no other name, and sudo leaves out a file whose name has a dot.
    if not _ACCOUNT.fullmatch(name) or name == "root":
        raise ValueError(
            "no name for an account; write lower case letters, digits, - and _, "
            'a letter first, such as "anna"'
        )
    return name


def _public_key(line: str) -> str:
    kind, _, rest = line.partition(" ")
    encoded, _, comment = rest.partition(" ")
    if kind not in _KEY_TYPES or not _encodes(encoded, kind) or not f"{comment}.".isprintable():
        raise ValueError(
            "not a public key on one line, without options; write the line of a .pub file: "
            '"ssh-ed25519 AAAA… anna@laptop"'
        )
    return line


def _encodes(encoded: str, kind: str) -> bool:
    """Whether this is the base64 of a key of that type: its first field is the type's name."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    fields = []
    while len(data) >= 4:
        end = 4 + int.from_bytes(data[:4], "big")
        fields.append(data[4:end])
        data = data[end:] if len(data) >= end else b"cut"
    return not data and len(fields) > 1 and fields[0] == kind.encode()


def is_host_key(line: str) -> bool:
    """Whether this is type and key of an SSH server, as ssh-keyscan prints them after the name."""
    kind, _, encoded = line.partition(" ")
    # Those in hardware are people's; paramiko asks no server for one.
    return kind in _KEY_TYPES and not kind.startswith("sk-") and _encodes(encoded, kind)


def _host_key(line: str) -> str:
    if not is_host_key(line):
        raise ValueError(
            "not the key of an SSH server; write what ssh-keyscan says after the name: "
            '"ssh-ed25519 AAAA…"'
        )
    return line


Domain = Annotated[str, AfterValidator(_domain)]
Origin = Annotated[str, AfterValidator(_origin)]
ClientNetwork = Annotated[str, AfterValidator(_client_network)]
OwnAddress = Annotated[str, AfterValidator(_own_address)]
Package = Annotated[str, AfterValidator(_package)]
Parameter = Annotated[str, AfterValidator(_parameter)]
ParameterValue = Annotated[str, AfterValidator(_parameter_value)]
PrivateNetwork = Annotated[str, AfterValidator(_private_network)]
Image = Annotated[str, AfterValidator(_image)]
Listener = Annotated[str, AfterValidator(_listener)]
PostgresSetting = Annotated[str, AfterValidator(_postgres_setting)]
Value = Annotated[str, AfterValidator(_value)]
Variable = Annotated[str, AfterValidator(_variable)]
# pyinfra reads `--data reason=123` as a number.
Words = Annotated[str, BeforeValidator(lambda given: given if given is None else str(given))]
# It lands in marks and the journal, which are read by lines and tabs.
Reason = Annotated[Words, AfterValidator(_printable)]
OneLine = Annotated[str, AfterValidator(_one_line)]
Seconds = Annotated[int, BeforeValidator(_seconds), PlainSerializer(lambda s: f"{s}s")]
Milliseconds = Annotated[
    int, BeforeValidator(_milliseconds), PlainSerializer(lambda value: f"{value}ms")
]
Percent = Annotated[float, BeforeValidator(_percent), PlainSerializer(lambda value: f"{value:g}%")]
TimeOfDay = Annotated[str, AfterValidator(_time)]
DayAndTime = Annotated[str, AfterValidator(_day_and_time)]
Repository = Annotated[str, AfterValidator(_repository)]
HostKey = Annotated[str, AfterValidator(_host_key)]
AccountName = Annotated[str, AfterValidator(_account)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
Weight = Annotated[int, Field(ge=2, le=262144)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=1)]

SERVICES = ("traefik", "postgres", "backend", "frontend")
SWITCHED = ("backend", "frontend")  # these run as blue or green and are switched, not recreated

# Of the machine, of the way to it, of the data, or of one run: a release has no part in these.
NOT_OF_RELEASE = frozenset(
    {
        *("swap", "timezone", "sysctl", "extra_packages", "unattended_upgrades"),
        *("journald_limit", "time_synchronisation", "admin_users", "install_root"),
        "expected_listeners",
        *("public_address", "scan_address", "public_http_port", "public_https_port"),
        *("ca_certificate", "tls", "tls_certificate", "tls_key", "environment"),
        *("acme_email", "acme_server", "acme_ca_certificate"),
        *("seed_enabled", "seed_number", "seed_scale", "seed_via"),
        *("objective_rate", "objective_p50", "objective_p99", "objective_errors"),
        *("objective_backend_memory", "objective_postgres_memory", "objective_traefik_memory"),
        *("objective_load_average", "goal_p99", "goal_rate"),
        *("load_cpus", "load_max_rate", "load_max_duration"),
        *("backup_repository", "backup_ssh_key", "backup_host_key"),
        *("backup_schedule", "backup_drill_schedule"),
        *("backup_keep_daily", "backup_keep_weekly", "backup_keep_monthly"),
        *("backup_timeout", "backup_list_timeout"),
        *("lock_wait", "backup_wait", "image_pull_timeout", "retry_bad_release", "releases_kept"),
        *("reason", "release", "backup", "plan", "restore_dump", "over_data", "upgrade"),
        *("migration_lock_warning", "migration_lock_limit"),
    }
)


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
    timezone: Annotated[str, AfterValidator(_timezone)]
    sysctl: dict[Parameter, ParameterValue]
    extra_packages: list[Package]
    unattended_upgrades: bool
    journald_limit: Size
    time_synchronisation: bool
    expected_listeners: list[Listener]
    admin_users: dict[AccountName, Annotated[list[PublicKey], Field(min_length=1)]]
    install_root: Annotated[str, AfterValidator(_install_root)]

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
    public_address: OwnAddress | None
    scan_address: OwnAddress | None
    public_http_port: Port
    public_https_port: Port
    ca_certificate: str | None
    tls: Literal["acme", "files"]
    tls_certificate: str | None
    tls_key: str | None
    acme_email: str | None
    acme_server: Annotated[str, AfterValidator(_acme_server)]
    acme_ca_certificate: str | None
    access_log: Literal["off", "stdout"]
    rate_limit_average: Count
    rate_limit_burst: Count
    login_limit_per_minute: Count
    load_client_addresses: list[ClientNetwork]
    superadmin_addresses: list[ClientNetwork]
    edge_network: PrivateNetwork

    # the backend
    backend_command: Annotated[list[Value], Field(min_length=1)]
    backend_workers: Count
    backend_log_level: Literal["error", "warn", "info", "debug"]
    backend_environment: dict[Variable, Value]
    backend_start_timeout: Seconds
    cors_origins: Annotated[list[Origin], Field(min_length=1)]
    pool_max_connections: Count
    pool_min_connections: Count
    pool_acquire_timeout: Seconds
    superadmin_guard: bool
    frontend_read_only: bool

    # Postgres
    postgres_connections_reserve: Count
    postgres_settings: dict[PostgresSetting, OneLine]

    # seed
    seed_enabled: bool
    seed_number: Annotated[int, Field(ge=1, le=65535)]
    seed_scale: Annotated[int, Field(ge=1, le=1000)]
    seed_via: Literal["sql", "api"]

    # objectives: what the deployed stack has to show under the realistic load
    objective_rate: Count
    objective_p50: Milliseconds
    objective_p99: Milliseconds
    objective_errors: Percent
    objective_backend_memory: Size
    objective_postgres_memory: Size
    objective_traefik_memory: Size
    objective_load_average: Annotated[float, Field(gt=0)]
    goal_p99: Milliseconds
    goal_rate: Count

    # the load test
    load_cpus: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None
    load_max_rate: Count
    load_max_duration: Seconds

    # releases
    lock_wait: Seconds
    backup_wait: Seconds
    migration_lock_warning: Milliseconds
    migration_lock_limit: Milliseconds | None
    image_pull_timeout: Seconds
    retry_bad_release: bool
    releases_kept: Annotated[int, Field(ge=2, le=50)]

    # backups
    backup_repository: Repository | None
    backup_ssh_key: str | None
    backup_host_key: HostKey | None
    backup_schedule: Annotated[list[TimeOfDay], Field(min_length=1, max_length=24)]
    backup_drill_schedule: DayAndTime
    backup_keep_daily: Count
    backup_keep_weekly: Count
    backup_keep_monthly: Count
    backup_timeout: Seconds
    backup_list_timeout: Seconds

    # of one run, so no part of the hash
    reason: Annotated[Reason | None, Field(exclude=True)]
    plan: Annotated[Words | None, Field(exclude=True)]
    release: Annotated[Words | None, Field(exclude=True)]
    restore_dump: Annotated[bool, Field(exclude=True)]
    backup: Annotated[Words | None, Field(exclude=True)]
    over_data: Annotated[bool, Field(exclude=True)]
    upgrade: Annotated[Literal["back", "back_anyway", "drop_old"] | None, Field(exclude=True)]

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

    @property
    def of_release(self) -> dict[str, Any]:
        """What a release was rendered from, as group data has it: for going back to it later."""
        return self.model_dump(mode="json", exclude=set(NOT_OF_RELEASE))

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was written
        return sizing.resolve(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _together(self) -> Settings:
        problems = contradictions(self)
        if problems:
            raise Contradictions(problems)
        return self


Contradiction = tuple[str, str]  # the field to change, and what is wrong with it


class Contradictions(ValueError):
    """Settings that are right one by one and wrong together."""

    def __init__(self, problems: list[Contradiction]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


def _url(domain: str, port: int) -> str:
    return f"https://{domain}" + ("" if port == 443 else f":{port}")


def valid_part(values: Mapping[str, Any]) -> Settings:
    """Those values that are right one by one, so that the rest is checked in the same run.

    A field that is missing or refused is not set: reading it raises AttributeError.
    """
    right, given = {}, sizing.resolve(values)
    for name, info in Settings.model_fields.items():
        annotation: Any = info.annotation
        for part in info.metadata:
            annotation = Annotated[annotation, part]
        with contextlib.suppress(KeyError, ValidationError):
            right[name] = TypeAdapter(annotation).validate_python(given[name])
    return Settings.model_construct(set(right), **right)


def contradictions(s: Settings, partial: bool = False) -> list[Contradiction]:
    """Settings that are wrong together.

    Args:
        s: the settings.
        partial: they are a `valid_part`: a rule that reads a refused field is left out.
    """
    found: list[Contradiction] = []
    for rule in _RULES:
        with contextlib.suppress(*((AttributeError,) if partial else ())):
            found += rule(s)
    return found


def _digests(s: Settings) -> Iterator[Contradiction]:
    for name in SERVICES if s.require_digest else ():
        if "@sha256:" not in s.image(name):
            yield f"{name}_image", 'require_digest asks for a digest; add "@sha256:…" to the image'


def _postgres_version(s: Settings) -> Iterator[Contradiction]:
    tag = s.postgres_image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    major = re.match(r"(\d+)(?=[.-]|$)", tag)
    if major and int(major[1]) != s.postgres_major:
        yield (
            "postgres_major",
            f"{s.postgres_major}, and postgres_image is of {major[1]} by its tag; write "
            f"{major[1]}, or the image of before. deploys/postgres_upgrade.py takes the data along",
        )


def _domains(s: Settings) -> Iterator[Contradiction]:
    if s.domain == s.api_domain:
        yield "api_domain", f'the same as domain; write, for instance, "api.{s.domain}"'


def _pool(s: Settings) -> Iterator[Contradiction]:
    if s.pool_min_connections > s.pool_max_connections:
        top = s.pool_max_connections
        yield "pool_min_connections", f"above pool_max_connections; write {top} or less"


def _postgres_connections(s: Settings) -> Iterator[Contradiction]:
    written = s.postgres_settings.get("max_connections")
    if written is None:
        return
    if not written.isdigit():
        yield "postgres_settings", f'max_connections is not a number: "{written}"; take it out'
    elif int(written) < s.max_connections:
        fitting = max(1, (int(written) - s.postgres_connections_reserve) // 2)
        yield (
            "pool_max_connections",
            f"two colours of {s.pool_max_connections} connections and "
            f"{s.postgres_connections_reserve} in reserve are {s.max_connections}, and "
            f"postgres_settings allows {written}; lower the pool to {fitting} or drop "
            "max_connections from postgres_settings (it is computed)",
        )


def _rate_limit(s: Settings) -> Iterator[Contradiction]:
    if s.rate_limit_average < s.objective_rate and not s.load_client_addresses:
        yield (
            "rate_limit_average",
            f"{s.rate_limit_average} requests a second for each client would block the load "
            f"test at {s.objective_rate}; raise it to {s.objective_rate} or more, or list the "
            "load client in load_client_addresses",
        )


def _burst(s: Settings) -> Iterator[Contradiction]:
    if s.rate_limit_burst < s.rate_limit_average:
        least = s.rate_limit_average
        yield "rate_limit_burst", f"below rate_limit_average; write {least} or more"


def _certificate(s: Settings) -> Iterator[Contradiction]:
    if s.tls == "files":
        for field, example in (("tls_certificate", "tls.crt"), ("tls_key", "tls.key")):
            if not getattr(s, field):
                yield field, f'missing; tls = "files" needs its path, such as "{example}"'


_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"

_TEST_CA = r"(^|[.-])(staging|test)"  # of an ACME server's name: what it signs is for trying out


def _acme(s: Settings) -> Iterator[Contradiction]:
    if s.acme_email and not re.fullmatch(_EMAIL, s.acme_email):
        yield (
            "acme_email",
            f'"{s.acme_email}" is not an e-mail address; write, for instance, "you@koprogo.be"',
        )
    elif s.tls != "acme":
        return
    elif not s.acme_email:
        yield "acme_email", 'missing; tls = "acme" needs an address for expiry warnings'
    elif s.acme_email.endswith(_PLACEHOLDER):
        yield "acme_email", f'"{s.acme_email}" is the placeholder; write your own e-mail address'
    if s.tls == "acme" and not s.ca_certificate and re.search(_TEST_CA, s.acme_authority):
        yield (
            "acme_server",
            "nobody trusts what a test CA signs, so smoke tests would fail; set ca_certificate to "
            "a PEM file with its roots. Let's Encrypt's are listed at "
            "https://letsencrypt.org/docs/staging-environment/",
        )


def _backup_by_ssh(s: Settings) -> Iterator[Contradiction]:
    if (s.backup_repository or "").startswith("sftp:"):
        if not s.backup_ssh_key:
            yield (
                "backup_ssh_key",
                "missing; sftp: needs the path of a private key without a passphrase, which the "
                "storage knows (ssh-keygen -t ed25519 -N '' -f backup_key)",
            )
        if not s.backup_host_key:
            yield (
                "backup_host_key",
                "missing; sftp: needs the key of the storage's own SSH server, as ssh-keyscan "
                'says it: "ssh-ed25519 AAAA…"',
            )


def _backup_in_clear(s: Settings) -> Iterator[Contradiction]:
    # restic encrypts what it stores; the key to the storage itself would be seen on the way.
    if s.environment != "sandbox" and (s.backup_repository or "").startswith("s3:http:"):
        yield (
            "backup_repository",
            "without TLS whoever is on the way can delete the backups; write s3:https://…",
        )


_SECRET_NAME = re.compile("SECRET|PASS|PWD|TOKEN|KEY|CREDENTIAL|PRIVATE|_DSN$")
_LOGIN_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]*@", re.IGNORECASE)
# Of names that sound like a secret and are none, and what stands there then.
_HARMLESS = (
    (re.compile("(^|_)KEY_PREFIX$"), re.compile(r"[\w./-]{0,64}")),
    (re.compile("_UR[LI]$"), re.compile(r"https?://[^@?#\s]+", re.IGNORECASE)),
    (
        re.compile("_(TTL|EXPIRY|EXPIRES|EXPIRATION|LIFETIME)(_[A-Z]+)?$"),
        re.compile(r"\d+ ?\w{0,7}"),
    ),
)


def _is_harmless(name: str, value: str) -> bool:
    return any(n.search(name) and v.fullmatch(value) for n, v in _HARMLESS)


def _secrets_in_sight(s: Settings) -> Iterator[Contradiction]:
    kept = {*(wanted.name for wanted in secrets.WANTED), *secrets.OPTIONAL}
    where = f".env.{s.environment}"
    for name, value in s.backend_environment.items():
        if _LOGIN_IN_URL.search(value):
            what, right = "is an address with a login in it", "write it without the login"
        elif _SECRET_NAME.search(name) and not _is_harmless(name, value):
            what, right = "looks like a secret", "take it out"
        else:
            continue
        if name in kept:
            yield "backend_environment", f"{name} {what}; it belongs in {where}"
            continue
        near = difflib.get_close_matches(name, sorted(kept), n=1, cutoff=0.75)
        known = f"did you mean {near[0]}, in {where}?" if near else right
        yield (
            "backend_environment",
            f"{name} {what}, and is none of those that {where} has for KoproGo; {known} "
            "(OPTIONAL in koprogo_deploy/secrets.py lists those of newer images)",
        )


_RULES: tuple[Callable[[Settings], Iterator[Contradiction]], ...] = (
    _digests,
    _postgres_version,
    _domains,
    _pool,
    _postgres_connections,
    _rate_limit,
    _burst,
    _certificate,
    _acme,
    _backup_by_ssh,
    _backup_in_clear,
    _secrets_in_sight,
)
