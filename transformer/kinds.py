"""Which values go with a model's kind: encoder and decoder, or one of them alone."""

from collections.abc import Iterator

from transformer.config import Config, ModelConfig


def faults(config: Config) -> Iterator[str]:
    """Yields what is wrong with values for a model of its kind, each "section.key: ..."."""
    model, data = config.model, config.data
    if model.kind != "decoder_only":
        yield from _encoder(model)
    if model.kind != "encoder_only" and not model.num_decoder_layers > 0:
        yield f"model.num_decoder_layers: must be above 0, got {model.num_decoder_layers}"
    if model.kind != "encoder_only" and data.labels != "none":
        yield f"data.labels: '{data.labels}' is for classifiers; set config.model.kind=encoder_only"
    if model.source_features or data.kind == "frames":
        yield from _frames(config)
    of_kind = {"encoder_decoder": _pairs, "decoder_only": _decoder_only, "encoder_only": _encoder_only}
    yield from of_kind[model.kind](config)


def _frames(config: Config) -> Iterator[str]:
    """Yields what sources that are vectors do not go together with."""
    model, data = config.model, config.data
    if data.kind != "frames":
        yield (
            f"model.source_features: {model.source_features}, but sources of data.kind '{data.kind}' are "
            "text; set it to 0, or config.data.kind=frames"
        )
    elif not model.source_features:
        yield "model.source_features: must be the numbers of a frame, of which data.kind 'frames' is; set it"
    if model.kind != "encoder_decoder":
        yield f"model.kind: '{model.kind}' reads tokens, and 'frames' need an encoder before a decoder"
    if not config.tokenizer.joint:
        yield "tokenizer.joint: frames are no text, so that there is one side; set it to true"
    if data.subword_dropout:
        yield "data.subword_dropout: frames do not fall into two parts; set it to 0"
    if config.init.vocabulary != "base" or config.init.source_language or config.init.target_language:
        yield "init.vocabulary, *_language: with frames the base's pieces stay as they are; leave them out"


def _encoder(model: ModelConfig) -> Iterator[str]:
    """Yields what models with an encoder must have, and what they have no use for."""
    if not model.num_encoder_layers > 0:
        yield f"model.num_encoder_layers: must be above 0, got {model.num_encoder_layers}"
    if model.prefix != "none":
        yield (
            f"model.prefix: '{model.prefix}' is of a decoder alone, and here an encoder reads sources; "
            "leave it out, or set config.model.kind=decoder_only"
        )


def _decoder_only(config: Config) -> Iterator[str]:
    """Yields what a decoder alone has not, and what its data must be."""
    model, data = config.model, config.data
    if model.num_encoder_layers:
        yield (
            f"model.num_encoder_layers: 'decoder_only' has no encoder, got {model.num_encoder_layers}; "
            "set it to 0, and config.model.num_decoder_layers to what the model is to have"
        )
    if model.tied_embeddings in ("target", "none"):
        yield (
            f"model.tied_embeddings: '{model.tied_embeddings}' keeps a table for sources, and 'decoder_only' "
            "has one for all that it reads; choose 'all', or 'inputs' with an output apart"
        )
    if model.attention != "full" or model.positions == "shaw":
        key = "positions: 'shaw'" if model.attention == "full" else f"attention: '{model.attention}'"
        yield (
            f"model.{key} counts places of a row, where a source and what goes on after it are apart; "
            "with 'decoder_only' choose another"
        )
    if model.reads_source and not data.has_sources:
        yield f"model.prefix: '{model.prefix}' is a source, and data.kind 'lines' has none; leave it out"
    if not model.reads_source and data.has_sources:
        yield (
            f"model.prefix: data.kind '{data.kind}' has sources, and 'none' reads them nowhere; set it to "
            "'bidirectional' or 'causal', or config.data.kind=lines"
        )
    if not data.has_sources:
        yield from _lines(config)


def _lines(config: Config) -> Iterator[str]:
    """Yields what text without sources cannot have."""
    data, run = config.data, config.run
    for split in ("train", "dev", "test"):
        if getattr(data, f"{split}_source"):
            yield f"data.{split}_source: lines have one side; name their files in data.{split}_target"
    if data.max_ratio:
        yield f"data.max_ratio: lines have one length, and no ratio of two, got {data.max_ratio}; set it to 0"
    if run.eval_lines:
        yield (
            f"run.eval_lines: lines have nothing to translate, got {run.eval_lines}; set it to 0, and "
            "config.run.best_metric=nll"
        )


def _pairs(config: Config) -> Iterator[str]:
    """Yields what an encoder and a decoder cannot do with their data."""
    if not config.data.has_sources:
        yield "data.kind: 'lines' have no source to encode; set config.model.kind=decoder_only"


def _encoder_only(config: Config) -> Iterator[str]:
    """Yields what an encoder alone does not go together with."""
    data, key = config.data, "'encoder_only' models"
    if not data.has_sources:
        yield f"data.kind: '{data.kind}' have no source, which is all that {key} read; choose another"
    if data.target_length:
        yield f"data.target_length: {key} ask at places of a source, got {data.target_length}; set it to 0"
    for split in ("train", "dev", "test"):
        source, target = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
        if data.labels == "none" and target:
            yield f"data.{split}_target: {key} read sources alone; leave it out, or set config.data.labels"
        elif data.labels != "none" and data.kind == "text" and len(source) != len(target):
            yield f"data.{split}_target: must name a file of labels for each of {split}_source, got {target}"
    if data.kind == "trees" and data.labels == "line":
        yield "data.labels: trees have tags, one a word; set config.data.labels=word"
    if data.labels == "none" and not data.mask_rate:
        yield "data.mask_rate: at 0 nothing is asked for; set it above 0, or config.data.labels"
    if data.subword_dropout:
        yield f"data.subword_dropout: would move the places that {key} are asked at; set it to 0"
    if not config.tokenizer.joint:
        yield f"tokenizer.joint: {key} have one side; set it to true"
    if config.run.eval_lines:
        yield f"run.eval_lines: {key} translate nothing; set it to 0, and best_metric to accuracy or nll"
    if config.init.vocabulary != "base" or config.init.source_language or config.init.target_language:
        yield f"init.vocabulary, *_language: {key} take the base's pieces as they are; leave them out"
