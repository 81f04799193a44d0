"""A page in headless Chromium, where that is installed."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(_CHROMIUM is None, reason="needs Chromium")


def answers(page: str, script: str, folder: Path) -> Any:
    """Returns what a script, run when the page is shown, has left in its variable `answers`."""
    tell = """const pre = document.createElement("pre");
      pre.id = "answers"; pre.textContent = JSON.stringify(answers); document.body.append(pre);"""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script>{script}{tell}</script></body>"))
    command = [
        str(_CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
    ]
    command += ["--disable-component-update", "--disable-sync", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="answers">(.*?)</pre>', done.stdout)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))
