"""A small local server that speaks the part of the hub's HTTP API which a download uses: a repository's files, and resolve.

With commits, hashes and errors.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

BRANCHES = ("main", "v1")


@dataclass
class Hub:
    """One repository at one commit, and what has been asked for."""

    folder: Path
    repo: str = "owner/model"
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    token: str | None = None
    """Where set, requests without it get 401."""
    gated: bool = False
    """Whether the files are kept back; their names are told."""
    down: bool = False
    """Whether every request gets 503."""
    listed: str | None = None
    """A commit that the list of files still names for a branch which has moved on to `commit`."""
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

        def _list(self, revision: str) -> None:
            if revision not in (*BRANCHES, hub.commit):
                return self._refuse(404, "RevisionNotFound", "Revision not found")
            sha = hub.listed if hub.listed and revision in BRANCHES else hub.commit
            names = sorted(path.relative_to(hub.folder).as_posix() for path in hub.folder.rglob("*") if path.is_file())
            about = {"id": hub.repo, "sha": sha, "private": False, "downloads": 0, "likes": 0, "tags": []}
            content = json.dumps(about | {"siblings": [{"rfilename": name} for name in names]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return None

        def _answer(self, body: bool) -> None:
            path = unquote(self.path.split("?")[0])
            hub.requests.append(f"{self.command} {path}")
            if hub.down:
                return self._refuse(503, "Unavailable", "Down for maintenance")
            given = self.headers.get("Authorization")
            if hub.token and given is None:
                return self._refuse(401, "RepoNotFound", "Repository not found")
            if hub.token and given != f"Bearer {hub.token}":
                return self._refuse(401, "", "Invalid credentials in Authorization header")
            api, files = f"/api/models/{hub.repo}", f"/{hub.repo}/resolve/"
            if path == api or path.startswith(f"{api}/revision/"):
                return self._list(path.removeprefix(api).removeprefix("/revision/") or "main")
            if not path.startswith(files):
                return self._refuse(404, "RepoNotFound", "Repository not found")
            if hub.gated:
                return self._refuse(403, "GatedRepo", "Access is restricted")
            revision, _, name = path.removeprefix(files).partition("/")
            if revision not in (*BRANCHES, hub.commit):
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
