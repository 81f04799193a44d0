"""The Transformer of "Attention Is All You Need" in JAX and Flax."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformer.inference.classifier import Answer, Classifier
    from transformer.inference.scorer import Scorer
    from transformer.inference.translator import Translation, Translator

__version__ = metadata.version("transformer")
__all__ = ["Answer", "Classifier", "Scorer", "Translation", "Translator", "__version__"]


def __getattr__(name: str) -> Any:
    # Loading JAX takes a second; a mistyped option should not wait for it.
    if name in ("Translator", "Translation"):
        from transformer.inference import translator

        return getattr(translator, name)
    if name in ("Classifier", "Answer"):
        from transformer.inference import classifier

        return getattr(classifier, name)
    if name == "Scorer":
        from transformer.inference.scorer import Scorer

        return Scorer
    raise AttributeError(f"module 'transformer' has no attribute {name!r}")
