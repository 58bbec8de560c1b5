"""The site from outside: HTTPS to the public address, by the names that people use."""

from __future__ import annotations

import ssl
from types import TracebackType

import httpx2

from koprogo_deploy.settings import Settings


class _ByAddress(httpx2.HTTPTransport):
    """Connects to `public_address` while the URL, and so SNI and Host, keep the site's name."""

    def __init__(self, address: str | None, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify)
        self._address = address

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._address:
            name = request.url.host
            request.extensions = {**request.extensions, "sni_hostname": name}
            request.url = request.url.copy_with(host=self._address)
        return super().handle_request(request)


class Outside:
    """HTTP clients for the frontend and the API of an environment.

    Attributes:
        api: base URL ends in `/api/v1`.
        frontend: base URL is the site's.
    """

    def __init__(self, settings: Settings, timeout: float = 15.0) -> None:
        self.settings = settings
        context = ssl.create_default_context(cafile=settings.ca_certificate)
        self._transport = _ByAddress(settings.public_address, context)
        self.api = self._client(settings.api_url, timeout)
        self.frontend = self._client(settings.url, timeout)

    def _client(self, url: str, timeout: float) -> httpx2.Client:
        return httpx2.Client(base_url=url, transport=self._transport, timeout=timeout)

    @property
    def address(self) -> tuple[str, int]:
        """Where TCP connections for HTTPS go."""
        settings = self.settings
        return settings.public_address or settings.domain, settings.public_https_port

    def login(self, email: str, password: str) -> httpx2.Response:
        """Log in; the answer holds the token when it is 200."""
        return self.api.post("/auth/login", json={"email": email, "password": password})

    def __enter__(self) -> Outside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.api.close()
        self.frontend.close()
