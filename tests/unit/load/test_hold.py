"""What a run holds on the host."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml

from koprogo_deploy.load import hold
from tests.project import settings


def test_a_client_of_group_data_needs_no_exemption() -> None:
    asked = settings(load_client_addresses=["203.0.113.0/24", "2001:db8::1"])
    assert hold.exempt_for_good(asked, "203.0.113.9")
    assert hold.exempt_for_good(asked, "2001:db8::1")
    assert not hold.exempt_for_good(asked, "203.0.114.9")
    assert not hold.exempt_for_good(asked, "")


def test_the_exemption_is_one_router_for_one_address_without_the_limits() -> None:
    for environment, tls in (("production", {"certResolver": "acme"}), ("sandbox", {})):
        found = yaml.safe_load(hold.exemption(settings(environment), "203.0.113.9"))
        ((name, router),) = found["http"]["routers"].items()
        assert name == hold.ROUTER
        assert "ClientIP(`203.0.113.9`)" in router["rule"]
        assert "PathPrefix(`/api/v1/`)" in router["rule"]
        assert router["middlewares"] == ["headers", "compress", "retry"]
        assert router["tls"] == tls
        # Below what closes the dangerous paths and the superadmin's pages.
        assert 7000 < router["priority"] < 9000


@pytest.mark.parametrize("client", ["", "x`) || ClientIP(`0.0.0.0/0", "203.0.113.0/24"])
def test_what_is_no_address_is_exempt_from_nothing(client: str) -> None:
    with pytest.raises(ValueError, match="address"):
        hold.exemption(settings(), client)


@pytest.mark.parametrize("client", [None, "203.0.113.9"])
def test_the_script_is_a_shell_script(client: str | None) -> None:
    script = hold.hold_script(settings(), "o'brien@x since now", client, 300)
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_what_takes_the_exemption_back_is_there_before_it() -> None:
    script = hold.hold_script(settings(), "me", "203.0.113.9", 300)
    placed = script.index("mv -T")
    assert script.index("/etc/tmpfiles.d/koprogo-load.conf") < placed
    assert script.index("systemd-run -q --collect") < placed
    assert "--on-active=300" in script
    assert script.index("echo held") > placed
    assert script.rindex("rm -f") > script.index("cat >/dev/null")


def test_without_a_client_nothing_is_exempt() -> None:
    script = hold.hold_script(settings(), "me", None, 300)
    assert "ClientIP" not in script
    assert "systemd-run" not in script
