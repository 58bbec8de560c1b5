"""A small certificate authority and the sandbox's SSH keys: P-256, made once, re-issued in time."""

import datetime as dt
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT_DAYS = 3650
SERVER_DAYS = 90
RENEW_DAYS = 30
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")

Key = ec.EllipticCurvePrivateKey


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file that never exists with wider rights, nor half written."""
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    scratch.chmod(mode)
    scratch.replace(path)


def private_pem(key: Key) -> bytes:
    """A private key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load(certificate: Path, key: Path) -> tuple[x509.Certificate, Key] | None:
    """A certificate and its key, if both are there and belong together."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        secret = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError):
        return None
    if not isinstance(secret, ec.EllipticCurvePrivateKey):
        return None
    return (found, secret) if found.public_key() == secret.public_key() else None


def lasts(certificate: x509.Certificate, days: int) -> bool:
    """Whether a certificate is valid for that many days to come."""
    end = certificate.not_valid_after_utc
    return end - dt.datetime.now(dt.UTC) > dt.timedelta(days=days)


def usage(*, authority: bool) -> x509.KeyUsage:
    """A root signs certificates, a server signs handshakes: neither does more."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def builder(subject: str, issuer: x509.Name, key: Key, days: int) -> x509.CertificateBuilder:
    """What a root and a server certificate have in common."""
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clocks of two machines never agree to the second.
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def root(directory: Path, name: str) -> tuple[x509.Certificate, Key]:
    """The root of this sandbox, made at the first call.

    Whoever imports it into a browser trusts it for these names only: no other site is at risk.
    """
    found = load(directory / "ca.crt", directory / "ca.key")
    if found and lasts(found[0], SERVER_DAYS):
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        builder(name, subject, key, ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(authority=True), critical=True)
        .add_extension(
            x509.NameConstraints(
                [x509.DNSName("localhost"), x509.DNSName("koprogo.test"), x509.IPAddress(LOOPBACK)],
                None,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    write(directory / "ca.key", private_pem(key), 0o600)
    write(directory / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate, key


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether this root signed it, and not an earlier one of the same name."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def server(
    directory: Path, stem: str, names: list[str], issuer: tuple[x509.Certificate, Key]
) -> bool:
    """A server certificate for these names; True if a new one was issued."""
    paths = directory / f"{stem}.crt", directory / f"{stem}.key"
    found = load(*paths)
    if found and lasts(found[0], RENEW_DAYS) and signed_by(found[0], issuer[0]):
        return False
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    certificate = (
        builder(names[0], issuer[0].subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key()),
            critical=False,
        )
        .sign(issuer[1], hashes.SHA256())
    )
    write(paths[1], private_pem(key), 0o600)
    write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return True


def ssh_key(path: Path, comment: str) -> str:
    """An Ed25519 key pair in OpenSSH's format, made once; returns the public line."""
    public = path.with_name(path.name + ".pub")
    if not (path.exists() and public.exists()):
        key = ed25519.Ed25519PrivateKey.generate()
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        write(path, secret, 0o600)
        write(public, line + f" {comment}\n".encode(), 0o644)
    return public.read_text().strip()
