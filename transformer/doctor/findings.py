"""What the doctor found, one line each."""

from typing import Literal, NamedTuple

Status = Literal["ok", "warning", "problem", "skipped"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
      status: how good it is; `skipped` if it was not looked at.
      name: what was looked at.
      text: what was seen.
      cure: what to do; empty where all is well.
    """

    status: Status
    name: str
    text: str
    cure: str = ""

    def line(self) -> str:
        """Returns the aligned line: status, name, what was seen, cure."""
        return f"{self.status:<8} {self.name:<15} {'; '.join(filter(None, (self.text, self.cure)))}"


def bytes_text(count: float) -> str:
    """Returns "64.0 MB" or "1.5 GB"; both are powers of ten, as disks are sold."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
