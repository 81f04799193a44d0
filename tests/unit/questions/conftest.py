"""Six pairs of sentences for the small model, of different lengths and with words in common."""

from collections.abc import Iterator

import pytest

from transformer.inference.model_directory import LoadedModel
from transformer.questions import measured
from transformer.questions.subject import Subject

SOURCES = [
    "ant bee cat dog",
    "eel fox gnu",
    "hen. hen. ant bee. dog eel",
    "cat dog",
    "fox eel hen ant",
    "bee",
]
TARGETS = ["gnu hen", "ant bee. cat", "dog eel eel fox", "ant. gnu", "bee cat dog dog", "hen hen"]


def make_subject(loaded: LoadedModel) -> Subject:
    sides = loaded.tokenizer.encode_source(SOURCES), loaded.tokenizer.encode_target(TARGETS)
    return Subject.of(loaded, list(zip(*sides, strict=True)))


@pytest.fixture(autouse=True, scope="session")
def times_are_taken_once() -> Iterator[None]:
    """No test asks how long anything takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "_LONG_ENOUGH", 0.0)
        yield


@pytest.fixture(scope="session")
def subject(loaded) -> Subject:
    return make_subject(loaded)
