"""Who may ask the dashboard anything: the person who saw the printed link, from its own page.

Pure. The page can change an environment, so that other users of this machine, other web pages
and other names for this address are kept out:

- a random token in the link, exchanged for a cookie that scripts cannot read; once, so that a
  browser's history, or whoever reads the terminal later, opens nothing;
- the `Host` header, against a foreign name that resolves to 127.0.0.1 (DNS rebinding);
- `Sec-Fetch-Site` on all but the page itself, and `Origin` on what changes something: a page on
  another port of this machine is "same site" to a browser, which sends the cookie with what it
  asks, and each look at a fact asks the host.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

SAFE_METHODS = ("GET", "HEAD")

# Everything comes from the dashboard itself; no inline script and no inline style.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report holds its scripts; it runs in an origin of its own, without cookie and network.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Keys:
    """What opens one dashboard: the token of the link, and the cookie's value."""

    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; cookies know no ports, so the port is in the name."""
        return f"koprogo-dashboard-{self.port}"

    @property
    def hosts(self) -> tuple[str, str]:
        """The `Host` headers under which the dashboard answers."""
        return f"127.0.0.1:{self.port}", f"localhost:{self.port}"

    @property
    def link(self) -> str:
        """The address to open, with the token."""
        return f"http://{self.hosts[0]}/?token={self.token}"


@dataclass(frozen=True)
class Refused:
    """Why a request is not answered: the HTTP status, and words for the person."""

    status: int
    words: str


USED = Refused(
    401, "this link was opened already, and opens once: end koprogo dashboard and start it again"
)


def refusal(
    keys: Keys, method: str, headers: Mapping[str, str], cookie: str | None, path: str = ""
) -> Refused | None:
    """Decide on a request.

    Args:
        keys: of this dashboard.
        method: the HTTP method.
        headers: by lower-case name.
        cookie: value of the cookie `keys.cookie`, if the request has it.
        path: what is asked for.

    Returns:
        None if it may pass.
    """
    if headers.get("host") not in keys.hosts:
        return Refused(403, f"the dashboard answers at http://{keys.hosts[0]} only")
    if not _same(cookie, keys.session):
        return Refused(401, "open the link that koprogo dashboard printed in the terminal")
    # Absent in an old browser; "none" is a person's own doing, which no page can make.
    site = headers.get("sec-fetch-site", "same-origin")
    if path != "/" and site not in ("same-origin", "none"):
        return Refused(403, "this must come from the dashboard's own page (Sec-Fetch-Site)")
    if method in SAFE_METHODS:
        return None
    if headers.get("origin") != f"http://{headers['host']}":
        return Refused(403, "this must come from the dashboard's own page (Origin)")
    if site != "same-origin":
        return Refused(403, "this must come from the dashboard's own page (Sec-Fetch-Site)")
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return Refused(415, "the dashboard takes application/json only")
    return None


def opens(keys: Keys, host: str | None, token: str | None) -> bool:
    """Whether a link's token is the right one, asked under the right name."""
    return host in keys.hosts and _same(token, keys.token)


def name_typed(environment: str, name: object) -> bool:
    """Whether a request to change something names the environment that it would change."""
    return isinstance(name, str) and name == environment


def _same(given: str | None, right: str) -> bool:
    return given is not None and secrets.compare_digest(given.encode(), right.encode())
