"""Models of fairseq's class `transformer`: its settings, its state as safetensors, its dictionaries.

fairseq's Transformer is fairseq/models/transformer of facebookresearch/fairseq; transformers' BART has its
names from there. Positions are tensor2tensor's, and begin behind the id of padding.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.exchange.families import MOST_LAYERS
from transformer.exchange.flat_yaml import flat_yaml, typed
from transformer.exchange.foreign import Foreign, shown
from transformer.exchange.names import fairseq_name
from transformer.exchange.reading import ForeignModel, configuration
from transformer.exchange.safetensors_file import stored_tensors
from transformer.exchange.settings import Setting
from transformer.exchange.tensors import Tensors
from transformer.exchange.vocabularies import made, model_file, spellings
from transformer.special_ids import SpecialIds

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # the first ids of each dictionary, which its file leaves out
_PAD, _END, _UNK = 1, 2, 3
_LARGEST = 1 << 24  # bytes of a dictionary or of settings
_MOST_PIECES = 1 << 20
_SHARED, _TARGET = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
_OUTPUT = "decoder.output_projection.weight"
# Tables that are copies of others, by our way of tying.
_COPIES = {"all": {_TARGET: _SHARED, _OUTPUT: _SHARED}, "target": {_OUTPUT: _TARGET}, "none": {}}
_UNREAD = {  # of its versions, and of positions that are computed
    f"{stack}.{name}"
    for stack in ("encoder", "decoder")
    for name in ("version", "embed_positions._float_tensor")
}
_SETTINGS = (
    Setting("d_model", ("encoder_embed_dim", "decoder_embed_dim")),
    Setting("d_ff", ("encoder_ffn_embed_dim", "decoder_ffn_embed_dim")),
    Setting("num_heads", ("encoder_attention_heads", "decoder_attention_heads")),
    Setting("num_encoder_layers", ("encoder_layers",), most=MOST_LAYERS),
    Setting("num_decoder_layers", ("decoder_layers",), most=MOST_LAYERS),
    Setting("dropout_rate", ("dropout",), float, 0.1),
    Setting("attention_dropout_rate", ("attention_dropout",), float, 0.0),
    Setting("activation_dropout_rate", ("activation_dropout",), float, 0.0),
    Setting("max_length", ("max_source_positions", "max_target_positions"), default=1024),
    Setting(
        "activation",
        ("activation_fn",),
        {
            "relu": "relu",
            "gelu": "gelu",
            "gelu_fast": "gelu_tanh",
            "gelu_accurate": "gelu_tanh",
            "swish": "swish",
        },
        "relu",
    ),
)
# Settings that change the function, where they are anything else than nothing.
_OFF = (
    "adaptive_softmax_cutoff",
    "adaptive_input",
    "no_token_positional_embeddings",
    "no_cross_attention",
    "cross_self_attention",
    "no_decoder_final_norm",
    "encoder_layers_to_keep",
    "decoder_layers_to_keep",
    "base_layers",
    "char_inputs",
)


def read_fairseq(source: Path) -> ForeignModel:
    """Reads settings, headers of tensors, and the dictionaries of a folder.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    foreign = _opened(source)
    model = _model(foreign)
    foreign.check()
    path = foreign.path("model.safetensors")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing; fairseq's own file is a pickle, which is not read since it can run code: "
            "where you trust it, write the tensors of its key 'model' with safetensors.torch.save_file"
        )
    tensors = Tensors(stored_tensors(path))
    copies = _COPIES[model["tied_embeddings"]]
    for copy, table in copies.items():
        if copy in tensors and table in tensors and not tensors.same(copy, table):
            foreign.refuse(f"{copy}: is no copy of {table}, as the settings say")
    rows = [_rows(foreign, tensors, copies.get(name, name)) for name in (_SHARED, _TARGET)]
    foreign.check()
    tokenizer = _tokenizer(foreign, (rows[0], rows[1]))
    # It ends a search when a beam of outputs is there, and divides by their length.
    search = dict(beam_size=5, length_penalty=1.0, rules="huggingface_early")
    config = configuration(foreign, model, search, tokenizer)
    return ForeignModel(foreign, "fairseq", fairseq_name, _derived, tensors, tokenizer, config)


def _opened(source: Path) -> Foreign:
    """Returns the folder with its settings in one mapping: those of older versions, or of Hydra's form."""
    foreign = Foreign(source, {"config.json": {}})
    if (source / "config.json").is_file():
        found = Foreign(source).config
    elif (source / "config.yaml").is_file():
        path = foreign.path("config.yaml")
        try:
            found = {key: typed(x) for key, x in flat_yaml(_text(path)).items()}
        except ValueError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error}; give the settings as config.json"
            ) from None
    else:
        raise CheckpointError(
            f"{source}: has no config.json or config.yaml with fairseq's settings of the model"
        )
    for part in ("task", "model"):
        if isinstance(inner := found.get(part), dict):
            found = {**found, **inner, part: inner.get("_name")}
    foreign.config = {key: None if x in ("null", "None") else x for key, x in found.items()}
    foreign.generation = {}
    return foreign


def _model(f: Foreign) -> dict[str, Any]:
    """Returns fields of `ModelConfig`; settings that it has no words for are reasons."""
    arch = str(f.config.get("arch") or f.config.get("model") or "transformer")
    if not arch.startswith("transformer") or arch.startswith("transformer_lm"):
        f.refuse(f"arch: only transformer can be represented, not {shown(arch)}")
    if f.config.get("task") not in (None, "translation"):
        f.refuse(f"task: only translation can be represented, not {shown(f.config['task'])}")
    for key in _OFF:
        if f.config.get(key) not in (None, False, 0, "", []):
            f.refuse(f"{key}: cannot be represented, is {shown(f.config[key])}")
    for key in ("decoder_input_dim", "decoder_output_dim"):
        if f.config.get(key) is not None:
            f.number("decoder_embed_dim", key)
    before, learned = (
        [f.fact(f"{stack}_{key}", False) for stack in ("encoder", "decoder")]
        for key in ("normalize_before", "learned_pos")
    )
    for key, (one, other) in (("normalize_before", before), ("learned_pos", learned)):
        if one != other:
            f.refuse(f"encoder_{key}, decoder_{key}: must be equal")
    every, output = (
        f.fact(key, False) for key in ("share_all_embeddings", "share_decoder_input_output_embed")
    )
    return {
        **{setting.field: setting.read(f) for setting in _SETTINGS},
        "norm": "pre" if before[0] else "post",
        "norm_epsilon": 1e-5,
        "attention_bias": True,
        "positions": "learned" if learned[0] else "sinusoidal_halves",
        "position_offset": _PAD + 1,
        "embedding_norm": f.fact("layernorm_embedding", False),
        "scale_embeddings": not f.fact("no_scale_embedding", False),
        "tied_embeddings": "all" if every else "target" if output else "none",
    }


def _derived(name: str, model: Mapping[str, Any]) -> bool:
    return name in _UNREAD or name in _COPIES[model["tied_embeddings"]]


def _rows(f: Foreign, tensors: Tensors, name: str) -> int:
    """Returns the rows of a table."""
    if name not in tensors or len(tensors.shape(name)) != 2:
        f.refuse(f"{name}: expected a table of rows and columns")
        return 1
    return tensors.shape(name)[0]


def _tokenizer(f: Foreign, rows: tuple[int, int]) -> Tokenizer:
    """Reads dict.<language>.txt of both sides, and the SentencePiece models that cut the text."""
    names = [_dictionary(f, key) for key in ("source_lang", "target_lang")]
    sides = [spellings(f, name, _ids(f, name), size) for name, size in zip(names, rows, strict=True)]
    if any(piece.endswith("@@") for side in sides for piece in side):
        f.refuse(f"{names[0]}: pieces of subword-nmt ('@@') cannot be represented, only SentencePiece's")
    f.check()
    joint = "sentencepiece.bpe.model"
    cutters = [joint] * 2 if f.path(joint).is_file() else ["source.spm", "target.spm"]
    special = SpecialIds(
        pad=_PAD,
        unk=_UNK,
        start=_END,
        end=_END,
        forbidden=(_PAD,),
        source_suffix=(_END,),
        hidden=(0, _PAD, _END),
    )
    return made(f, [model_file(f, name) for name in cutters], sides, special)


def _dictionary(f: Foreign, key: str) -> str:
    """Returns the name of a side's file."""
    language = f.config.get(key)
    if not isinstance(language, str) or not language.replace("_", "").replace("-", "").isalnum():
        raise CheckpointError(
            f"{f.folder}: {key}: expected a language as in dict.<language>.txt, got {shown(language)}"
        )
    return f"dict.{language}.txt"


def _ids(f: Foreign, name: str) -> dict[str, int]:
    """Returns the id of each piece of a dictionary: a line has a piece and how often it came."""
    path = f.path(name)
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; put fairseq's dictionary there")
    lines = _text(path).split("\n")
    if len(lines) > _MOST_PIECES:
        raise CheckpointError(f"{path}: has more than {_MOST_PIECES:,} lines; is it the right file?")
    ids = {piece: i for i, piece in enumerate(_SPECIAL)}
    for number, line in enumerate(lines, 1):
        entry = line.removesuffix("\r").removesuffix(" #fairseq:overwrite")
        piece, space, count = entry.rpartition(" ")
        if not entry and number == len(lines):
            break
        if not space or not piece or not count.isdecimal():
            raise CheckpointError(
                f"{path}: line {number}: expected 'piece count', got {shown(line)}; get it anew"
            )
        if piece in ids:
            raise CheckpointError(f"{path}: line {number}: {shown(piece)} comes twice; get it anew")
        ids[piece] = len(ids)
    return ids


def _text(path: Path) -> str:
    """Returns the text of a file of moderate size."""
    try:
        if path.stat().st_size > _LARGEST:
            raise CheckpointError(f"{path}: has more than {_LARGEST:,} bytes; is it the right file?")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise CheckpointError(f"{path}: cannot be read: {message}; get it anew") from None
