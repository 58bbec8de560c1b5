"""The door: what is refused before a host is touched. What, where, and what would be right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from koprogo_deploy import door
from koprogo_deploy.problems import Refusal
from koprogo_deploy.units import MB
from tests.project import ROOT, Project, for_all

HERE = "group_data/production.py"
DIGEST = "@sha256:" + "a" * 64


def entry(where: str, what: str, fix: str = "") -> str:
    return f"{where}: {what}\n" + (f"     -> {fix}\n" if fix else "")


def test_a_filled_in_project_passes(project: Project) -> None:
    opened = project.open()
    assert opened.host == "203.0.113.7"
    assert opened.settings.domain == "koprogo.be"
    assert len(opened.secrets["JWT_SECRET"]) == 64


def test_the_strongest_value_wins(project: Project) -> None:
    """all.py, then the environment's file, then the inventory, then --data."""
    project.add("group_data/all.py", backend_memory="101MB", seed_number=1, seed_scale=1)
    project.set(backend_memory="102MB", seed_number=2)
    project.write(
        "inventories/production.py",
        'vps = [("203.0.113.7", {"backend_memory": "103MB", "ssh_user": "debian", "_sudo": True})]',
    )
    opened = project.open()
    assert opened.settings.backend_memory == 103 * MB
    assert (opened.settings.seed_number, opened.settings.seed_scale) == (2, 1)
    assert project.open(backend_memory="104MB").settings.backend_memory == 104 * MB
    everywhere = "ssh_paramiko_connect_kwargs"
    names = ("ssh_user", "_sudo", everywhere)
    assert {name: opened.connection[name] for name in names} == {
        **{"ssh_user": "debian", "_sudo": True},
        everywhere: for_all()[everywhere],
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (
        {"backend_memroy": "128MB"},
        entry(f"{HERE}: backend_memroy", "unknown setting", "did you mean backend_memory?"),
    ),
    "unknown key, nothing near": (
        {"xyzzy": 1},
        entry(f"{HERE}: xyzzy", "unknown setting", "group_data/all.py lists every setting"),
    ),
    "no unit": (
        {"traefik_memory": 80},
        entry(
            f"{HERE}: traefik_memory = 80",
            "the unit is missing",
            'write "80MB" (kB, MB and GB are known)',
        ),
    ),
    "zero limit": (
        {"postgres_memory": "0MB"},
        entry(
            f"{HERE}: postgres_memory = '0MB'",
            'a limit of zero means "no limit" to Docker',
            "write a size above 0",
        ),
    ),
    "no limit": (
        {"frontend_memory": None},
        entry(f"{HERE}: frontend_memory", 'a size is text such as "80MB", not None'),
    ),
    "negative limit": (
        {"backend_memory": "-128MB"},
        entry(
            f"{HERE}: backend_memory = '-128MB'",
            "a size cannot be negative",
            'write, for instance, "80MB"',
        ),
    ),
    "zero count": (
        {"pool_max_connections": 0},
        f"{HERE}: pool_max_connections = 0: input should be greater than or equal to 1\n",
    ),
    "domain with a scheme": (
        {"domain": "https://koprogo.be"},
        entry(
            f"{HERE}: domain = 'https://koprogo.be'",
            "a domain has no scheme and no path",
            'write "koprogo.example.be"',
        ),
    ),
    "domain with a port": (
        {"domain": "koprogo.be:8443"},
        entry(
            f"{HERE}: domain = 'koprogo.be:8443'",
            "a domain has no port",
            "the ports are public_http_port, public_https_port",
        ),
    ),
    "domain in capitals": (
        {"domain": "KoproGo.be"},
        entry(f"{HERE}: domain = 'KoproGo.be'", 'write it in lower case: "koprogo.be"'),
    ),
    "domain of one word": (
        {"domain": "koprogo"},
        entry(
            f"{HERE}: domain = 'koprogo'",
            "not a domain name",
            'write, for instance, "koprogo.example.be"',
        ),
    ),
    "wildcard domain": ({"domain": "*.koprogo.be"}, "not a domain name"),
    "domain that is an address": (
        {"domain": "203.0.113.7"},
        entry(
            f"{HERE}: domain = '203.0.113.7'",
            "an IP address is not a domain: certificates are issued for names",
        ),
    ),
    "both domains the same": (
        {"api_domain": "koprogo.be"},
        entry(f"{HERE}: api_domain", "the same as domain", 'write, for instance, "api.koprogo.be"'),
    ),
    "wildcard origin": (
        {"cors_origins": ["https://koprogo.be", "*"]},
        entry(
            f"{HERE}: cors_origins[1] = '*'",
            "KoproGo refuses to start with a wildcard",
            'write each origin: "https://koprogo.be"',
        ),
    ),
    "wildcard in an origin": (
        {"cors_origins": ["https://*.koprogo.be"]},
        "KoproGo refuses to start with a wildcard",
    ),
    "origin without a scheme": (
        {"cors_origins": ["koprogo.be"]},
        entry(
            f"{HERE}: cors_origins[0] = 'koprogo.be'",
            'an origin needs its scheme: "https://koprogo.be"',
        ),
    ),
    "origin with a path": (
        {"cors_origins": ["https://koprogo.be/"]},
        'an origin is scheme and host only, no path, no final "/"',
    ),
    "tag latest": (
        {"backend_image": "ghcr.io/gilmry/koprogo/backend:latest"},
        entry(
            f"{HERE}: backend_image = 'ghcr.io/gilmry/koprogo/backend:latest'",
            '"latest" is another image every day',
            "name the tag you tested",
        ),
    ),
    "no tag": (
        {"backend_image": "ghcr.io/gilmry/koprogo/backend"},
        entry(
            f"{HERE}: backend_image = 'ghcr.io/gilmry/koprogo/backend'",
            'no tag, which means "latest"',
            "name the tag you tested",
        ),
    ),
    "tag that moves": (
        {"backend_image": "ghcr.io/gilmry/koprogo/backend:main"},
        '"main" moves\n     -> name a tag that does not, or add "@sha256:…"\n',
    ),
    "no registry": ({"backend_image": "backend:1"}, "not an image reference with its registry\n"),
    "tag where a digest is asked": (
        {"require_digest": True, "backend_image": f"ghcr.io/gilmry/koprogo/backend:1{DIGEST}"},
        entry(
            "group_data/all.py: frontend_image",
            "require_digest asks for a digest",
            'add "@sha256:…" to the image',
        ),
    ),
    "pool larger than Postgres allows": (
        {"pool_max_connections": 60, "postgres_settings": {"max_connections": "100"}},
        entry(
            f"{HERE}: pool_max_connections",
            "two colours of 60 connections and 9 in reserve are 129, and postgres_settings "
            "allows 100",
            "lower the pool to 45 or drop max_connections from postgres_settings (it is computed)",
        ),
    ),
    "pool larger than the memory": (
        {"pool_max_connections": 60},
        entry(
            "group_data/all.py: postgres_memory",
            "at worst Postgres would use 997MB of its 512MB",
            "lower pool_max_connections to 15, or raise postgres_memory",
        ),
    ),
    "more kept than the pool has": (
        {"pool_min_connections": 9},
        entry(
            f"{HERE}: pool_min_connections",
            "above pool_max_connections",
            "write 8 or less",
        ),
    ),
    "sum above RAM": (
        {"postgres_memory": "1GB"},
        entry(
            "group_data/all.py: vps_memory",
            "the memory budget needs 2 400 MB and the machine has 2 048 MB: 352 MB too much. "
            "The largest line is postgres (1 024 MB)",
            "lower postgres_memory or another limit, or take a bigger VPS; see: "
            "koprogo plan production",
        ),
    ),
    "rate limit below the load test": (
        {"rate_limit_average": 100},
        entry(
            f"{HERE}: rate_limit_average",
            "100 requests a second for each client would block the load test at 200",
            "raise it to 200 or more, or list the load client in load_client_addresses",
        ),
    ),
    "burst below the rate": (
        {"rate_limit_burst": 10},
        entry(f"{HERE}: rate_limit_burst", "below rate_limit_average", "write 250 or more"),
    ),
    "shared_buffers above the ceiling": (
        {"postgres_settings": {"shared_buffers": "300MB"}},
        entry(
            f"{HERE}: postgres_settings",
            "shared_buffers = 300MB is above 55 % of the container's 512MB, and a full cache "
            "would end in an OOM kill",
            'write at most "281MB", or raise postgres_memory',
        ),
    ),
    "override without a unit": (
        {"postgres_settings": {"work_mem": "6"}},
        entry(
            f"{HERE}: postgres_settings",
            "work_mem: the unit is missing",
            'write "6MB" (kB, MB and GB are known)',
        ),
    ),
    "override that is no text": (
        {"postgres_settings": {"jit": True}},
        f"{HERE}: postgres_settings['jit'] = True: input should be a valid string\n",
    ),
    "override that is ours": (
        {"postgres_settings": {"listen_addresses": "*"}},
        '"listen_addresses" is decided by koprogo-deploy\n     -> take it out\n',
    ),
    "override that breaks the line": (
        {"postgres_settings": {"work_mem": "6MB'\nfsync = 'off"}},
        'a value has one line and is not empty\n     -> write, for instance, "6MB"\n',
    ),
    "certificate without its files": (
        {"tls": "files"},
        entry(
            "group_data/all.py: tls_key",
            "missing",
            'tls = "files" needs its path, such as "tls.key"',
        ),
    ),
    "certificate that is not there": (
        {"tls": "files", "tls_certificate": "no.crt", "tls_key": "no.key"},
        entry(
            f"{HERE}: tls_certificate",
            'no file "no.crt" to read',
            "write the path of a PEM file, from the project's root or absolute",
        ),
    ),
    "no e-mail address": (
        {"acme_email": None},
        entry(
            f"{HERE}: acme_email", "missing", 'tls = "acme" needs an address for expiry warnings'
        ),
    ),
    "test CA whose roots nobody has": (
        {"acme_server": "https://acme-staging-v02.api.letsencrypt.org/directory"},
        entry(
            f"{HERE}: acme_server",
            "nobody trusts what a test CA signs, so smoke tests would fail",
            "set ca_certificate to a PEM file with its roots. Let's Encrypt's are listed at "
            "https://letsencrypt.org/docs/staging-environment/",
        ),
    ),
    "not an e-mail address": (
        {"acme_email": "ops"},
        '"ops" is not an e-mail address\n     -> write, for instance, "you@koprogo.be"\n',
    ),
    "address with a typo": (
        {"superadmin_addresses": ["203.0.113.300"]},
        entry(
            f"{HERE}: superadmin_addresses[0] = '203.0.113.300'",
            '"203.0.113.300" is not an address or network',
            'write "203.0.113.7" or "203.0.113.0/24"',
        ),
    ),
    "too small a network": (
        {"edge_network": "172.30.80.0/30"},
        entry(
            f"{HERE}: edge_network = '172.30.80.0/30'",
            "the containers need a private network of 16 addresses or more",
            'write, for instance, "172.30.80.0/24"',
        ),
    ),
    "no network": ({"edge_network": "fd00::/64"}, '"fd00::/64" is not an IPv4 network\n'),
    "secret in group data": (
        {"backend_environment": {"SMTP_PASSWORD": "x"}},
        entry(
            f"{HERE}: backend_environment",
            "SMTP_PASSWORD looks like a secret",
            "it belongs in .env.production",
        ),
    ),
    "not a variable": (
        {"backend_environment": {"smtp host": "x"}},
        '"smtp host" is not the name of a variable\n     -> write, for instance, "SMTP_HOST"\n',
    ),
    "unknown choice": (
        {"vps_disk_kind": "tape"},
        f"{HERE}: vps_disk_kind = 'tape': input should be 'ssd', 'nvme' or 'hdd'\n",
    ),
    "another environment's file": (
        {"environment": "staging"},
        entry(f"{HERE}: environment", "says staging", 'write environment = "production"'),
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(project: Project, changes: dict[str, Any], message: str) -> None:
    refusal = project.set(**changes).refusal()
    assert message in refusal
    assert "Nothing was touched." in refusal


def test_a_value_of_the_command_line_is_named_as_such(project: Project) -> None:
    assert "1. --data backend_memory = 80: the unit is missing\n" in project.refusal(
        backend_memory=80
    )


def test_a_value_of_the_inventory_is_named_as_such(project: Project) -> None:
    project.write("inventories/production.py", 'vps = [("203.0.113.7", {"domain": "x"})]')
    assert "1. inventories/production.py: domain = 'x': not a domain name\n" in project.refusal()


def test_all_problems_are_told_at_once(project: Project) -> None:
    """Wrong values, values wrong together, an unknown key, the sum, the tuning, the secrets."""
    project.set(
        domain="koprogo",
        seed_scale=0,
        rate_limit_average=100,
        backend_memroy="1MB",
        backend_memory="1GB",
        postgres_settings={"shared_buffers": "400MB", "work_mem": "50MB"},
    )
    (project.root / ".env.production").chmod(0o644)
    refusal = project.refusal()
    assert "Settings of production: 8 problems. Nothing was touched." in refusal
    for told in (
        "backend_memroy: unknown setting",
        "domain = 'koprogo': not a domain name",
        "seed_scale = 0: input should be greater than or equal to 1",
        "rate_limit_average: 100 requests a second",
        "vps_memory: the memory budget needs",
        "shared_buffers = 400MB is above 55 %",
        "at worst Postgres would use",
        ".env.production: others may read it (mode 0644)",
    ):
        assert told in refusal


def test_a_missing_setting_is_told_where_to_add_it(project: Project) -> None:
    path = project.root / "group_data/production.py"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("api_domain")]
    path.write_text("\n".join(kept))
    assert project.refusal().count("\n     -> ") == 1
    assert (
        entry(
            f"{HERE}: api_domain",
            "missing",
            "add it to group_data/production.py; group_data/all.py says what it means",
        )
        in project.refusal()
    )


def test_placeholders_are_refused_each_of_them(tmp_path: Path) -> None:
    project = Project.make(tmp_path)
    for folder in ("group_data", "inventories"):
        original = (door.ROOT / folder / "production.py").read_text()
        project.write(f"{folder}/production.py", original)
    refusal = project.refusal()
    assert "Settings of production: 5 problems" in refusal
    assert (
        entry(
            "inventories/production.py",
            "the host is still vps.example.invalid",
            "write the address of your VPS in place of the placeholder",
        )
        in refusal
    )
    for key in ("domain", "api_domain", "cors_origins[0]", "acme_email"):
        assert f"{HERE}: {key}" in refusal


@pytest.mark.parametrize(
    ("inventory", "what"),
    [
        ("vps = []", "0 hosts; KoproGo runs on one\n     -> one host, such as vps = [("),
        ('vps = ["a.be", "b.be"]', "2 hosts"),
        ("vps = [7]", "1 hosts"),
        ('vps = [("a.be",)]', "1 hosts"),
    ],
)
def test_an_inventory_has_one_host(project: Project, inventory: str, what: str) -> None:
    project.write("inventories/production.py", inventory)
    assert f"inventories/production.py: {what}" in project.refusal()


@pytest.mark.parametrize(
    ("path", "text", "told"),
    [
        ("group_data/all.py", "x = 1\ny = = 2\n", "line 2: SyntaxError: invalid syntax"),
        (
            "group_data/production.py",
            "x = 1\ny = z\n",
            "line 2: NameError: name 'z' is not defined",
        ),
        (
            "inventories/production.py",
            "import nothing_of_the_sort\n",
            "line 1: ModuleNotFoundError",
        ),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_its_line(
    project: Project, path: str, text: str, told: str
) -> None:
    project.write(path, text)
    refusal = project.refusal()
    assert f"1. {path}: {told}" in refusal
    assert "1 problem." in refusal, "what follows from an unread file is not told as a mistake"


def test_a_sandbox_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    Project.make(tmp_path)
    with pytest.raises(Refusal) as refusal:
        door.open_environment("sandbox", root=tmp_path)
    assert entry(
        "inventories/sandbox.py", "The sandbox is not there", "Make it with: make sandbox-up"
    ) in str(refusal.value)


def test_an_unknown_environment_is_told_the_nearest_one() -> None:
    with pytest.raises(Refusal, match='environment: "producton" is unknown'):
        door.open_environment("producton")
    with pytest.raises(Refusal, match=r"did you mean production\?"):
        door.open_environment("producton")
    with pytest.raises(Refusal, match="one of: production, staging, sandbox"):
        door.open_environment("x")


@pytest.mark.parametrize("field", ["tls_key", "backup_ssh_key", "ssh_key"])
def test_a_private_key_that_others_may_read_is_refused(project: Project, field: str) -> None:
    key = project.root / "a.key"
    key.write_text("key")
    key.chmod(0o640)
    (project.root / "link").symlink_to(key)
    (project.root / "tls.crt").write_text("certificate")
    values = {"tls": "files", "tls_certificate": "tls.crt", "tls_key": "a.key"}
    path = str(key) if field == "ssh_key" else "a.key"
    project.set(**{**values, field: path} if field != "tls_key" else values)
    refusal = project.refusal()
    assert "group_data/production.py: " + field in refusal
    assert f"others may read a.key (mode 0640)\n     -> chmod 600 {key}" in refusal
    key.chmod(0o600)
    project.open()
    key.chmod(0o604)
    project.set(**{field: str(project.root / "link")})
    assert "others may read link (mode 0604)" in project.refusal(), "a link is what it leads to"


def test_what_holds_a_secret_is_not_taken_into_git(tmp_path: Path) -> None:
    names = [
        ".env.production",
        "plan.json",
        "backup_key",
        "tls.key",
        "certificates/site.key",
        "ca.pem",
        "id_ed25519",
        ".known_hosts/production",
        "pyinfra-debug.log",
    ]
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *names, "README.md", "tests/golden/plan/new.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ignored.stdout.split() == names
