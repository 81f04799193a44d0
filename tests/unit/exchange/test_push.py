"""`transformer push` against a server of our own: what arrives there, and who never sees the token."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub, an extra, is not installed")

TOKEN = "hf_notareal" + "token0123456789"


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does, or refuses with what it was sent."""

    refuse = False
    seen: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        self.seen.append((self.path, str(self.headers.get("Authorization")), body))
        here = f"http://127.0.0.1:{self.server.server_address[1]}"
        answer: dict[str, Any] = {"errors": [], "warnings": []}
        if type(self).refuse:
            return self._answer(403, {"error": f"not allowed for {self.headers.get('Authorization')}"})
        if self.path == "/api/repos/create":
            answer = {"url": f"{here}/me/model", "name": "me/model"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            facts = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            answer = {"files": [{"path": file["path"], **facts} for file in files]}
        elif "/commit/" in self.path:
            answer = {"commitUrl": f"{here}/me/model/commit/abc", "commitOid": "abc", "success": True}
        return self._answer(200, answer)

    def do_GET(self) -> None:
        self._answer(404, {"error": "no such page"})

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.refuse, Hub.seen = False, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def push(hub: ThreadingHTTPServer, home: Path, folder: Path) -> subprocess.CompletedProcess:
    """Runs the verb in a process of its own, which knows no other server."""
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    settings = dict(HF_ENDPOINT=address, HF_TOKEN=TOKEN, HF_HOME=str(home), HF_HUB_DISABLE_TELEMETRY="1")
    command = [sys.executable, "-m", "transformer", "push", "--from", str(folder), "--to", "me/model"]
    return subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=240
    )


def test_what_arrives_and_who_never_sees_the_token(tmp_path: Path, hub: ThreadingHTTPServer) -> None:
    folder = tmp_path / "export"
    (folder / "tokenizer").mkdir(parents=True)
    contents = {"README.md": b"---\nlicense: mit\n---\n# m\n", "model.safetensors": bytes(range(256))}
    contents["tokenizer/tokenizer.json"] = b"{}\n"
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    done = push(hub, tmp_path / "home", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/me/model/commit/abc")
    (commit,) = [body for path, _, body in Hub.seen if "/commit/" in path]
    sent = [entry["value"] for entry in map(json.loads, commit.splitlines()) if entry["key"] == "file"]
    assert {file["path"]: base64.b64decode(file["content"]) for file in sent} == contents
    assert {seen for path, seen, _ in Hub.seen if "validate" not in path} == {f"Bearer {TOKEN}"}

    Hub.refuse = True
    refused = push(hub, tmp_path / "home", folder)
    assert refused.returncode == 4
    assert refused.stderr.startswith("transformer: error: me/model: could not be pushed: ")
    assert refused.stderr.count("\n") == 1
    for output in (done.stdout, done.stderr, refused.stdout, refused.stderr):
        assert TOKEN not in output


def test_only_exports_are_pushed(tmp_path: Path, hub: ThreadingHTTPServer) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refused = push(hub, tmp_path / "home", tmp_path / "run")
    assert refused.returncode == 4 and "is no export; write one first" in refused.stderr
    assert not Hub.seen
