"""SentencePiece tokenizer of both sides; the one home of special ids."""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece as spm

from transformer.config import TokenizerConfig
from transformer.errors import DataError

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
_MANIFEST = "tokenizer.json"


class Tokenizer:
    """Text to piece ids and back, for the source and the target side.

    Sentences end with `EOS_ID`; `BOS_ID` only begins the decoder's input. With a joint model both
    sides are the same.
    """

    def __init__(self, source: bytes, target: bytes | None = None):
        """Args: serialised SentencePiece models; `target` is None for a joint one.

        Raises:
          DataError: if one cannot be read.
        """
        self._models = {"joint": source} if target is None else {"source": source, "target": target}
        processors = [_processor(model, name) for name, model in self._models.items()]
        self._source, self._target = processors[0], processors[-1]

    @property
    def source_vocab(self) -> int:
        """Number of source pieces, special ones included."""
        return self._source.get_piece_size()

    @property
    def target_vocab(self) -> int:
        """Number of target pieces, special ones included."""
        return self._target.get_piece_size()

    @property
    def digest(self) -> str:
        """SHA-256 of the models, hexadecimal."""
        return hashlib.sha256(b"".join(self._models.values())).hexdigest()

    def encode_source(self, lines: Sequence[str]) -> list[list[int]]:
        """Returns source ids of each line, end mark included."""
        return _encode(self._source, lines)

    def encode_target(self, lines: Sequence[str]) -> list[list[int]]:
        """Returns target ids of each line, end mark included."""
        return _encode(self._target, lines)

    def decode_target(self, sentences: Iterable[Sequence[int]]) -> list[str]:
        """Returns the text of each list of target ids; everything from the first end mark on is left out."""
        cut = []
        for ids in sentences:
            ids = [int(i) for i in ids]
            cut.append(ids[: ids.index(EOS_ID)] if EOS_ID in ids else ids)
        return self._target.decode(cut)

    def source_pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the source pieces' own spelling."""
        return [self._source.id_to_piece(int(i)) for i in ids]

    def target_pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the target pieces' own spelling."""
        return [self._target.id_to_piece(int(i)) for i in ids]

    def source_vocabulary(self) -> tuple[list[str], list[float]]:
        """Returns spelling (empty for special pieces and bytes) and score of every source piece."""
        return _vocabulary(self._source)

    def target_vocabulary(self) -> tuple[list[str], list[float]]:
        """Returns spelling (empty for special pieces and bytes) and score of every target piece."""
        return _vocabulary(self._target)

    def save(self, folder: Path) -> None:
        """Writes the models and their digests to `folder`; the manifest last, so that it vouches for them."""
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, model in self._models.items():
            file = folder / f"{name}.model"
            file.write_bytes(model)
            files[file.name] = {
                "sha256": hashlib.sha256(model).hexdigest(),
                "vocab_size": _processor(model, name).get_piece_size(),
            }
        temporary = folder / (_MANIFEST + ".tmp")
        temporary.write_text(json.dumps({"files": files, "sha256": self.digest}, indent=2) + "\n")
        temporary.replace(folder / _MANIFEST)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Returns whether `save` has finished in `folder`."""
        return (folder / _MANIFEST).exists()

    @staticmethod
    def load(folder: Path) -> "Tokenizer":
        """Reads what `save` wrote.

        Raises:
          DataError: if a file is missing or its digest differs.
        """
        try:
            files = json.loads((folder / _MANIFEST).read_text())["files"]
            models = {}
            for name, facts in files.items():
                models[name] = (folder / name).read_bytes()
                found = hashlib.sha256(models[name]).hexdigest()
                if found != facts["sha256"]:
                    raise DataError(
                        f"{folder / name}: damaged: sha256 is {found[:12]}..., {_MANIFEST} says "
                        f"{facts['sha256'][:12]}...; restore the file from a copy of the run"
                    )
            if set(models) == {"joint.model"}:
                return Tokenizer(models["joint.model"])
            return Tokenizer(models["source.model"], models["target.model"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{folder}: no usable tokenizer ({type(error).__name__}: {error}); "
                "restore the folder from a copy of the run"
            ) from None


def train_tokenizer(sources: Iterable[str], targets: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Trains on the given lines, deterministically.

    Raises:
      DataError: if the text cannot fill the vocabulary.
    """
    if config.joint:
        return Tokenizer(_train([*sources, *targets], config, "both sides"))
    return Tokenizer(_train(sources, config, "source"), _train(targets, config, "target"))


def _processor(model: bytes, name: str) -> spm.SentencePieceProcessor:
    try:
        processor = spm.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"tokenizer {name}: not a SentencePiece model ({error})") from None
    ids = (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id())
    if ids != (PAD_ID, UNK_ID, BOS_ID, EOS_ID):
        raise DataError(
            f"tokenizer {name}: pad, unk, bos, eos are {ids}, expected {(PAD_ID, UNK_ID, BOS_ID, EOS_ID)}; "
            "use a model that this program trained"
        )
    return processor


def _encode(processor: spm.SentencePieceProcessor, lines: Sequence[str]) -> list[list[int]]:
    return [[*ids, EOS_ID] for ids in processor.encode(list(lines))]


def _vocabulary(processor: spm.SentencePieceProcessor) -> tuple[list[str], list[float]]:
    ids = range(processor.get_piece_size())
    special = [processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i) for i in ids]
    pieces = ["" if special[i] else processor.id_to_piece(i) for i in ids]
    return pieces, [processor.get_score(i) for i in ids]


def _train(lines: Iterable[str], config: TokenizerConfig, side: str) -> bytes:
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
            # Longer lines are otherwise skipped without a word.
            max_sentence_length=1 << 24,
            num_threads=1,  # the result depends on the number of threads
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _impossible_size(config, side, str(error)) from None
    made = _processor(model.getvalue(), side).get_piece_size()
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
