"""A small local server that speaks the part of the hub's HTTP API which a download uses: resolve, with commits, hashes and errors."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Hub:
    """One repository at one commit, and what has been asked for."""

    folder: Path
    repo: str = "owner/model"
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    token: str | None = None
    """Where set, requests without it get 401."""
    gated: bool = False
    broken_after: int | None = None
    """Bytes of a file after which the connection drops."""
    requests: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Run the hub on a free port of this machine; its address stands in `hub.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, body: bool) -> None:
            path = unquote(self.path.split("?")[0])
            hub.requests.append(f"{self.command} {path}")
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if hub.gated:
                return self._refuse(403, "GatedRepo", "Access is restricted")
            if not path.startswith(f"/{hub.repo}/resolve/"):
                return self._refuse(404, "RepoNotFound", "Repository not found")
            revision, _, name = path.removeprefix(f"/{hub.repo}/resolve/").partition("/")
            if revision not in ("main", "v1", hub.commit):
                return self._refuse(404, "RevisionNotFound", "Revision not found")
            file = hub.folder / name
            if not file.is_file():
                return self._refuse(404, "EntryNotFound", f"Entry {name} not found")
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if body:
                self.wfile.write(content[: hub.broken_after])
                if hub.broken_after is not None:
                    self.wfile.flush()
                    self.close_connection = True
            return None

    return Handler
