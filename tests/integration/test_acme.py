"""Certificates by ACME, as in production: a real ACME server (Let's Encrypt's pebble, from
Debian) beside the box, a real challenge through port 80 of the box, a real certificate.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.rig import ROOT, Rig

DOCKERFILE = """
ARG BASE
FROM ${BASE}
RUN apt-get -q update && apt-get -q -y install --no-install-recommends pebble
"""


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments], input=stdin, capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.strip()


def certificate_for(address: str, directory: Path) -> None:
    """A self-signed certificate of the ACME server's own HTTPS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pebble")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (directory / "acme.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "acme.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@contextlib.contextmanager
def acme_server(tmp_path: Path, host: int = 0) -> Iterator[dict[str, Any]]:
    """pebble on the sandbox's network; the site's names are the box to it, or a host beside it."""
    box = json.loads((ROOT / ".sandbox" / "state.json").read_text())
    [network] = json.loads(docker("inspect", box["container"]))[0]["NetworkSettings"]["Networks"]
    address = str(ipaddress.ip_address(box["box_address"]) + 50)
    site = str(ipaddress.ip_address(box["box_address"]) + host)
    base = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "koprogo-sandbox/debian")
    name = f"{network}-acme"
    image = f"{name}:test"
    docker("build", "-q", "-t", image, "--build-arg", f"BASE={base.split()[0]}", "-",
           stdin=DOCKERFILE)  # fmt: skip
    certificate_for(address, tmp_path)
    config = {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "0.0.0.0:15000",
        "certificate": "/acme/acme.crt",
        "privateKey": "/acme/acme.key",
        "httpPort": 80,
        "tlsPort": 443,
    }
    (tmp_path / "pebble.json").write_text(json.dumps({"pebble": config}))
    docker("rm", "-f", name)
    docker(
        "create", "--name", name, "--network", network, "--ip", address,
        "--add-host", f"koprogo.localhost:{site}",
        "--add-host", f"api.koprogo.localhost:{site}",
        "-e", "PEBBLE_VA_NOSLEEP=1",
        image, "pebble", "-config", "/acme/pebble.json", "-strict",
    )  # fmt: skip
    try:
        docker("cp", str(tmp_path), f"{name}:/acme")
        docker("start", name)
        trust = ssl.create_default_context(cafile=str(tmp_path / "acme.crt"))
        root = tmp_path / "root.crt"
        for attempt in range(50):
            try:
                url = f"https://{address}:15000/roots/0"
                with urllib.request.urlopen(url, context=trust, timeout=2) as answer:
                    root.write_bytes(answer.read())
                break
            except OSError:
                if attempt == 49:
                    raise
                time.sleep(0.2)
        yield {
            "acme_server": f"https://{address}:14000/dir",
            "acme_ca_certificate": str(tmp_path / "acme.crt"),
            "ca_certificate": str(root),
            "acme_email": "syndic@koprogo.example",
            "tls": "acme",
        }
    finally:
        docker("rm", "-f", name)
        docker("rmi", image)


@pytest.fixture
def without_certificates(rig: Rig) -> Iterator[None]:
    """The site's own certificates again afterwards; another pebble has another root."""
    rig.on_host("rm -rf /opt/koprogo/traefik/acme")
    yield
    rig.converge()


@pytest.mark.slow
def test_certificates_are_issued_and_the_site_verified_with_them(
    rig: Rig, without_certificates: None, tmp_path: Path
) -> None:
    with acme_server(tmp_path) as settings:
        first = rig.deploy(**settings)
        assert first.code == 0, first.output
        assert "Cut over | Have certificates for both names" in first.output
        again = rig.deploy(**settings)
        assert (again.code, again.changed) == (0, []), again.output


@pytest.mark.slow
def test_names_that_point_elsewhere_have_no_certificate_and_what_served_serves(
    rig: Rig, without_certificates: None, tmp_path: Path
) -> None:
    serving = rig.manifest()["id"]
    with acme_server(tmp_path, host=51) as settings:
        run = rig.deploy(**settings)
    assert run.code != 0, run.output
    assert "no certificate for koprogo.localhost and api.koprogo.localhost" in run.output
    assert "do both names point to this host, and is port 80 open to the world?" in run.output
    assert f"was taken back; {serving} serves again" in run.output
    assert rig.manifest()["id"] == serving
    verified = rig.deploy(deploy="verify")
    assert verified.code == 0, verified.output
    refused = rig.deploy(**settings)
    assert refused.code != 0
    assert "this very release was taken back: failed " in refused.output
