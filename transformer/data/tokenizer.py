"""SentencePiece tokenizer of both sides, trained here or imported."""

import copy
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece as spm

from transformer.config import TokenizerConfig
from transformer.data.files import replacing
from transformer.data.pieces import Pieces
from transformer.errors import CheckpointError, DataError
from transformer.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID, SpecialIds

_SPACE = "\u2581"  # what SentencePiece writes for a space, before each word too
_MANIFEST = "tokenizer.json"
_MODELS = ("joint.model", "source.model", "target.model")
_LABELS = "labels.json"
_PIECES = ("joint.pieces.json", "source.pieces.json", "target.pieces.json")


class Tokenizer:
    """Text to piece ids and back, for the source and the target side.

    What stands around a sentence is in `special`: tokenizers trained here end sentences with `EOS_ID`,
    and `BOS_ID` only begins the decoder's input. With a joint model both sides are the same.

    Attributes:
      special: what ids mean.
      labels: names of what a classifier tells apart, in place of target pieces; their numbers are ids.
    """

    def __init__(
        self,
        source: bytes,
        target: bytes | None = None,
        spellings: tuple[Sequence[str], Sequence[str]] | None = None,
        special: SpecialIds | None = None,
        labels: Sequence[str] = (),
    ):
        """Takes serialised SentencePiece models, and of imported tokenizers the ids.

        Args:
          source: model of the source, or of both sides.
          target: model of the target; None: the source's.
          spellings: the piece of each source id and of each target id; None: ids are the models' own.
          special: what ids mean; None: as in tokenizers trained here.
          labels: names, if targets are labels.

        Raises:
          DataError: if a model cannot be read.
        """
        self.special, self.labels = special or SpecialIds(), tuple(labels)
        self._models = {"joint": source} if target is None else {"source": source, "target": target}
        self._spellings: dict[str, list[str]] = {}
        if spellings is not None:
            both = dict(zip(("source", "target"), map(list, spellings), strict=True))
            self._spellings = both if both["source"] != both["target"] else {"joint": both["source"]}
        names = ("source", "target") if len(self._models | self._spellings) > 1 else ("joint",)
        sides = [
            Pieces(_side(self._models, name), name, self.special, _side(self._spellings, name))
            for name in names
        ]
        self._source, self._target = sides[0], sides[-1]

    @property
    def models(self) -> tuple[bytes, bytes]:
        """Serialised models of the source and of the target; twice the same with a joint one."""
        return _side(self._models, "source"), _side(self._models, "target")

    @property
    def source_vocab(self) -> int:
        """Number of source pieces, special ones included."""
        return len(self._source)

    @property
    def target_vocab(self) -> int:
        """Number of target pieces, special ones included; or of labels."""
        return len(self.labels or self._target)

    @property
    def vocabularies(self) -> dict[str, int]:
        """Number of ids of each side by its name: "source" and "target", or "labels"."""
        return {"source": self.source_vocab, "labels" if self.labels else "target": self.target_vocab}

    @property
    def digest(self) -> str:
        """SHA-256 of the models, of the ids if they are not the models' own, and of labels; hexadecimal."""
        labels = json.dumps(self.labels).encode() if self.labels else b""
        return hashlib.sha256(self._content() + labels).hexdigest()

    @property
    def pieces_digest(self) -> str:
        """The same without the labels."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        special = self.special[:-1] if self.special.forced else self.special  # as before there was a choice
        ids = json.dumps([self._spellings, special]).encode() if self._spellings else b""
        return b"".join(self._models.values()) + ids

    def with_labels(self, labels: Sequence[str]) -> "Tokenizer":
        """Returns the same tokenizer with these labels, or none, in place of target pieces."""
        other = copy.copy(self)
        other.labels = tuple(labels)
        return other

    def encode_source(self, lines: Sequence[str]) -> list[list[int]]:
        """Returns source ids of each line, with what stands around a source."""
        before, after = self.special.source_prefix, self.special.source_suffix
        return [[*before, *ids, *after] for ids in self._source.encode(lines)]

    def language(self, line: str) -> str:
        """Returns the mark of a target language that a source line begins with; empty if there is none."""
        return self._source.language(line)

    def encode_words(self, lines: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
        """Returns (source ids, the place where each word begins) of each list of words.

        Each word is cut by itself, as words of a line are; one without pieces is an unknown one.
        """
        starts = "", self._source.word_start
        texts = [starts[i > 0] + word for words in lines for i, word in enumerate(words)]
        cut = iter(self._source.encode(texts))
        found = []
        for words in lines:
            ids, places = list(self.special.source_prefix), []
            for _ in words:
                places.append(len(ids))
                ids += next(cut) or [self.special.unk]
            found.append(([*ids, *self.special.source_suffix], places))
        return found

    def encode_target(self, lines: Sequence[str]) -> list[list[int]]:
        """Returns target ids of each line, end mark included."""
        before, end = self.special.target_prefix, self.special.end
        return [[*before, *ids, end] for ids in self._target.encode(lines)]

    def decode_target(self, sentences: Iterable[Sequence[int]]) -> list[str]:
        """Returns the text of each list of target ids; everything from the first end mark on is left out."""
        cut, end = [], self.special.end
        for ids in sentences:
            ids = [int(i) for i in ids]
            cut.append(ids[: ids.index(end)] if end in ids else ids)
        return self._target.decode(cut)

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the source pieces' own spelling."""
        return [self._source.spelling(int(i)) for i in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the target pieces' own spelling, or the labels."""
        if self.labels:
            return [self.labels[int(i)] for i in ids]
        return [self._target.spelling(int(i)) for i in ids]

    def source_vocabulary(self) -> tuple[list[str], list[float]]:
        """Returns spelling (empty for special pieces and bytes) and score of every source piece."""
        return self._source.vocabulary()

    def target_vocabulary(self) -> tuple[list[str], list[float]]:
        """Returns spelling (empty for special pieces and bytes) and score of every target piece."""
        return self._target.vocabulary()

    def save(self, folder: Path) -> None:
        """Writes the models and their digests to `folder`; the manifest last, so that it vouches for them."""
        folder.mkdir(parents=True, exist_ok=True)
        contents = {f"{name}.model": model for name, model in self._models.items()}
        for name, spellings in self._spellings.items():
            text = json.dumps(spellings, ensure_ascii=False, indent=0)
            contents[f"{name}.pieces.json"] = text.encode("utf-8", "surrogatepass")
        if self.labels:
            contents[_LABELS] = json.dumps(self.labels, ensure_ascii=False, indent=0).encode()
        files: dict[str, Any] = {}
        for file, content in contents.items():
            (folder / file).write_bytes(content)
            files[file] = {"sha256": hashlib.sha256(content).hexdigest()}
        manifest: dict[str, Any] = {"files": files, "sha256": self.digest}
        if self._spellings:
            manifest["special_ids"] = self.special._asdict()
        with replacing(folder / _MANIFEST) as opened:
            opened.write((json.dumps(manifest, indent=2) + "\n").encode())

    @staticmethod
    def exists(folder: Path) -> bool:
        """Returns whether `save` has finished in `folder`."""
        return (folder / _MANIFEST).exists()

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        """Reads what `save` wrote.

        Raises:
          CheckpointError: if a file is missing or its digest differs.
        """
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
            contents = {}
            for name, facts in manifest["files"].items():
                if name not in (*_MODELS, *_PIECES, _LABELS):
                    raise ValueError(f"{_MANIFEST} names '{name}'")
                contents[name] = (folder / name).read_bytes()
                found = hashlib.sha256(contents[name]).hexdigest()
                if found != facts["sha256"]:
                    raise CheckpointError(
                        f"{folder / name}: damaged: sha256 is {found[:12]}..., {_MANIFEST} says "
                        f"{facts['sha256'][:12]}...; restore the file from a copy of the run"
                    )
            models = [contents[name] for name in _MODELS if name in contents]
            first, second, *_ = [*models, None]
            labels = [str(name) for name in json.loads(contents.get(_LABELS, b"[]"))]
            if "special_ids" not in manifest:
                return Tokenizer(first, second, labels=labels)
            source, target, *_ = [json.loads(contents[name]) for name in _PIECES if name in contents] * 2
            facts = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["special_ids"].items()}
            return Tokenizer(first, second, (source, target), SpecialIds(**facts), labels)
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{folder}: no usable tokenizer ({type(error).__name__}: {error}); "
                "restore the folder from a copy of the run"
            ) from None


def _side(sides: dict[str, Any], name: str) -> Any:
    """Returns what a side has, alone or jointly with the other; None if there is nothing at all."""
    return sides.get(name, sides.get("joint"))


def train_tokenizer(
    sources: Iterable[str], targets: Iterable[str], config: TokenizerConfig, symbols: Sequence[str] = ()
) -> Tokenizer:
    """Trains on the given lines, deterministically.

    Args:
      sources: lines of the source.
      targets: lines of the target.
      config: kind and size of the vocabulary.
      symbols: words of the target that are one piece each, however rare; counted in the size.

    Raises:
      DataError: if the text cannot fill the vocabulary.
    """
    if config.joint:
        return Tokenizer(_train([*sources, *targets], config, "both sides", symbols))
    return Tokenizer(_train(sources, config, "source"), _train(targets, config, "target", symbols))


def _train(lines: Iterable[str], config: TokenizerConfig, side: str, symbols: Sequence[str] = ()) -> bytes:
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=config.model_type,
            vocab_size=config.vocab_size,
            normalization_rule_name=config.normalization,
            remove_extra_whitespaces=config.remove_extra_whitespaces,
            split_digits=config.split_digits,
            byte_fallback=config.byte_fallback,
            character_coverage=config.character_coverage,
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            user_defined_symbols=[_SPACE + symbol for symbol in symbols],
            # Longer lines are otherwise skipped without a word.
            max_sentence_length=1 << 24,
            num_threads=1,  # the result depends on the number of threads
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _impossible_size(config, side, str(error)) from None
    made = len(Pieces(model.getvalue(), side, SpecialIds()))
    if made != config.vocab_size:  # SentencePiece makes a model of characters smaller without a word
        raise _impossible_size(config, side, f"value <= {made}")
    return model.getvalue()


def _impossible_size(config: TokenizerConfig, side: str, reason: str) -> DataError:
    """Returns the error with the size that SentencePiece's `reason` gives away."""
    if found := re.search(r"value <= (\d+)", reason):
        reason = f"at most {found[1]} are possible; set config.tokenizer.vocab_size={found[1]}"
    elif found := re.search(r"required_chars\. \d+ vs (\d+)", reason):
        reason = (
            f"its characters alone are {found[1]}; set config.tokenizer.vocab_size above that, "
            "or lower character_coverage"
        )
    return DataError(
        f"config.tokenizer.vocab_size: {config.vocab_size} {config.model_type} pieces cannot be made "
        f"from the training text ({side}): {reason}"
    )
