"""Pages of HTML that load nothing: a template with its data inside."""

import json
from importlib import resources
from typing import Any


def filled(room: str, template: str, data: Any) -> str:
    """Returns the page.

    Args:
      room: the package that the template lies in.
      template: its file's name; what stands for the data is a block that holds `DATA` alone.
      data: what JSON can hold.
    """
    # "</script>" in a text must not end the block that it stands in.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    before, after = resources.files(room).joinpath(template).read_text("utf-8").split(">DATA<")
    return f"{before}>{text}<{after}"
