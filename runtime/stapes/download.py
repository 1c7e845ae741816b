"""An http(s) address -> the bytes behind it, within limits. Loaded when there is an address: its libraries take 30 ms to import."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from stapes.errors import AudioError, DownloadError, LimitExceeded

SCHEMES = ("http", "https")

MAX_BYTES = 512 * 2**20
"""Bytes that an address may give where the operator sets no limit."""

CHUNK = 2**16


def download(address: str, timeout: float, max_bytes: int | None = None) -> bytes:
    """What the address gives: one GET, redirects followed within http and https and never down to http.

    `timeout`: seconds for the whole of it. Raises DownloadError, or LimitExceeded past `max_bytes`.
    """
    limit = MAX_BYTES if max_bytes is None else max_bytes
    deadline = time.monotonic() + timeout
    connections: list[http.client.HTTPConnection] = []
    opener = urllib.request.build_opener(_SameKind(), _Kept(connections))
    watch = threading.Timer(timeout, _end, [connections])  # a socket's own timeout begins anew at each byte of the headers
    watch.daemon = True
    watch.start()
    try:
        request = urllib.request.Request(address, headers={"User-Agent": f"stapes/{version('stapes')}"})
        with opener.open(request, timeout=timeout) as answer:
            return _body(answer, address, limit, deadline)
    except AudioError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{address} answered {error.code} {_brief(error.reason)}; check the address") from error
    except TimeoutError as error:
        raise _late(address, timeout) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address without a host
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError) or time.monotonic() > deadline:
            raise _late(address, timeout) from error
        raise DownloadError(f"cannot fetch {address}: {_brief(reason) or type(error).__name__}") from error
    finally:
        watch.cancel()


def _body(answer: Any, address: str, limit: int, deadline: float) -> bytes:
    promised = answer.headers.get("Content-Length", "")
    if promised.isdecimal() and int(promised) > limit:
        raise LimitExceeded(f"{address} has {promised} bytes, more than the {limit} allowed (max_bytes, --max-bytes)")
    body = bytearray()
    while chunk := answer.read1(CHUNK):  # read1: what is there, so that a server that trickles meets the deadline
        body += chunk
        if len(body) > limit:
            raise LimitExceeded(f"{address} has more than the {limit} bytes allowed (max_bytes, --max-bytes)")
        if time.monotonic() > deadline:
            break
    if time.monotonic() > deadline:
        raise TimeoutError
    if promised.isdecimal() and len(body) < int(promised):
        raise DownloadError(f"{address} broke off after {len(body)} of {promised} bytes; try again")
    return bytes(body)


def _brief(reason: object) -> str:
    """What a library, or a stranger's server, gives as the reason, as a part of one line."""
    return " ".join(str(reason).split())[:200]


def _late(address: str, timeout: float) -> DownloadError:
    return DownloadError(f"{address} took more than {timeout:g} s; try again, or allow more (timeout, --timeout)")


def _end(connections: list[http.client.HTTPConnection]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError, AttributeError):  # closed, or not open yet
            connection.sock.shutdown(socket.SHUT_RDWR)


class _Kept(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens http and https as its bases do, and keeps the connections where they can be ended."""

    def __init__(self, connections: list[http.client.HTTPConnection]) -> None:
        super().__init__()
        self._connections = connections

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._plain, req)

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self._secure, req)

    def _plain(self, host: str, **options: Any) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPConnection(host, **options))
        return self._connections[-1]

    def _secure(self, host: str, **options: Any) -> http.client.HTTPConnection:
        self._connections.append(http.client.HTTPSConnection(host, **options))
        return self._connections[-1]


class _SameKind(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in SCHEMES or (before, after) == ("https", "http"):
            fp.close()
            raise DownloadError(f"{req.full_url} redirects from {before} to {after}, which is not followed; give the file's own address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
