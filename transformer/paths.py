"""Parameters by path, such as "encoder/layer_0/feed_forward/wi/kernel", and the choice of some of them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax

from transformer.errors import ConfigError, did_you_mean


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of nested dicts, tuples and fields by their paths."""
    return {"/".join(names(path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def names(path: Sequence[Any]) -> tuple[str, ...]:
    """Returns the keys, fields and places of a path of JAX as text."""
    return tuple(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts of leaves by path; undoes `by_path` of nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = leaf
    return tree


def chosen(pattern: str, paths: Collection[str], key: str) -> set[str]:
    """Returns the paths in which a regular expression is found; none if it is empty.

    Args:
      pattern: the expression.
      paths: of all parameters.
      key: of the configuration, for the message.

    Raises:
      ConfigError: if it is found in no path.
    """
    if not pattern:
        return set()
    found = {path for path in paths if re.search(pattern, path)}
    if not found:
        parts = {part for path in paths for part in path.split("/")}
        pairs = {"/".join(path.split("/")[-2:]) for path in paths}
        guess = did_you_mean(re.sub(r"[^\w/]", "", pattern), parts | pairs)
        raise ConfigError(f"config.{key}: {pattern!r} is found in no parameter's path{guess}")
    return found
