"""One source with its translation, piece by piece: what is looked at closely."""

from typing import NamedTuple

from transformer.errors import ConfigError, DataError
from transformer.inference.model_directory import LoadedModel, check_kind, check_reads_text
from transformer.inference.scorer import check_positions
from transformer.inference.translator import Translator


class SentencePair(NamedTuple):
    """A pair as the model reads it.

    Attributes:
      source: ids, with what stands around a source.
      target: ids, end mark included.
      language: whether the source begins, after its prefix, with the mark of the target's language.
      text: of the target.
      source_text: of the source.
    """

    source: list[int]
    target: list[int]
    language: bool
    text: str
    source_text: str


def sentence_pair(loaded: LoadedModel, source: str, target: str | None = None) -> SentencePair:
    """Returns a source with a target, or with the model's own translation in the very pieces of its search.

    Raises:
      ConfigError: if the model has no encoder or no decoder, or its sources are no text, or a text is not
        UTF-8 or not one line.
      DataError: if the source has more tokens than are read at once, or the target more than the model has
        learned positions.
    """
    check_kind(loaded.model.config, "encoder_decoder")
    check_reads_text(loaded.model.config)
    for name, text in (("source", source), ("target", target or "")):
        if any(character in text for character in "\n\r\t"):
            raise ConfigError(f"{name}: has a line break or a tab; give one line, its words between spaces")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{name}: is not UTF-8; set the terminal to it, or write it anew") from None
    tokenizer, longest = loaded.tokenizer, loaded.model.config.max_length
    (src,) = tokenizer.encode_source([source])
    if len(src) > longest:
        raise DataError(
            f"source: has {len(src)} tokens, of which the model reads {longest} at once (model.max_length); "
            "give a shorter one"
        )
    if target is None:
        ((own,),) = Translator.of(loaded).translate_n_best([source], 1)
        # What nothing is read of has no output, and not even an end mark.
        tgt, target = list(own.ids) or tokenizer.encode_target([own.text])[0], own.text
    else:
        (tgt,) = tokenizer.encode_target([target])
    check_positions(loaded.model.config, [(src, tgt)])
    return SentencePair(src, tgt, bool(tokenizer.language(source)), target, source)
