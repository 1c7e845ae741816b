"""An address gives its bytes within limits of size and time, follows no way out of http, and fails in one sentence."""

import gc
import gzip
import http.server
import io
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from email.message import Message

import numpy as np
import pytest
import soundfile

from stapes import audio, download
from stapes.audio import Reading
from stapes.errors import AudioError, DownloadError, LimitExceeded, MalformedAudio

RATE = 16000


def wav(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(samples, 0.25, np.float32), RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


CLIP = wav(2000)


class Handler(http.server.BaseHTTPRequestHandler):
    """What each path does to its caller."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.close_connection = True
        name, _, rest = self.path[1:].partition("/")
        getattr(self, name.partition("?")[0], self.nothing)(rest)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def nothing(self, rest: str) -> None:
        self.answer(404)

    def clip(self, rest: str) -> None:
        self.answer(200, CLIP)

    def status(self, rest: str) -> None:
        self.answer(int(rest), b"a page about it")

    def to(self, rest: str) -> None:
        """/to/302/http://… redirects there, with that status."""
        status, _, target = rest.partition("/")
        self.answer(int(status), Location=target)

    def chunked(self, rest: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (CLIP[:1000], CLIP[1000:]):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def promise(self, rest: str) -> None:
        """/promise/BYTES sends no more than a clip of what its header promises."""
        self.answer(200, CLIP, Content_Length=rest)

    def cut(self, rest: str) -> None:
        """A chunked answer without its end."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ffff\r\n" + CLIP)

    def endless(self, rest: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(2**16))
            self.server.sent += 2**16  # type: ignore[attr-defined]

    def trickle(self, rest: str) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"\0")
            self.wfile.flush()
            time.sleep(0.05)

    def slow(self, rest: str) -> None:
        """/slow/head never answers; /slow/body never goes on."""
        if rest == "body":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        self.server.stop.wait(20)  # type: ignore[attr-defined]

    def slow_headers(self, rest: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(2000):
            self.wfile.write(f"X-{number}: x\r\n".encode())
            self.wfile.flush()
            time.sleep(0.05)

    def raw(self, rest: str) -> None:
        self.wfile.write(RAW[rest])

    def deflated(self, rest: str) -> None:
        self.answer(200, gzip.compress(CLIP), Content_Encoding="gzip")

    def agent(self, rest: str) -> None:
        self.answer(200, json.dumps(dict(self.headers)).encode())

    def log_message(self, *_: object) -> None:
        pass


RAW = {
    "nothing": b"",
    "garbage": b"\0\1\2\3" * 100,
    "status": b"HTTP/1.1 ?? what\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\n" + b"x" * 100_000 + b"\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "negative": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "location": b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    "port": b"HTTP/1.1 302 Found\r\nLocation: http://localhost:99999999/\r\n\r\n",
    "nowhere": b"HTTP/1.1 302 Found\r\n\r\n",
    "break": b"HTTP/1.1 302 Found\r\nLocation: /a\xff\xfe b\r\n\r\n",
}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.sent = 0
        self.stop = threading.Event()

    def handle_error(self, *_: object) -> None:
        """A caller that goes away is what is tested here."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def refused(address: str, timeout: float = 10.0, max_bytes: int | None = None) -> DownloadError:
    """The error that the address gives, which is one sentence about it."""
    with pytest.raises(DownloadError) as caught:
        download.download(address, timeout, max_bytes)
    assert isinstance(caught.value, ConnectionError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return caught.value


def test_an_address_gives_its_bytes(server: Server):
    for path in ("clip", "clip?a=b", "chunked"):
        assert download.download(f"{server.address}/{path}", 10) == CLIP
    clip = audio.read(f"{server.address}/clip", RATE)
    assert clip.samples.tolist() == [0.25] * 2000


def test_the_server_learns_who_asks_and_nothing_else(server: Server):
    headers = json.loads(download.download(f"{server.address}/agent", 10))
    assert headers["User-Agent"].startswith("stapes/")
    assert headers.keys() <= {"User-Agent", "Host", "Connection", "Accept-Encoding"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 418, 429, 500, 503, 599])
def test_another_status_than_success_is_an_error_that_says_it(status: int, server: Server):
    error = refused(f"{server.address}/status/{status}")
    assert f"/status/{status} answered {status}" in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_http_are_followed(status: int, server: Server):
    assert download.download(f"{server.address}/to/{status}/{server.address}/clip", 10) == CLIP
    assert download.download(f"{server.address}/to/{status}//clip", 10) == CLIP


@pytest.mark.parametrize("target", ["file:///etc/passwd", "FILE:///etc/passwd", "ftp://127.0.0.1/clip", "data:,x"])
def test_no_redirect_leads_out_of_http(target: str, server: Server):
    error = refused(f"{server.address}/to/302/{target}")
    assert re.search(r"redirects from http to ftp, which|Redirection to url '.*' is not allowed", str(error))
    assert len(server.asked) == 1


def test_redirects_in_a_circle_end(server: Server):
    refused(f"{server.address}/to/302//to/302//to/302//to/302//to/302//to/302//to/302//to/302//to/302//to/302//to/302//to/302//clip")
    assert len(server.asked) <= 11
    server.asked.clear()
    circle = f"{server.address}/to/302/?"
    refused(circle + circle)
    assert len(server.asked) <= 11


@pytest.mark.parametrize(
    ("before", "after", "followed"),
    [
        ("http://a/x", "http://b/y", True),
        ("http://a/x", "https://a/x", True),
        ("https://a/x", "https://b/y", True),
        ("https://a/x", "http://a/x", False),
        ("HTTPS://a/x", "http://a/x", False),
        ("https://a/x", "HTTP://a/x", False),
        ("https://a/x", "file:///etc/passwd", False),
        ("http://a/x", "ftp://a/x", False),
    ],
)
def test_a_redirect_never_falls_back_from_https(before: str, after: str, followed: bool):
    request = urllib.request.Request(before)
    handler = download._SameKind()
    if followed:
        assert handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), after).full_url == after
        return
    with pytest.raises(DownloadError, match=r"redirects from https? to .*give the file's own address"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", Message(), after)


def test_a_promise_of_more_than_the_limit_is_refused_before_the_body(server: Server):
    for size in (5001, 10**15, 10**30):
        with pytest.raises(LimitExceeded, match=rf"has {size} bytes, more than the 5000 allowed \(max_bytes, --max-bytes\)"):
            download.download(f"{server.address}/promise/{size}", 10, 5000)
    with pytest.raises(LimitExceeded, match=str(download.MAX_BYTES)):
        download.download(f"{server.address}/promise/{download.MAX_BYTES + 1}", 10)


def test_an_endless_body_is_stopped_at_the_limit(server: Server):
    with pytest.raises(LimitExceeded, match="more than the 1000000 bytes allowed") as caught:
        download.download(f"{server.address}/endless", 30, 1_000_000)
    assert isinstance(caught.value, ValueError)
    time.sleep(0.2)  # until the server meets the closed connection
    assert server.sent < 20_000_000, "what the limit allows, and what the system's buffers hold"


def test_a_body_of_exactly_the_limit_is_within_it(server: Server):
    assert download.download(f"{server.address}/clip", 10, len(CLIP)) == CLIP
    with pytest.raises(LimitExceeded):
        download.download(f"{server.address}/clip", 10, len(CLIP) - 1)
    with pytest.raises(LimitExceeded):
        download.download(f"{server.address}/chunked", 10, len(CLIP) - 1)


@pytest.mark.parametrize("path", ["slow/head", "slow/body", "trickle", "slow_headers"])
def test_a_slow_server_is_left_at_the_timeout(path: str, server: Server):
    begin = time.monotonic()
    error = refused(f"{server.address}/{path}", timeout=0.5)
    assert time.monotonic() - begin < 5
    assert "took more than 0.5 s; try again, or allow more (timeout, --timeout)" in str(error)


def test_a_connection_that_breaks_off_is_an_error(server: Server):
    error = refused(f"{server.address}/promise/{len(CLIP) + 1}")
    assert f"broke off after {len(CLIP)} of {len(CLIP) + 1} bytes" in str(error)
    refused(f"{server.address}/cut")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib closes no answer whose Location is malformed
@pytest.mark.parametrize("what", RAW)
def test_an_answer_that_is_no_http_is_an_error(what: str, server: Server):
    refused(f"{server.address}/raw/{what}")
    gc.collect()


def test_a_connection_that_is_refused_is_an_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        error = refused(f"http://127.0.0.1:{taken.getsockname()[1]}/clip.wav")
    assert "cannot fetch http://127.0.0.1" in str(error)


MALFORMED = [
    "http://",
    "https://",
    "http:///clip.wav",
    "http://:80/",
    "http://[",
    "http://[::1/",
    "http://localhost:port/",
    "http://localhost:-1/",
    "http://localhost:99999999999/",
    "http://a b/",
    "http://localhost/a b",
    "http://localhost/\r\nX: y",
    "http://localhost/\0",
    "http://localhost/\N{SNOWMAN}",
    "http://\N{SNOWMAN}.invalid/",
    "http://" + "x" * 70 + ".invalid/",
    "http://..../",
    "http://user:pass@/",
    "http://\ud800/",
]


@pytest.mark.parametrize("address", MALFORMED, ids=repr)
def test_a_malformed_address_is_a_download_error(address: str):
    with pytest.raises(DownloadError) as caught:
        audio.read(address, RATE)
    assert "\n" not in str(caught.value).replace(address, "")


def test_what_an_address_gives_has_the_limits_of_any_clip(server: Server):
    with pytest.raises(LimitExceeded, match="max_duration"):
        audio.read(f"{server.address}/clip", RATE, Reading(max_duration=0.1))
    with pytest.raises(LimitExceeded, match="max_bytes"):
        audio.read(f"{server.address}/clip", RATE, Reading(max_bytes=100))
    with pytest.raises(DownloadError, match="timeout"):
        audio.read(f"{server.address}/slow/head", RATE, Reading(timeout=0.3))


def test_a_page_instead_of_a_clip_is_malformed(server: Server):
    with pytest.raises(MalformedAudio, match=r"127\.0\.0\.1"):
        audio.read(f"{server.address}/agent", RATE)
    with pytest.raises(AudioError):
        audio.read(f"{server.address}/deflated", RATE)


def test_the_command_line_says_it_in_one_line_and_goes_on(server: Server, stapes_command):
    pytest.importorskip("onnxruntime")
    addresses = [f"{server.address}/{path}" for path in ("status/404", "to/302/file:///etc/passwd", "endless", "trickle", "raw/garbage")]
    done = stapes_command("classify", *addresses, "examples/yes.flac", "-q", "--timeout", "1", "--max-bytes", "2M", "--top-k", "1")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == len(addresses)
    assert all(address in line for address, line in zip(addresses, lines, strict=True))
    assert "yes" in done.stdout
