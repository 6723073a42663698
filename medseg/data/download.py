"""A file from a server that may break off, stall or lie: resumed, checked, whole or refused.

The standard library does the talking: which redirect, which range and how slow is too slow must be
our own rules anyway, and `requests` would neither resume, nor tell a drip from a flow.
"""

import shutil
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib import error, request

from medseg import __version__
from medseg.core.errors import DownloadError
from medseg.data.addresses import opener_for, require_safe
from medseg.data.partial import Partial

MIB = 1 << 20
_LONGEST_PAUSE_S = 60.0
# Answers after which the same request may succeed: time-out, too many requests, server trouble.
_PASSING = (408, 429, 500, 502, 503, 504)
# Left free on the disk when a server does not say how much it will send.
_RESERVE_BYTES = 1024 * MIB

# Shows progress: takes one item per MiB (a Sized where the length is known), passes them on.
Watch = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a server is waited for, and how often it is asked again.

    Attributes:
        timeout_s: to connect, and between two arrivals.
        window_s: over this long, fewer than `slowest_bytes_s` bytes a second count as a stall.
        slowest_bytes_s: see there.
        tries: how often the server is asked in all.
        pause_s: before the second try; doubled before each further one, up to a minute.
    """

    timeout_s: float = 30.0
    window_s: float = 60.0
    slowest_bytes_s: float = 1024.0
    tries: int = 5
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        if self.tries < 1 or min(self.timeout_s, self.window_s) <= 0 or self.pause_s < 0:
            raise DownloadError(f"{self}: expected at least one try and times above 0")

    def pause_before(self, attempt: int) -> float:
        """Return the seconds to wait before try number `attempt` (the first is 0)."""
        return min(self.pause_s * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S) if attempt else 0.0


class _BrokenOffError(Exception):
    """The transfer failed in a way that another try may mend."""


def download(
    url: str,
    path: Path,
    *,
    checksum: str,
    patience: Patience | None = None,
    allow_http: bool = False,
    watch: Watch = iter,
    note: Callable[[str], None] = lambda _: None,
) -> str:
    """Fetch a file; `path` exists only once its checksum was right.

    What has arrived is kept as `<path>.part` and carried on, now or by a later call, if the server
    says that its file is still the same one (`If-Range`); else it starts over. Call it under a
    lock: two downloads to one path would write into each other.

    Args:
        url: https; plain http only from this machine, or where `allow_http` says so.
        path: where the file ends up.
        checksum: `md5:HEX` or `sha256:HEX` of the whole file.
        patience: how long and how often the server is tried.
        allow_http: plain http from other machines, too (the checksum still guards the content).
        watch: shows progress, one item a MiB.
        note: told, in one line, why another try is made.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        DownloadError: FET-002 an address or a redirect that is not allowed, FET-003 the server
            failed at every try or refused, FET-004 wrong checksum (the file is kept as
            `<path>.wrong-checksum`), FET-005 too little room on the disk.
        WriteError: the disk refused to take the file.
    """
    patience = patience or Patience()
    require_safe(url, allow_http=allow_http)
    opener = opener_for(url, allow_http=allow_http)
    with Partial.of(path, url=url, algorithm=checksum.partition(":")[0]) as part:
        for attempt in range(patience.tries):
            time.sleep(patience.pause_before(attempt))
            try:
                _receive(opener, part, patience=patience, watch=watch)
                return part.settle(checksum)
            except _BrokenOffError as fault:
                last = str(fault)
                if attempt + 1 < patience.tries:
                    note(f"{path.name}: {last}; trying again ({attempt + 2} of {patience.tries})")
        raise DownloadError(
            f"{url}: failed {patience.tries} times, at last with: {last}; "
            f"{part.num_bytes} bytes are kept in {part.file.name}",
            code="FET-003",
            hint="run it again: it carries on where it stopped",
        )


def _receive(
    opener: request.OpenerDirector, part: Partial, *, patience: Patience, watch: Watch
) -> None:
    """Ask once, and store what arrives until the file is whole."""
    if part.is_whole:
        return
    asked = request.Request(
        part.url,
        headers={
            "User-Agent": f"medseg/{__version__}",
            # A range counts bytes as they are sent: nothing may be compressed on the way.
            "Accept-Encoding": "identity",
            **part.range_headers,
        },
    )
    try:
        with opener.open(asked, timeout=patience.timeout_s) as response:
            _begin(part, response)
            _require_room(part)
            for _ in watch(_arrivals(part, response, patience)):
                pass
    except error.HTTPError as fault:
        with fault:
            raise _refusal(part, fault) from fault
    except (OSError, HTTPException) as fault:
        raise _failure(part, fault) from fault
    if part.length is not None and part.num_bytes < part.length:
        raise _BrokenOffError(
            f"the server closed the connection after {part.num_bytes} of {part.length} bytes"
        )


def _begin(part: Partial, response: HTTPResponse) -> None:
    """Line the partial file up with what the server is about to send."""
    coding = response.headers.get("Content-Encoding", "identity")
    if response.status not in (200, 206) or coding != "identity":
        raise DownloadError(
            f"{part.url}: the server answered {response.status} {response.reason}, sent as "
            f"{coding}; expected the file as it is",
            code="FET-003",
        )
    if response.status == 200:
        part.restart(response.headers, length=response.length)
    elif not part.continues(response.headers):
        part.forget()
        raise _BrokenOffError("the server sent another part of the file than it was asked for")


def _require_room(part: Partial) -> None:
    missing = (part.length or 0) - part.num_bytes
    free = shutil.disk_usage(part.file.parent).free
    if missing > free:
        raise DownloadError(
            f"{part.file.parent}: {free / 1e9:.2f} GB free, but {part.url} needs "
            f"{missing / 1e9:.2f} GB",
            code="FET-005",
            hint="choose another folder with output=, or make room",
        )


class _Counted:
    """Items whose number is known beforehand."""

    def __init__(self, items: Iterator[int], count: int) -> None:
        self._items, self._count = items, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return self._items


def _arrivals(part: Partial, response: HTTPResponse, patience: Patience) -> Iterable[int]:
    """Return what stores the file as it is iterated over: one item, its bytes, a MiB."""
    if part.length is None:
        free = shutil.disk_usage(part.file.parent).free
        return _store(part, response, patience, most=max(0, free - _RESERVE_BYTES))
    missing = part.length - part.num_bytes
    return _Counted(_store(part, response, patience, most=missing), -(-missing // MIB))


def _store(
    part: Partial, response: HTTPResponse, patience: Patience, *, most: int
) -> Iterator[int]:
    began_s, in_window, unshown = time.monotonic(), 0, 0
    # `read1` returns what has arrived; `read` would wait for a full block, however slow it comes.
    while block := response.read1(MIB):
        most -= len(block)
        if most < 0:
            raise DownloadError(f"{part.url}: sends more than there is room for", code="FET-005")
        part.append(block)
        unshown += len(block)
        if unshown >= MIB:
            yield MIB
            unshown -= MIB
        in_window += len(block)
        if time.monotonic() - began_s > patience.window_s:
            if in_window < patience.slowest_bytes_s * patience.window_s:
                raise _BrokenOffError(f"stalled: {in_window} bytes in {patience.window_s:g} s")
            began_s, in_window = time.monotonic(), 0
    if unshown:
        yield unshown


def _refusal(part: Partial, fault: error.HTTPError) -> Exception:
    """Turn an answer that is not the file into another try, or into the end."""
    if fault.code in _PASSING:
        return _BrokenOffError(f"the server answered {fault.code} {fault.reason}")
    if fault.code == 416:
        part.forget()
        return _BrokenOffError("the server has another file than the one begun; starting over")
    return DownloadError(
        f"{part.url}: the server answered {fault.code} {fault.reason}", code="FET-003"
    )


def _failure(part: Partial, fault: OSError | HTTPException) -> Exception:
    reason = fault.reason if isinstance(fault, error.URLError) else fault
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{part.url}: the certificate is not valid: {reason.verify_message}",
            code="FET-002",
            hint="set SSL_CERT_FILE if your network has a certificate authority of its own",
        )
    if isinstance(reason, TimeoutError):
        return _BrokenOffError("the server does not answer")
    return _BrokenOffError(
        f"{type(reason).__name__}: {reason}" if str(reason) else "connection lost"
    )
