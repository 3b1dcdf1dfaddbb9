"""The hub's own code path, from id to aligned rows, against a hub of our own on localhost (in a process of its own: the
libraries read the hub's address when they are imported)."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "train.csv": b"question,text\nq1?,<answer> NA <context> the NA gene\n",
    "validation.csv": b"question,text\nq2?,<answer> alpha <context> the alpha gene\n",
    "README.md": b"---\nlicense: cc\n---\n",
}
CHILD = """
import sys
from trainables.data.loading import load_rows
from trainables.data.revisions import resolve_revision

print(*[load_rows("owner/rows", role)[0]["answers"][:] for role in ("train", "test")], flush=True)
sys.stdin.readline()  # the hub is gone
resolve_revision.cache_clear()
try:
    load_rows("owner/other", "train")
except ValueError as error:
    print(error, flush=True)
COMMIT = sys.argv[1]
import huggingface_hub
from pathlib import Path
refs = Path(huggingface_hub.constants.HF_HUB_CACHE) / "datasets--owner--rows" / "refs"
refs.mkdir(exist_ok=True)
(refs / "main").write_text(COMMIT)
print(load_rows("owner/rows", "test")[0]["answers"][:], flush=True)
"""


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as `datasets` asks for one dataset of plain files."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        api, path = "/api/datasets/owner/rows", self.path.partition("?")[0]
        name = path.removeprefix(f"/datasets/owner/rows/resolve/{COMMIT}/")
        if path in (api, f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in FILES]
            self._reply(json.dumps({"id": "owner/rows", "sha": COMMIT, "siblings": siblings, "tags": []}).encode())
        elif path == f"{api}/tree/{COMMIT}" or path == f"{api}/paths-info/{COMMIT}":
            entries = [{"type": "file", "path": name, "size": len(FILES[name]), "oid": _etag(name)} for name in FILES]
            self._reply(json.dumps(entries).encode())
        elif name in FILES:
            self._reply(FILES[name], ETag=f'"{_etag(name)}"', **{"X-Repo-Commit": COMMIT})
        else:
            self._reply(b"{}", 404, **{"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_POST = do_GET

    def _reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _etag(name: str) -> str:
    return hashlib.sha1(FILES[name]).hexdigest()


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    """The hub, listening until the test stops it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_hub_rows_are_loaded_and_still_are_when_the_hub_is_gone(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, COMMIT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin and child.stdout
        first = child.stdout.readline()
        hub.shutdown()
        hub.server_close()
        print(file=child.stdin, flush=True)
        rest = child.stdout.read().splitlines()
    assert child.returncode == 0
    assert first.strip() == "[{'text': ['NA'], 'answer_start': [4]}] [{'text': ['alpha'], 'answer_start': [4]}]"
    assert "cannot reach the Hugging Face hub for dataset 'owner/other'" in rest[0]
    assert rest[1] == "[{'text': ['alpha'], 'answer_start': [4]}]"
    downloaded = tmp_path / "hub" / "datasets--owner--rows" / "snapshots" / COMMIT
    assert sorted(path.name for path in downloaded.iterdir()) == sorted(FILES)
    assert not (tmp_path / "datasets").exists()
