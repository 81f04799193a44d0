"""One field of our configuration, and what it is called in theirs: read and written by the same line."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from transformer.exchange.foreign import NOTHING, Foreign


class Setting(NamedTuple):
    """A field of `ModelConfig`, and the keys of their config.json that say the same.

    Attributes:
      field: ours.
      keys: theirs; all have the same value.
      kind: int, float or bool; or {their word: ours}.
      default: what it is where they do not say it.
      most: the largest number that is taken.
    """

    field: str
    keys: tuple[str, ...]
    kind: type | Mapping[str, str] = int
    default: Any = NOTHING
    most: int = 1 << 24

    def read(self, f: Foreign) -> Any:
        """Returns the value of the field; what cannot be is a reason."""
        if isinstance(self.kind, Mapping):
            return f.choice(self.keys[0], self.kind, self.default)
        if self.kind is bool:
            return f.fact(self.keys[0], self.default)
        return f.number(*self.keys, kind=self.kind, default=self.default, most=self.most)

    def write(self, value: Any) -> dict[str, Any]:
        """Returns their settings for a value of ours; none where they have no word for it."""
        if isinstance(self.kind, Mapping):
            words = [word for word, ours in self.kind.items() if ours == value]
            return dict.fromkeys(self.keys, words[0]) if words else {}
        return dict.fromkeys(self.keys, value)
