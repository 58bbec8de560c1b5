"""SSH without SHA-1: real servers that offer only that, or say that they do not and use it."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.agent import AgentKey
from pyinfra.api import Config, Inventory, State
from pyinfra.api.exceptions import ConnectError

from koprogo_deploy import command_line, door
from koprogo_deploy.pyinfra_adapter import command_line as pyinfra_command_line
from koprogo_deploy.pyinfra_adapter import known_keys, sha1
from tests import project
from tests.project import Project

KIND = "ssh_paramiko_connect_kwargs"
KEY = paramiko.RSAKey.generate(2048)  # of the host, and of who logs in
PREFERRED = {
    kind: getattr(paramiko.Transport, f"_preferred_{kind}")
    for kind in ("keys", "pubkeys", "kex", "macs")
}


class Lets(paramiko.ServerInterface):
    """Lets in whoever has a key."""

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


class SignsWithSha1(paramiko.RSAKey):
    """A host's key that signs with SHA-1, whatever was agreed on."""

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> paramiko.Message:
        return SIGN(self, data, "ssh-rsa")


METHODS = {
    paramiko.RSAKey: {n: getattr(paramiko.RSAKey, n) for n in ("sign_ssh_data", "verify_ssh_sig")},
    AgentKey: {"sign_ssh_data": AgentKey.sign_ssh_data},
}
SIGN = paramiko.RSAKey.sign_ssh_data
CONNECT = paramiko.SSHClient.connect


@contextmanager
def server(only: dict[str, str], *keys: paramiko.PKey) -> Iterator[int]:
    """An SSH server on a port of 127.0.0.1 that knows one algorithm of these kinds."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    transports: list[paramiko.Transport] = []

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        off = {kind: [n for n in PREFERRED[kind] if n != name] for kind, name in only.items()}
        transport = paramiko.Transport(connection, disabled_algorithms=off)
        transports.append(transport)
        for key in keys or (KEY,):
            transport.add_server_key(key)
        with suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=Lets())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(20)
        for transport in transports:
            transport.close()


def connect(port: int, folder: Path, settings: dict[str, Any] | None, *keys: paramiko.PKey) -> str:
    """Connect as a deploy does; how the login went: the algorithm of the host's key and ours.

    `keys` are those that are known of the host, in their order.
    """
    mine = folder / "key"
    KEY.write_private_key_file(str(mine))
    known = folder / "known_hosts"
    known.write_text(
        "".join(
            f"[127.0.0.1]:{port} {key.get_name()} {key.get_base64()}\n" for key in keys or (KEY,)
        )
    )
    data = {"ssh_user": "u", "ssh_port": port, "ssh_key": str(mine)}
    data |= {"ssh_known_hosts_file": str(known), "ssh_strict_host_key_checking": "yes"}
    data |= {"ssh_config_file": str(folder / "none"), KIND: settings or {}}
    inventory = Inventory(([("127.0.0.1", data)], {}))
    state = State(inventory, Config())
    host = inventory.get_host("127.0.0.1")
    state.activate_host(host)
    host.connect(raise_exceptions=True, show_errors=False)
    transport = host.connector.client.get_transport()
    try:
        return f"{transport.host_key_type} {transport._agreed_pubkey_algorithm}"
    finally:
        host.connector.client.close()


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> None:
    """paramiko as it comes."""
    monkeypatch.setattr(paramiko.RSAKey, "_koprogo_no_sha1", False, raising=False)
    monkeypatch.setattr(paramiko.SSHClient, "_koprogo_known_first", False, raising=False)
    monkeypatch.setattr(paramiko.SSHClient, "connect", CONNECT)
    for kind, names in METHODS.items():
        for name, method in names.items():
            monkeypatch.setattr(kind, name, method)
    monkeypatch.setattr(
        paramiko.agent.AgentKey, "sign_ssh_data", paramiko.agent.AgentKey.sign_ssh_data
    )


@pytest.fixture
def refused(before: None) -> None:
    """paramiko as a deploy uses it."""
    for _ in range(2):
        sha1.refuse()
        known_keys.ask_first()


OLD = {
    "host key": ({"keys": "ssh-rsa"}, "no acceptable host key"),
    "key exchange": ({"kex": "diffie-hellman-group14-sha1"}, "no acceptable kex algorithm"),
    "MAC": ({"macs": "hmac-sha1"}, "no acceptable macs"),
    "user's key": ({"pubkeys": "ssh-rsa"}, "agree on a pubkey algorithm for signing"),
}


def kwargs() -> dict[str, Any]:
    value: dict[str, Any] = project.for_all()[KIND]
    return value


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("only", [only for only, _ in OLD.values()], ids=OLD)
def test_without_the_setting_a_server_of_sha1_alone_is_good_enough(
    only: dict[str, str], tmp_path: Path
) -> None:
    """Else the refusal below would show nothing."""
    with server(only) as port:
        assert "rsa" in connect(port, tmp_path, None)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(("only", "says"), OLD.values(), ids=OLD)
def test_a_server_of_sha1_alone_is_refused(only: dict[str, str], says: str, tmp_path: Path) -> None:
    with server(only) as port, pytest.raises(ConnectError, match=says):
        connect(port, tmp_path, kwargs())


@pytest.mark.usefixtures("before")
def test_the_setting_alone_believes_a_signature_that_was_not_agreed_on(tmp_path: Path) -> None:
    with server({"keys": "rsa-sha2-512"}, SignsWithSha1(key=KEY.key)) as port:
        assert connect(port, tmp_path, kwargs()).startswith("rsa-sha2-512")


@pytest.mark.usefixtures("refused")
def test_a_host_that_signs_with_sha1_after_all_is_refused(tmp_path: Path) -> None:
    says = r"Signature verification \(rsa-sha2-512\) failed"
    with (
        server({"keys": "rsa-sha2-512"}, SignsWithSha1(key=KEY.key)) as port,
        pytest.raises(ConnectError, match=says),
    ):
        connect(port, tmp_path, kwargs())


@pytest.mark.usefixtures("refused")
def test_rsa_keys_work_on_with_sha2(tmp_path: Path) -> None:
    with server({}) as port:
        assert connect(port, tmp_path, kwargs()) == "rsa-sha2-512 rsa-sha2-512"


# --- the key that is known is asked for -----------------------------------------------------------

CURVE, LONGER = paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate(bits=384)


@pytest.mark.usefixtures("before")
def test_as_it_comes_paramiko_calls_a_host_that_is_known_by_rsa_an_attack(tmp_path: Path) -> None:
    with server({}, KEY, CURVE) as port, pytest.raises(ConnectError, match="does not match"):
        connect(port, tmp_path, kwargs(), KEY)


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize(
    ("known", "shown"),
    [
        ([KEY], "rsa-sha2-512"),
        ([KEY, CURVE], "rsa-sha2-512"),
        ([CURVE, KEY], "ecdsa-sha2-nistp256"),
        ([LONGER, KEY], "rsa-sha2-512"),  # which the host does not have any more
    ],
    ids=["RSA alone", "RSA first", "another first", "the first one gone"],
)
def test_a_host_shows_a_key_that_is_known_of_it(
    known: list[paramiko.PKey], shown: str, tmp_path: Path
) -> None:
    with server({}, KEY, CURVE) as port:
        assert connect(port, tmp_path, kwargs(), *known).split()[0] == shown


@pytest.mark.usefixtures("refused")
def test_a_host_with_another_key_of_a_known_type_is_still_refused(tmp_path: Path) -> None:
    other = paramiko.RSAKey.generate(2048)
    with server({}, other, CURVE) as port, pytest.raises(ConnectError, match="does not match"):
        connect(port, tmp_path, kwargs(), KEY)


@pytest.mark.usefixtures("refused")
def test_so_does_a_jump_host_which_gets_no_setting(tmp_path: Path) -> None:
    with server({}, KEY, CURVE) as port:
        assert connect(port, tmp_path, None, KEY).split()[0] == "rsa-sha2-512"


@pytest.mark.usefixtures("refused")
@pytest.mark.parametrize("algorithm", [None, *sorted(sha1.NAMES)])
def test_nothing_is_signed_with_sha1(algorithm: str | None) -> None:
    with pytest.raises(paramiko.SSHException, match="SHA-1, which is switched off"):
        KEY.sign_ssh_data(b"x", algorithm)
    message = SIGN(KEY, b"x", "rsa-sha2-256")
    message.rewind()
    assert KEY.verify_ssh_sig(b"x", message)


# --- one home for the value ----------------------------------------------------------------------


def test_what_is_left_rests_on_no_broken_hash() -> None:
    off = kwargs()["disabled_algorithms"]
    for kind, names in PREFERRED.items():
        assert set(off[kind]) <= set(names), "paramiko knows each of them"
        left = set(names) - set(off[kind])
        assert left
        assert not [n for n in left if "sha1" in n or "md5" in n or n in ("ssh-rsa", "ssh-dss")]


@pytest.mark.parametrize("name", door.ENVIRONMENTS)
def test_every_environment_has_it_from_one_place(name: str) -> None:
    assert KIND in (project.ROOT / "group_data" / "all.py").read_text()
    for folder in ("group_data", "inventories"):
        assert KIND not in (project.ROOT / folder / f"{name}.py").read_text()


def test_an_inventory_that_lets_it_in_again_is_refused(tmp_path: Path) -> None:
    made = Project.make(tmp_path)

    def inventory(value: object) -> None:
        data = {"ssh_user": "debian", KIND: value}
        made.write("inventories/production.py", f'vps = [("203.0.113.7", {data!r})]')

    inventory({"compress": True})
    told = made.refusal()
    assert "inventories/production.py: ssh_paramiko_connect_kwargs: lets in what" in told
    assert "group_data/all.py switches off: " in told and "keys ssh-rsa" in told
    inventory({**kwargs(), "compress": True})
    assert made.open().connection[KIND]["compress"] is True


# --- what is said --------------------------------------------------------------------------------


def test_the_refusal_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test-of-sha1")
    pyinfra_command_line.explain("Incompatible ssh peer", command_line.OLD_SERVER, logger)
    pyinfra_command_line.explain("Incompatible ssh peer", command_line.OLD_SERVER, logger)
    logger.error("[box] SSH error (Incompatible ssh peer (no acceptable host key))")
    logger.error("[box] 100 % else")
    first, other = caplog.messages
    assert first.count(command_line.OLD_SERVER) == 1
    assert "ssh-keygen -A" in first
    assert other == "[box] 100 % else"
