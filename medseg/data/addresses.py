"""Which addresses may be opened, and what opens them."""

import ssl
from http.client import HTTPMessage
from typing import IO
from urllib import request
from urllib.parse import urlsplit

import certifi

from medseg.core.errors import DownloadError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def require_safe(url: str, *, allow_http: bool) -> None:
    """Refuse an address that is neither https nor allowed plain http.

    Raises:
        DownloadError: FET-002.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as fault:
        raise DownloadError(f"{url}: is not an address: {fault}", code="FET-002") from fault
    local = host in _LOOPBACK
    if not host or parts.scheme not in ("https", "http"):
        raise DownloadError(f"{url}: expected an https address", code="FET-002")
    if parts.scheme == "http" and not (local or allow_http):
        raise DownloadError(
            f"{url}: plain http can be listened to and altered",
            code="FET-002",
            hint="use https, or allow_http=true if you trust the way there",
        )


class _SameScheme(request.HTTPRedirectHandler):
    """Follows a redirect only where the first address could have led."""

    max_redirections = 5

    def __init__(self, *, allow_http: bool) -> None:
        self._allow_http = allow_http

    def redirect_request(
        self,
        req: request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> request.Request | None:
        try:
            require_safe(newurl, allow_http=self._allow_http)
            if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
                raise DownloadError(
                    f"{req.full_url}: redirects to {newurl}, another scheme", code="FET-002"
                )
        except DownloadError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener_for(url: str, *, allow_http: bool) -> request.OpenerDirector:
    """Build what opens the scheme of `url` and no other (urllib's own also opens file and ftp)."""
    opener = request.OpenerDirector()
    # A proxy of the network is honoured, except for this machine itself.
    local = urlsplit(url).hostname in _LOOPBACK
    for handler in (
        request.ProxyHandler({} if local else None),
        _handler_for(urlsplit(url).scheme),
        _SameScheme(allow_http=allow_http),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _handler_for(scheme: str) -> request.BaseHandler:
    if scheme == "http":
        return request.HTTPHandler()
    secure = ssl.create_default_context()
    secure.load_verify_locations(certifi.where())
    return request.HTTPSHandler(context=secure)
