"""What tests start from: this project's own group data made valid, in memory or in a folder."""

from __future__ import annotations

import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koprogo_deploy import door, render, secrets
from koprogo_deploy.problems import Refusal
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import SERVICES, SWITCHED, Settings

ROOT = door.ROOT

KEY, OTHER_KEY = (  # public ones, as a .pub file has them
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/",
)

# What an operator fills in.
FILLED_IN: dict[str, dict[str, Any]] = {
    "production": {
        "domain": "koprogo.be",
        "api_domain": "api.koprogo.be",
        "cors_origins": ["https://koprogo.be"],
        "acme_email": "ops@koprogo.be",
        "superadmin_addresses": ["203.0.113.7"],
        "ssh_host_key": KEY,
    },
    # What inventories/sandbox.py adds for a box.
    "sandbox": {
        "swap": None,
        "time_synchronisation": False,
        "public_address": "127.0.0.1",
        "scan_address": "10.213.188.10",
        "public_http_port": 8080,
        "public_https_port": 8443,
        "cors_origins": ["https://koprogo.localhost:8443"],
        "tls_certificate": "tls.crt",
        "tls_key": "tls.key",
        "load_client_addresses": ["10.213.188.1"],
        "superadmin_addresses": ["10.213.188.1"],
    },
}
SECRETS = Secrets({wanted.name: f"{number:064x}" for number, wanted in enumerate(secrets.WANTED)})
TLS = {"tls_certificate": "the certificate", "tls_key": "the key", "acme_ca_certificate": "the CA"}
COLOURS = dict.fromkeys(SWITCHED, "blue")


def for_all() -> dict[str, Any]:
    """Group data for all environments."""
    found = runpy.run_path(str(ROOT / "group_data" / "all.py"))
    return {key: value for key, value in found.items() if not key.startswith("__")}


def values(environment: str = "production", **changes: Any) -> dict[str, Any]:
    """Group data of an environment as it stands here, filled in, with changes on top."""
    found: dict[str, Any] = {}
    for name in ("all", environment):
        module = runpy.run_path(str(ROOT / "group_data" / f"{name}.py"))
        found |= {key: value for key, value in module.items() if not key.startswith("__")}
    found |= FILLED_IN[environment]
    # The way to the host is pyinfra's, not a setting.
    return {key: value for key, value in found.items() if not key.startswith("ssh_")} | changes


def settings(environment: str = "production", **changes: Any) -> Settings:
    """Valid settings of an environment, with changes; `install_root` may be a test's own folder."""
    root = changes.pop("install_root", None)
    made = Settings.model_validate(values(environment, **changes))
    return made.model_copy(update={"install_root": root}) if root else made


def digests(asked: Settings) -> dict[str, str]:
    """A made-up digest reference for each image."""
    return {
        service: f"{asked.image(service).rpartition(':')[0]}@sha256:{str(number) * 64}"
        for number, service in enumerate(SERVICES, start=1)
    }


def sets(asked: Settings, kept: Secrets = SECRETS) -> dict[str, dict[str, str]]:
    """Secret files of an environment."""
    return render.secret_sets(asked, kept, TLS)


def release(asked: Settings, **colours: str) -> render.Release:
    """A rendered release of these settings."""
    return render.render(asked, sets(asked), digests(asked), COLOURS | colours)


@dataclass(frozen=True)
class Project:
    """A copy of group data and inventories in a folder of its own, valid until it is changed."""

    root: Path

    @classmethod
    def make(cls, root: Path, environment: str = "production") -> Project:
        """Copy what is here and fill in the placeholders."""
        for folder in ("group_data", "inventories"):
            shutil.copytree(ROOT / folder, root / folder)
        project = cls(root)
        project.add(f"group_data/{environment}.py", **FILLED_IN[environment])
        project.write(f"inventories/{environment}.py", 'vps = [("203.0.113.7", {})]\n')
        secrets.initialise(environment, root)
        return project

    def write(self, path: str, text: str) -> None:
        """Write a file anew."""
        (self.root / path).write_text(text, encoding="utf-8")

    def add(self, path: str, **lines: Any) -> None:
        """Set values at the end of a file of group data."""
        with (self.root / path).open("a", encoding="utf-8") as file:
            file.writelines(f"{name} = {value!r}\n" for name, value in lines.items())

    def set(self, **lines: Any) -> Project:
        """Set values in group_data/production.py."""
        self.add("group_data/production.py", **lines)
        return self

    def open(self, **data: Any) -> door.Environment:
        """Open production's door, `data` being what `--data` says."""
        return door.open_environment("production", data, self.root)

    def refusal(self, **data: Any) -> str:
        """The text that refuses production."""
        try:
            self.open(**data)
        except Refusal as refusal:
            return str(refusal)
        raise AssertionError("nothing was refused")
