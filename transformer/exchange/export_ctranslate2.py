"""From one of our model directories to a model of CTranslate2, through its own specifications; no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.config import ModelConfig
from transformer.data.byte_pairs import BytePairs
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, UserError
from transformer.exchange.card import Said, model_card
from transformer.exchange.folders import new_folder
from transformer.exchange.layout import joined, their_tensors
from transformer.exchange.verifying import Ids, Runtime, verify
from transformer.exchange.written_vocabularies import pieces
from transformer.inference.model_directory import LoadedModel, check_kind, check_reads_text, load_model
from transformer.model.positions import FIXED
from transformer.model.transformer import TABLES, unstack_layers
from transformer.special_ids import SpecialIds

QUANTIZATIONS = ("float32", "float16", "int8", "int8_float32", "int8_float16", "int16")
_NEVER = -1e4  # added to the logits of ids that the search must not choose; fits into float16
_USE = """import ctranslate2, sentencepiece
pieces = sentencepiece.SentencePieceProcessor(model_file="{target}/source.spm").encode("...", out_type=str)
found = ctranslate2.Translator("{target}").translate_batch([{source}]{begin})
best = found[0].hypotheses[0]{begun}
print(sentencepiece.SentencePieceProcessor(model_file="{target}/target.spm").decode(best))"""
_USE_PIECES = """import ctranslate2  # which takes and gives pieces, as the vocabulary spells them
found = ctranslate2.Translator("{target}").translate_batch([{source}]{begin})
best = found[0].hypotheses[0]{begun}"""
_LONGEST = 2048  # positions of a sinusoid that are written down


def export_ctranslate2(
    model: str | Path,
    target: str | Path,
    checkpoint: str,
    quantization: str,
    said: Said,
    lines: Sequence[str] | None = None,
) -> str:
    """Writes a folder that `ctranslate2.Translator` loads, with the SentencePiece models beside it.

    Args:
      model: one of our model directories.
      target: the new folder.
      checkpoint: "best", "last", or a step.
      quantization: of the matrices, one of QUANTIZATIONS.
      said: for the card.
      lines: to compare translations on; empty: random ones; None: nothing is compared.

    Returns:
      What was compared, in words.

    Raises:
      CheckpointError: if there is no such model, or CTranslate2 cannot have it.
      UserError: if ctranslate2 is not installed.
    """
    specs = specifications()
    loaded = load_model(model, checkpoint)
    check_kind(loaded.config.model, "encoder_decoder")
    check_reads_text(loaded.config.model)
    if reasons := _reasons(loaded.config.model):
        raise CheckpointError(f"{model}: CTranslate2 has no such model: {'; '.join(reasons)}")
    with new_folder(target) as folder:
        spec = _specified(specs, loaded)
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(folder))
        for side, content in zip(("source", "target"), loaded.tokenizer.models, strict=True):
            ending = "bpe" if BytePairs.recognises(content) else "spm"
            (folder / f"{side}.{ending}").write_bytes(content)
        use = _use(loaded.tokenizer, Path(target).name, _USE if ending == "spm" else _USE_PIECES)
        card = model_card(Path(model), Path(target).name, loaded, said, use)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if lines is not None:
            return verify(loaded, ctranslate2_runtime(folder, loaded, quantization), lines)
    return ""


def specifications() -> Any:
    """Returns the module `ctranslate2.specs`.

    Raises:
      UserError: if it is not installed.
    """
    try:
        import ctranslate2.specs
    except ImportError:
        raise UserError(
            "export ctranslate2 needs ctranslate2: pip install 'transformer[ctranslate2]'"
        ) from None
    return ctranslate2.specs


def _use(tokenizer: Tokenizer, target: str, words: str) -> str:
    """Returns how the folder is used: with all that CTranslate2 does not put around a sentence itself."""
    source, begin = "pieces", _names(tokenizer, 1, tokenizer.special.given)
    if not _has_end_alone(tokenizer.special):
        around = tokenizer.special.source_prefix, tokenizer.special.source_suffix
        before, after = (_names(tokenizer, 0, ids) for ids in around)
        source = f"{before} + pieces + {after}"
    return words.format(
        target=target,
        source=source,
        begin=f", target_prefix=[{begin}]" if begin else "",
        begun=f"[{len(begin)}:]" if begin else "",
    )


def _names(tokenizer: Tokenizer, side: int, ids: Sequence[int]) -> list[str]:
    """Returns how the source's (0) or the target's (1) ids are named."""
    names = _unique(pieces(tokenizer)[side])
    return [names[i] for i in ids]


def _has_end_alone(special: SpecialIds) -> bool:
    """Returns whether a source is followed by an end mark and by nothing else: CTranslate2 adds that."""
    return special.source_suffix == (special.end,) and not special.source_prefix


def _reasons(model: ModelConfig) -> list[str]:
    """Returns why CTranslate2 cannot compute the same."""
    reasons = []
    if model.positions == "relative" and not model.relative_shared:
        reasons.append("config.model.relative_shared is False: its layers share one table of distances")
    if model.positions == "relative" and model.embedding_norm:
        reasons.append("config.model.embedding_norm with relative positions")
    if model.positions in ("shaw", "alibi", "rotary", "none"):
        reasons.append(f"config.model.positions is {model.positions!r}")
    if model.kv_heads != model.num_heads:
        reasons.append(f"config.model.num_kv_heads is {model.num_kv_heads}: all heads have keys of their own")
    if model.recurrence != "none":
        reasons.append(f"config.model.recurrence is {model.recurrence!r}")
    if model.attention != "full":
        reasons.append(f"config.model.attention is {model.attention!r}")
    if model.attention_score != "dot_product":
        reasons.append(f"config.model.attention_score is {model.attention_score!r}")
    return reasons


def _specified(specs: Any, loaded: LoadedModel) -> Any:
    """Returns the specification of the whole model."""
    m, tokenizer = loaded.config.model, loaded.tokenizer
    spec = specs.TransformerSpec.from_config(
        (m.num_encoder_layers, m.num_decoder_layers),
        m.num_heads,
        pre_norm=m.norm == "pre",
        activation=_activation(specs, m.activation),
        layernorm_embedding=m.embedding_norm,
        relative_attention_bias=m.positions == "relative",
        ffn_glu=m.gated_feed_forward,
        rms_norm=m.norm_type == "rms",
    )
    params = jax.tree.map(lambda x: np.array(x, np.float32), unstack_layers(loaded.params))
    paths = [joined(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    views = their_tensors(params, {path: [path] for path in paths})
    tensors = {name: np.ascontiguousarray(x) for name, x in views.items()}
    tables = TABLES[m.tied_embeddings]
    _set_stack(spec.encoder, spec.encoder.embeddings[0], "encoder", tables.source, tensors, m)
    _set_stack(spec.decoder, spec.decoder.embeddings, "decoder", tables.target, tensors, m)
    spec.decoder.projection.weight = tensors[f"{tables.output}/embedding"]
    bias = tensors.get("logits_bias", np.zeros((1, tokenizer.target_vocab), np.float32))[0].copy()
    bias[list(tokenizer.special.forbidden)] = _NEVER
    spec.decoder.projection.bias = bias
    spec.decoder.start_from_zero_embedding = False
    if m.scale_logits:
        spec.decoder.scale_outputs = np.float32(m.d_model**-0.5)
    _set_vocabularies(spec, loaded)
    spec.config.layer_norm_epsilon = m.norm_epsilon
    return spec


def _activation(specs: Any, name: str) -> Any:
    names = {"relu": "RELU", "gelu": "GELU", "gelu_tanh": "GELUTanh", "swish": "SWISH"}
    return getattr(specs.Activation, names[name])


def _set_vocabularies(spec: Any, loaded: LoadedModel) -> None:
    """Names the ids: as the vocabulary spells them where that is one id's name, else by their number."""
    special = loaded.tokenizer.special
    source, target = (_unique(listed) for listed in pieces(loaded.tokenizer))
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.unk_token = target[special.unk]
    spec.config.eos_token = target[special.end]
    spec.config.bos_token = target[special.start]
    spec.config.decoder_start_token = target[special.start]
    # Marks around a source are its tokenizer's, but for an end mark alone.
    spec.config.add_source_eos = _has_end_alone(special)


def _unique(listed: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    names = []
    for i, piece in enumerate(listed):
        names.append(f"<id_{i}>" if not piece or piece in seen else piece)
        seen.add(piece)
    return names


def _set_stack(
    spec: Any, embeddings: Any, stack: str, table: str, tensors: dict[str, np.ndarray], m: ModelConfig
) -> None:
    """Fills an encoder or a decoder in."""
    embeddings.weight = tensors[f"{table}/embedding"]
    spec.scale_embeddings = m.scale_embeddings
    if m.positions == "learned":
        spec.position_encodings.encodings = tensors[f"{stack}/positions"][m.position_offset :]
    elif m.positions in FIXED:
        places_BT = jnp.arange(max(_LONGEST, m.max_length))[None] + m.position_offset
        spec.position_encodings.encodings = np.asarray(
            FIXED[m.positions](places_BT, m.d_model)[0], np.float32
        )
    if m.norm == "pre":
        _set_norm(spec.layer_norm, f"{stack}/final_norm", tensors)
    if m.embedding_norm:
        _set_norm(spec.layernorm_embedding, f"{stack}/embedding_norm", tensors)
    for i, layer in enumerate(spec.layer):
        at = f"{stack}/layer_{i}"
        attention = layer.self_attention
        _set_attention(attention, f"{at}/self_attention", (("query", "key", "value"), ("out",)), tensors, m)
        if m.positions == "relative":
            attention.relative_attention_bias = tensors[f"{stack}/relative_bias"]
            attention.relative_attention_max_distance = np.int32(m.relative_max_distance)
        if stack == "decoder":
            parts = (("query",), ("key", "value"), ("out",))
            _set_attention(layer.attention, f"{at}/cross_attention", parts, tensors, m)
        _set_linear(layer.ffn.linear_0, (f"{at}/feed_forward/wi",), tensors)
        if m.gated_feed_forward:
            _set_linear(layer.ffn.linear_0_noact, (f"{at}/feed_forward/wi_linear",), tensors)
        _set_linear(layer.ffn.linear_1, (f"{at}/feed_forward/wo",), tensors)
        _set_norm(layer.ffn.layer_norm, f"{at}/feed_forward_norm", tensors)


def _set_attention(
    spec: Any, at: str, parts: Sequence[Sequence[str]], tensors: dict[str, np.ndarray], m: ModelConfig
) -> None:
    spec.queries_scale = np.float32(m.key_size**-0.5 if m.scale_queries else 1.0)
    for linear, names in zip(spec.linear, parts, strict=True):
        _set_linear(linear, [f"{at}/{name}" for name in names], tensors)
    _set_norm(spec.layer_norm, f"{at}_norm", tensors)


def _set_linear(spec: Any, paths: Sequence[str], tensors: dict[str, np.ndarray]) -> None:
    spec.weight = np.concatenate([tensors[f"{path}/kernel"] for path in paths])
    if f"{paths[0]}/bias" in tensors:
        spec.bias = np.concatenate([tensors[f"{path}/bias"] for path in paths])


def _set_norm(spec: Any, path: str, tensors: dict[str, np.ndarray]) -> None:
    spec.gamma = tensors[f"{path}/scale"]
    if f"{path}/bias" in tensors:
        spec.beta = tensors[f"{path}/bias"]


def ctranslate2_runtime(folder: Path, loaded: LoadedModel, quantization: str) -> Runtime:
    """Returns the model in `folder` as CTranslate2 runs it on the CPU."""
    import ctranslate2

    names = [_unique(listed) for listed in pieces(loaded.tokenizer)]
    ids, special = {name: i for i, name in enumerate(names[1])}, loaded.tokenizer.special
    kind = {"float16": "float32"}.get(quantization, quantization)
    translator = ctranslate2.Translator(str(folder), device="cpu", compute_type=kind)
    marked = _has_end_alone(special)
    begin = [names[1][i] for i in special.given]

    def spelled(sources: Ids) -> list[list[str]]:
        return [[names[0][i] for i in (row[:-1] if marked else row)] for row in sources]

    def greedy(sources: Ids, limit: int) -> Ids:
        options = dict(beam_size=1, max_decoding_length=limit, max_input_length=0)
        found = translator.translate_batch(spelled(sources), [begin] * len(sources), **options)
        return [[ids[name] for name in result.hypotheses[0]] for result in found]

    def log_probs(sources: Ids, targets: Ids) -> list[np.ndarray]:
        rows = [[names[1][i] for i in row[:-1]] for row in targets]
        found = translator.score_batch(spelled(sources), rows, max_input_length=0)
        return [np.asarray(result.log_probs) for result in found]

    return Runtime("CTranslate2", greedy, log_probs, special.forbidden, quantization == "float32")
