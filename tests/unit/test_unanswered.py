"""A question that nobody answered is never taken for a good answer."""

from __future__ import annotations

import pytest
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import maintenance
from koprogo_deploy.operations.context import passing
from koprogo_deploy.operations.preflight import lets_pass
from koprogo_deploy.settings import network


def test_a_site_that_is_silent_lets_nobody_pass_and_nobody_is_shut_out() -> None:
    page = {maintenance.HEADER.lower(): "back at ten"}
    assert lets_pass(None, restarting=False) is None
    assert lets_pass(None, restarting=True) is None
    assert lets_pass(page, restarting=False) is False
    assert lets_pass(page, restarting=True) is True
    assert lets_pass({}, restarting=False) is True


@pytest.mark.parametrize("own", ["", "not an address", "sh: 1: nothing"])
def test_an_address_that_the_host_does_not_say_is_not_made_up(own: str) -> None:
    with pytest.raises(OperationError, match="superadmin_addresses"):
        passing(own, ())
    assert passing(own, ("192.0.2.7/32",)) == ("192.0.2.7/32",)


def test_an_address_that_it_says_passes_with_the_listed_ones() -> None:
    own = network("192.0.2.1")
    assert passing("192.0.2.1", ("192.0.2.7/32",)) == (own, "192.0.2.7/32")
    assert passing("192.0.2.1", (own,)) == (own,)
