import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medseg.core.errors import DownloadError, WriteError
from medseg.data import download as module
from medseg.data.addresses import require_safe
from medseg.data.download import Patience, download

BODY = bytes(range(256)) * 2000
OTHER = BODY[::-1]
QUICK = Patience(timeout_s=0.3, window_s=0.2, slowest_bytes_s=1e6, tries=3, pause_s=0)
Answer = Callable[[BaseHTTPRequestHandler], None]


def md5(body: bytes) -> str:
    return f"md5:{hashlib.md5(body).hexdigest()}"


def sends(
    body: bytes = BODY,
    *,
    promised: int | None = None,
    sent: int | None = None,
    ranges: bool = True,
    tag: str | None = '"v1"',
    modified: str | None = None,
) -> Answer:
    """A server that sends `sent` bytes of what was asked for, and then closes the connection."""

    def answer(ask: BaseHTTPRequestHandler) -> None:
        begin, status = 0, 200
        validator = tag if tag and tag.startswith('"') else modified
        if ranges and "Range" in ask.headers and ask.headers["If-Range"] == validator:
            begin, status = int(ask.headers["Range"][6:-1]), 206
        if begin >= len(body) > 0:
            ask.send_error(416)
            return
        ask.send_response(status)
        if status == 206:
            ask.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        if tag:
            ask.send_header("ETag", tag)
        if modified:
            ask.send_header("Last-Modified", modified)
        ask.send_header("Content-Length", str(len(body) - begin if promised is None else promised))
        ask.end_headers()
        ask.wfile.write(body[begin:][: len(body) if sent is None else sent])

    return answer


def refuses(status: int, **headers: str) -> Answer:
    def answer(ask: BaseHTTPRequestHandler) -> None:
        ask.send_response(status)
        for name, value in headers.items():
            ask.send_header(name, value)
        ask.send_header("Content-Length", "0")
        ask.end_headers()

    return answer


@contextmanager
def serving(
    *answers: Answer, secure: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Serve one answer a request, the last one for ever; hand out the URL and what was asked."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            answers[min(len(asked), len(answers)) - 1](self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # A handshake that the client breaks off is what a test of certificates looks for.
    server.handle_error = lambda *_: None
    if secure:
        server.socket = secure.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data.tar", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(url: str, path: Path, *, body: bytes = BODY, patience: Patience = QUICK) -> str:
    return download(url, path, checksum=md5(body), patience=patience)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.tar"


def test_a_file_arrives_whole_and_alone(path: Path) -> None:
    with serving(sends()) as (url, asked):
        assert fetch(url, path) == hashlib.sha256(BODY).hexdigest()
    assert path.read_bytes() == BODY
    assert names(path.parent) == {"data.tar"}
    assert asked[0]["Accept-Encoding"] == "identity"


def test_a_connection_that_breaks_off_is_carried_on_where_it_broke(path: Path) -> None:
    with serving(sends(sent=100_000), sends(sent=50_000), sends()) as (url, asked):
        fetch(url, path)
    assert path.read_bytes() == BODY
    assert [ask.get("Range") for ask in asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert asked[1]["If-Range"] == '"v1"'


def test_a_later_call_carries_on_what_an_earlier_one_began(path: Path) -> None:
    once = Patience(timeout_s=1, tries=1)
    with serving(sends(sent=100_000), sends()) as (url, asked):
        with pytest.raises(DownloadError, match=r"100000 bytes are kept in data\.tar\.part"):
            fetch(url, path, patience=once)
        assert names(path.parent) == {"data.tar.part", "data.tar.part.json"}
        fetch(url, path)
    assert path.read_bytes() == BODY
    assert asked[1]["Range"] == "bytes=100000-"


def test_a_date_resumes_where_the_tag_is_weak(path: Path) -> None:
    date = "Sat, 22 Nov 2025 10:00:00 GMT"
    with serving(
        sends(sent=1000, tag='W/"v1"', modified=date), sends(tag='W/"v1"', modified=date)
    ) as (url, asked):
        fetch(url, path)
    assert (asked[1]["Range"], asked[1]["If-Range"]) == ("bytes=1000-", date)
    assert path.read_bytes() == BODY


def test_without_a_tag_or_date_nothing_is_resumed(path: Path) -> None:
    with serving(sends(sent=1000, tag=None), sends(tag=None)) as (url, asked):
        fetch(url, path)
    assert "Range" not in asked[1]
    assert path.read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_over(path: Path) -> None:
    with serving(sends(sent=1000), sends(ranges=False)) as (url, _):
        fetch(url, path)
    assert path.read_bytes() == BODY


def test_a_file_that_changed_between_tries_is_never_spliced(path: Path) -> None:
    with serving(sends(OTHER, sent=1000, tag='"old"'), sends(tag='"new"')) as (url, asked):
        fetch(url, path)
    assert asked[1]["If-Range"] == '"old"'
    assert path.read_bytes() == BODY


def test_a_range_of_another_version_or_place_is_thrown_away(path: Path) -> None:
    def unasked(ask: BaseHTTPRequestHandler, *, begin: int, tag: str) -> None:
        ask.send_response(206)
        ask.send_header("Content-Range", f"bytes {begin}-{len(OTHER) - 1}/{len(OTHER)}")
        ask.send_header("ETag", tag)
        ask.send_header("Content-Length", str(len(OTHER) - begin))
        ask.end_headers()
        ask.wfile.write(OTHER[begin:])

    for answer in (
        lambda ask: unasked(ask, begin=1000, tag='"v2"'),
        lambda ask: unasked(ask, begin=7, tag='"v1"'),
    ):
        with serving(sends(sent=1000), answer, sends()) as (url, _):
            fetch(url, path)
        assert path.read_bytes() == BODY
        path.unlink()


def test_a_partial_file_longer_than_the_servers_file_starts_over(path: Path) -> None:
    with serving(sends(OTHER + BODY, sent=len(BODY) + 9), sends()) as (url, _):
        fetch(url, path)
    assert path.read_bytes() == BODY


def test_bytes_of_another_address_are_not_carried_on(path: Path) -> None:
    once = Patience(timeout_s=1, tries=1)
    with serving(sends(OTHER, sent=1000)) as (url, _), pytest.raises(DownloadError):
        fetch(url, path, patience=once)
    with serving(sends()) as (url, asked):
        fetch(url, path)
    assert "Range" not in asked[0]
    assert path.read_bytes() == BODY


def test_damaged_notes_beside_a_partial_file_start_over(path: Path) -> None:
    for note in ("{", "[]", '{"url": 3}'):
        path.with_name("data.tar.part").write_bytes(b"old")
        path.with_name("data.tar.part.json").write_text(note)
        with serving(sends()) as (url, _):
            fetch(url, path)
        assert path.read_bytes() == BODY
        path.unlink()


@pytest.mark.parametrize("promised", [len(BODY) + 5, 10**12])
def test_a_server_that_promises_more_than_it_has_is_given_up(path: Path, promised: int) -> None:
    with serving(sends(promised=promised)) as (url, asked), pytest.raises(DownloadError) as refusal:
        fetch(url, path)
    assert refusal.value.code in ("FET-003", "FET-005")
    assert len(asked) <= QUICK.tries
    assert not path.exists()


def test_a_server_that_promises_less_than_it_has_is_found_out_by_the_checksum(path: Path) -> None:
    with serving(sends(promised=1000)) as (url, _), pytest.raises(DownloadError) as refusal:
        fetch(url, path)
    assert refusal.value.code == "FET-004"
    assert not path.exists()


def test_wrong_bytes_are_kept_under_a_name_that_says_so(path: Path) -> None:
    with serving(sends(OTHER)) as (url, asked), pytest.raises(DownloadError) as refusal:
        fetch(url, path)
    assert refusal.value.code == "FET-004"
    assert md5(BODY) in str(refusal.value)
    assert md5(OTHER) in str(refusal.value)
    assert names(path.parent) == {"data.tar.wrong-checksum"}
    assert len(asked) == 1


@pytest.mark.parametrize("drip_s", [None, 0.02])
def test_a_server_that_stalls_or_drips_is_left_within_the_time_limit(
    path: Path, drip_s: float | None
) -> None:
    ended = threading.Event()

    def stalls(ask: BaseHTTPRequestHandler) -> None:
        sends(sent=1000)(ask)
        ask.wfile.flush()
        while not ended.wait(drip_s):
            try:
                ask.wfile.write(b"\0")
            except OSError:
                return

    with serving(stalls) as (url, asked):
        with pytest.raises(DownloadError, match=r"stalled|does not answer") as refusal:
            fetch(url, path, patience=Patience(timeout_s=0.2, window_s=0.1, tries=2, pause_s=0,
                                               slowest_bytes_s=1e6))  # fmt: skip
        ended.set()
    assert refusal.value.code == "FET-003"
    assert len(asked) == 2


def test_passing_troubles_are_tried_again_and_lasting_ones_are_not(path: Path) -> None:
    with serving(refuses(503), refuses(429), sends()) as (url, asked):
        fetch(url, path)
        assert len(asked) == 3
    path.unlink()
    for status in (403, 404, 410):
        with serving(refuses(status)) as (url, asked):
            with pytest.raises(DownloadError, match=f"answered {status}"):
                fetch(url, path)
            assert len(asked) == 1
    assert names(path.parent) == set()


def test_tries_are_bounded_and_the_pauses_between_them_double() -> None:
    patience = Patience(pause_s=2)
    assert [patience.pause_before(n) for n in range(9)] == [0, 2, 4, 8, 16, 32, 60, 60, 60]


def test_nobody_listening_ends_after_the_tries_with_one_line(path: Path) -> None:
    said: list[str] = []
    with serving(sends()) as (url, _):
        pass
    with pytest.raises(DownloadError, match="failed 3 times") as refusal:
        download(url, path, checksum=md5(BODY), patience=QUICK, note=said.append)
    assert "\n" not in str(refusal.value)
    assert len(said) == 2
    assert names(path.parent) == set()


@pytest.mark.parametrize(
    "target",
    ["file:///etc/hostname", "ftp://127.0.0.1/x", "https://127.0.0.1:1/x", "http://example.org/x"],
)
def test_a_redirect_to_another_scheme_or_an_unsafe_host_is_refused(path: Path, target: str) -> None:
    moved = refuses(302, Location=target)
    with serving(moved) as (url, asked), pytest.raises(DownloadError) as refusal:
        fetch(url, path)
    assert refusal.value.code in ("FET-002", "FET-003")
    assert len(asked) == 1
    assert names(path.parent) == set()


def test_a_redirect_within_the_scheme_is_followed_and_a_circle_is_not(path: Path) -> None:
    with serving(refuses(302, Location="/elsewhere"), sends()) as (url, _):
        fetch(url, path)
    assert path.read_bytes() == BODY
    with serving(refuses(302, Location="/data.tar")) as (url, asked):
        with pytest.raises(DownloadError):
            fetch(url, path.with_name("other"))
        assert len(asked) < 10


@pytest.mark.parametrize(
    ("url", "allow_http", "safe"),
    [
        ("https://example.org/a.tar", False, True),
        ("http://example.org/a.tar", False, False),
        ("http://example.org/a.tar", True, True),
        ("http://localhost:80/a.tar", False, True),
        ("http://[::1]/a.tar", False, True),
        ("http://localhost.example.org/a.tar", False, False),
        ("http://127.0.0.1@example.org/a.tar", False, False),
        ("file:///etc/passwd", True, False),
        ("ftp://example.org/a.tar", True, False),
        ("data:,hello", True, False),
        ("https:///a.tar", False, False),
        ("http://[::1/a.tar", True, False),
        ("a.tar", True, False),
    ],
)
def test_only_https_or_allowed_http_is_opened(url: str, allow_http: bool, safe: bool) -> None:
    if safe:
        require_safe(url, allow_http=allow_http)
    else:
        with pytest.raises(DownloadError, match="FET-002"):
            require_safe(url, allow_http=allow_http)


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    tmp_path: Path, path: Path
) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(1))
        .not_valid_after(today + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(tmp_path / "key.pem")
    with serving(sends(), secure=secure) as (url, asked):
        with pytest.raises(DownloadError, match=r"FET-002 .* the certificate is not valid"):
            fetch(url.replace("http://127.0.0.1", "https://localhost"), path)
        assert asked == []


def test_a_compressed_answer_is_refused(path: Path) -> None:
    packed = refuses(200, **{"Content-Encoding": "gzip"})
    with serving(packed) as (url, _), pytest.raises(DownloadError, match="sent as gzip"):
        fetch(url, path)


def test_too_little_room_is_told_before_anything_is_stored(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": len(BODY) - 1})
    )
    with serving(sends()) as (url, asked), pytest.raises(DownloadError, match="FET-005"):
        fetch(url, path)
    assert len(asked) == 1
    assert not path.exists()


def test_a_file_of_unknown_length_arrives_too(path: Path) -> None:
    def until_closed(ask: BaseHTTPRequestHandler) -> None:
        ask.send_response(200)
        ask.end_headers()
        ask.wfile.write(BODY)

    with serving(until_closed) as (url, _):
        fetch(url, path)
    assert path.read_bytes() == BODY


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with serving(sends()) as (url, _), pytest.raises(WriteError, match="could not be written"):
        fetch(url, tmp_path / "taken" / "data.tar")


def test_progress_counts_one_item_a_mebibyte(path: Path) -> None:
    body = bytes(5 * 2**19)
    seen: list[tuple[int, list[int]]] = []

    def watch(steps):
        total = len(steps)
        moved = list(steps)
        seen.append((total, moved))
        return moved

    with serving(sends(body)) as (url, _):
        download(url, path, checksum=md5(body), patience=QUICK, watch=watch)
    assert [total for total, _ in seen] == [3]
    assert len(seen[0][1]) == 3
