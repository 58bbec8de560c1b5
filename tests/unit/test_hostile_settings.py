"""Settings that are not what they look like: refused, each with what would be right; and whatever
is accepted adds no line, key, option or word to any file or command that is made of it.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from koprogo_deploy import backups, machine, render
from koprogo_deploy.data.host import Config
from koprogo_deploy.data.repository import options
from koprogo_deploy.operations.host import install_command
from koprogo_deploy.settings import Settings
from koprogo_deploy.tuning import tune
from koprogo_deploy.units import MB
from tests import project
from tests.project import KEY, Project

SFTP = {"backup_ssh_key": "backup_key", "backup_host_key": KEY}
TLS = {"tls_certificate": "tls.crt", "tls_key": "tls.key"}
HERE = "group_data/production.py"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra_packages": ["x; id > /tmp/p #"]}, "extra_packages[0]"),
        ({"extra_packages": ["-oAPT::Update::Pre-Invoke::=id"]}, "not the name of a package"),
        ({"extra_packages": ["./evil.deb"]}, 'write, for instance, "htop"'),
        ({"sysctl": {"a.b": "4096\nkernel.core_pattern = |/tmp/x"}}, "sysctl['a.b']"),
        ({"sysctl": {"kernel.core_pattern": "|/tmp/x"}}, "not the value of a kernel parameter"),
        ({"sysctl": {"kernel.core_pattern": "|/bin/false %p"}}, 'write "|/bin/false"'),
        *(
            ({field: address}, "the site is published on IPv4 alone")
            for field in ("public_address", "scan_address")
            for address in ("2001:db8::1", "[2001:db8::1]", "::1")
        ),
        ({"public_address": "https://koprogo.be"}, "no scheme, no port"),
        ({"public_address": "203.0.113.7:443"}, "no scheme, no port"),
        ({"sysctl": {"a.b = 1\nc.d": "2"}}, "not a kernel parameter"),
        ({"timezone": "-Hevil"}, "not a time zone"),
        *(
            ({"admin_users": {name: [KEY]}}, "no name for an account")
            for name in ("ALL", "-x", "../../x", "anna.b", "root", "anna b", "anna\n", "a" * 33, "")
        ),
        ({"admin_users": {"anna": []}}, "admin_users['anna']"),
        *(
            ({"admin_users": {"anna": [key]}}, "not a public key on one line, without options")
            for key in (
                "k",
                f'command="id" {KEY}',
                f"{KEY}\n{KEY}",
                f"{KEY} a\nssh-rsa",
                KEY[:-8],
                KEY.replace("ssh-ed25519", "ssh-rsa"),
                "ssh-dss AAAA",
            )
        ),
        *(
            ({field: [address]}, "is nearly everybody")
            for field in ("superadmin_addresses", "load_client_addresses")
            for address in (
                "0.0.0.0/0",
                "::/0",
                "0.0.0.0/1",
                "::ffff:0:0/96",
                "::ffff:10.0.0.0/104",
            )
        ),
        ({"backup_repository": "sftp:-oProxyCommand=id@host:/p", **SFTP}, "no place for backups"),
        ({"backup_repository": "sftp:u@-oProxyCommand=id:/p", **SFTP}, "no place for backups"),
        ({"backup_repository": "sftp://u@-host/p", **SFTP}, "no place for backups"),
        ({"backup_repository": "s3:http://host/bucket"}, "write s3:https://…"),
        ({"backup_repository": "/srv/../tmp"}, "is no directory for backups"),
        *(
            ({"postgres_settings": {name: "x"}}, "is decided by koprogo-deploy")
            for name in (
                "include",
                "include_dir",
                "include_if_exists",
                "shared_preload_libraries",
                "session_preload_libraries",
                "log_statement",
                "archive_command",
                "search_path",
                "session_replication_role",
                "log_error_verbosity",
                "log_min_duration_sample",
                "debug_print_parse",
                "debug_print_rewritten",
                "debug_print_plan",
                "archive_mode",
                "oauth_validator_libraries",
                "extension_control_path",
                "default_transaction_read_only",
                "role",
                "event_triggers",
                "lo_compat_privileges",
                "ssl_key_file",
                "scram_iterations",
                "temp_tablespaces",
                "standard_conforming_strings",
                "Synchronous_Standby_Names",
            )
        ),
        ({"postgres_settings": {"work_mem": "4MB\\"}}, "a value has no \\"),
        ({"postgres_settings": {"work_mem": "4MB\nfsync = off"}}, "a value has one line"),
        *(
            ({"install_root": root}, "where only root writes")
            for root in (
                "/tmp/k",
                "/home/x/k",
                "/run/k",
                "/opt",
                "/opt/../tmp",
                "/opt/k x",
                "/docker/k",
                "opt/k",
                "/opt//k",
                "/opt/k\n",
            )
        ),
        *(
            ({"expected_listeners": [each]}, 'write, for instance, "udp/51820"')
            for each in ("51820", "udp/0", "udp/65536", "sctp/1", "udp/1\n", "tcp/", "tcp:22")
        ),
        *(
            ({"install_root": root}, "Docker Engine keeps its own data there")
            for root in ("/var/lib/docker", "/var/lib/docker/k", "/var/lib/containerd/k")
        ),
        *(
            ({"backup_repository": place, **SFTP}, "by an IPv6 address, which is not built")
            for place in ("sftp:u@[2001:db8::1]:/p", "sftp://u@[::1]:22/p", "s3:https://[::1]/b")
        ),
        ({"backend_environment": {"SMTP_PASS": "x"}}, "looks like a secret"),
        ({"backend_environment": {"SENTRY_DSN": "x"}}, "looks like a secret"),
        ({"backend_environment": {"REDIS_URL": "redis://:pw@h/0"}}, "an address with a login in"),
        ({"backend_environment": {"X": "see HTTPS://u:p@h"}}, "an address with a login in it"),
        ({"acme_email": "a$b@x.be"}, "is not an e-mail address"),
        ({"acme_email": "a$b@x.be", "tls": "files", **TLS}, "is not an e-mail address"),
        ({"acme_email": "a@x.be\nx: y"}, "is not an e-mail address"),
        ({"acme_server": "https://x/$y"}, "not the directory of an ACME server"),
        ({"acme_server": "https://x.be/\nx"}, "not the directory of an ACME server"),
        ({"backend_command": ["/app/x", "a\x85b"]}, "a value has a control character"),
        ({"backend_image": "-oops/x:1"}, "not an image reference"),
        ({"domain": "a`||Path(`/"}, "a domain has no scheme and no path"),
    ],
)
def test_what_does_more_than_it_says_is_refused(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    refusal = Project.make(tmp_path / "p").set(**changes).refusal()
    assert words in refusal
    assert f"{HERE}: {next(iter(changes))}" in refusal


def test_what_is_meant_is_accepted() -> None:
    project.settings(
        extra_packages=["g++", "libc6", "python3.13"],
        sysctl={
            "net.ipv4.tcp_rmem": "4096 131072 6291456",
            "net.ipv4.conf.eth0/1.rp_filter": "2",
            "kernel.core_pattern": "|/bin/false",
            "net.core.x": "/var/crash/core.%e.%p",
        },
        public_address="vps-1.example.be",
        install_root="/srv/docker-apps/koprogo",
        expected_listeners=["udp/51820", "tcp/9100"],
        timezone="America/Argentina/Buenos_Aires",
        admin_users={"anna": [f"{KEY} anna@laptop, 2026"], "b_2-c": [KEY]},
        superadmin_addresses=["203.0.113.7", "10.0.0.0/8", "2001:db8::/32"],
        backup_repository="sftp://store@backup-1.example.be:2222/koprogo",
        **SFTP,
        postgres_settings={"work_mem": "5MB", "application_name": "it's"},
        backend_environment={"SMTP_URL": "smtp://mail.example.be:25", "GREETING": "5 $ at me@x"},
        acme_email="ops+vps@koprogo.be",
    )
    project.settings("sandbox", backup_repository="s3:http://127.0.0.1:9000/bucket")


# --- whatever is accepted ------------------------------------------------------------------------


def sysctl(s: Settings) -> None:
    (file,) = [f for f in machine.host_files(s) if f.path.startswith("/etc/sysctl.d")]
    lines = [line for line in file.content.split("\n") if line and not line.startswith("#")]
    assert lines == [f"{k} = {v}" for k, v in sorted(s.sysctl.items())]
    assert all(re.fullmatch(r"[a-z0-9][^\s=|]* = [^|]+", line) for line in lines)


def accounts(s: Settings) -> None:
    files = {f.path: f.content for f in machine.host_files(s)}
    ours = {p for p in files if p.startswith(("/etc/sudoers.d", "/etc/ssh/koprogo-keys.d"))}
    assert len(ours) == 2 * len(s.admin_users)
    for name, keys in s.admin_users.items():
        assert re.fullmatch("[a-z][a-z0-9_-]*", name)
        sudo = files[f"/etc/sudoers.d/60-koprogo-{name}"]
        assert sudo == f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"
        lines = files[f"/etc/ssh/koprogo-keys.d/{name}"].splitlines()
        assert lines == keys
        assert all(re.match(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( |$)", line) for line in lines)


def apt(s: Settings) -> None:
    missing = machine.packages(s)
    words = shlex.split(install_command(missing, lists_fresh=True))
    assert words[words.index("--") + 1 :] == missing
    assert all(re.fullmatch("[a-z0-9][^ ;/=]*", name) for name in missing)


def zone(s: Settings) -> None:
    assert len(shlex.split(f"timedatectl set-timezone {s.timezone}")) == 3
    assert not s.timezone.startswith("-")


def postgres(s: Settings) -> None:
    lines = files_of(s)["postgres/postgresql.conf"].split("\n")
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9_.]+) = '((?:[^'\\]|''|\\\\)*)'  # .*", line)
            assert match, line
            assert match[1] not in found
            found[match[1]] = match[2].replace("''", "'").replace("\\\\", "\\")
    assert found == {setting.name: setting.value for setting in tune(s)}
    assert not {"include", "include_dir", "log_statement", "archive_command"} & set(found)


def compose(s: Settings) -> None:
    parsed = yaml.safe_load(files_of(s)["compose.yaml"])
    backend = parsed["services"]["backend-blue"]
    given = {k: v.replace("$$", "$") for k, v in backend["environment"].items()}
    assert {k: given[k] for k in s.backend_environment} == s.backend_environment
    assert [word.replace("$$", "$") for word in backend["command"]] == s.backend_command
    assert shape(parsed, without="environment") == SHAPES["compose.yaml"]
    assert given.keys() == render.backend_environment(s).keys() | {"DATABASE_USER"}


def traefik(s: Settings) -> None:
    files = files_of(s)
    static = yaml.safe_load(files["traefik/traefik.yaml"])
    acme = static["certificatesResolvers"]["acme"]["acme"]
    assert (acme["email"], acme["caServer"]) == (s.acme_email, s.acme_server)
    for name in ("traefik/traefik.yaml", "traefik/dynamic.yaml"):
        assert shape(yaml.safe_load(files[name])) == SHAPES[name]
    assert files["traefik/dynamic.yaml"].count("`") == QUOTES


def repository(s: Settings) -> None:
    place = backups.place(s)
    found = options(Config(Path("/opt/koprogo"), "production", 192 * MB, {"repository": place}))
    assert len(found) in (2, 4)
    if place.startswith("sftp:"):
        words = shlex.split(found[3].removeprefix("sftp.command="))
        assert words[:2] == ["ssh", "-i"]
        assert len(words) == 22
        assert not words[-3].startswith("-")


def root(s: Settings) -> None:
    for file in [*machine.backup_units(s), *machine.binary_files(s)]:
        base = [*machine.backup_units(BASE), *machine.binary_files(BASE)]
        (same,) = [f for f in base if f.path.split("/")[-1] == file.path.split("/")[-1]]
        assert file.content.count("\n") == same.content.count("\n")
        assert file.content.replace(s.install_root, "/opt/koprogo") == same.content


def files_of(s: Settings) -> dict[str, str]:
    return project.release(s).files


def shape(value: Any, without: str = "") -> Any:
    """The keys of a parsed file, without the values."""
    if isinstance(value, dict):
        return {k: shape(v, without) for k, v in value.items() if k != without}
    return type(value).__name__


BASE = project.settings()
SHAPES = {
    "compose.yaml": shape(yaml.safe_load(files_of(BASE)["compose.yaml"]), without="environment"),
    **{
        name: shape(yaml.safe_load(files_of(BASE)[name]))
        for name in ("traefik/traefik.yaml", "traefik/dynamic.yaml")
    },
}

QUOTES = files_of(BASE)["traefik/dynamic.yaml"].count("`")
VALUES = project.values()
_NASTY = st.text("aA0 .-_/\\'\"`$;|&<>(){}[]#=:@%*!~,\n\r\t\0\x1b\x85\u2028é", max_size=12)


def near(*valid: str) -> st.SearchStrategy[str]:
    """What is valid, and what is nearly so: something hostile before, behind or in between."""
    base = st.sampled_from(valid)
    put = st.builds(lambda b, n, at: b[: at % (len(b) + 1)] + n + b[at % (len(b) + 1) :],
                    base, _NASTY, st.integers(0, 99))  # fmt: skip
    return base | put | _NASTY


SETTINGS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "sysctl": (sysctl, st.dictionaries(near("net.core.somaxconn", "a.b/1"), near("10", "1 2 3"))),
    "admin_users": (
        accounts,
        st.dictionaries(near("anna", "b_c-d"), st.lists(near(KEY, f"{KEY} me"), max_size=2)),
    ),
    "extra_packages": (apt, st.lists(near("htop", "g++"), max_size=3)),
    "timezone": (zone, near("Europe/Brussels", "Etc/GMT+1")),
    "postgres_settings": (
        postgres,
        st.dictionaries(near("application_name", "include", "auto_explain.x"), near("1s", "a'b")),
    ),
    "backend_environment": (compose, st.dictionaries(near("GREETING", "X_1"), near("a", "$x"))),
    "backend_command": (compose, st.lists(near("/app/x", "--y"), min_size=1, max_size=3)),
    "acme_email": (traefik, near("ops@koprogo.be")),
    "acme_server": (traefik, near("https://acme.example.be/directory")),
    "domain": (traefik, near("koprogo.be")),
    "superadmin_addresses": (traefik, st.lists(near("203.0.113.7", "::1"), max_size=2)),
    "backup_repository": (
        repository,
        near("sftp:store@h:/p", "sftp://u@h:22/p", "s3:https://h/b", "/srv/b"),
    ),
    "install_root": (root, near("/opt/koprogo", "/srv/k-1")),
}


@pytest.mark.parametrize("name", SETTINGS)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
@given(data=st.data())
def test_no_accepted_value_adds_anything(name: str, data: st.DataObject) -> None:
    look, values = SETTINGS[name]
    value = data.draw(values)
    changes = {name: value, **(SFTP if name == "backup_repository" else {})}
    try:
        settings = Settings.model_validate({**VALUES, **changes})
    except ValidationError:
        return
    look(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sysctl", {"a.b": "1\nc.d = 2"}),
        ("admin_users", {"anna": [f"{KEY}\n{KEY}"]}),
        ("admin_users", {"ALL": [KEY]}),
        ("extra_packages", ["-oX=y"]),
        ("timezone", "-Hx y"),
        ("postgres_settings", {"include": "/tmp/x"}),
        ("acme_email", "a$b@x.be"),
        ("domain", "a.be`) || Path(`/"),
        ("backup_repository", "sftp:-oProxyCommand=id@h:/p"),
        ("install_root", "/opt/k\nUser=x"),
    ],
)
def test_the_looks_above_notice_what_the_door_keeps_out(name: str, value: Any) -> None:
    settings = project.settings(**SFTP).model_copy(update={name: value})
    with pytest.raises((AssertionError, yaml.YAMLError)):
        SETTINGS[name][0](settings)
