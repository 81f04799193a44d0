"""Models as Marian writes them itself: what its options and tensors are in our configuration.

Marian's Transformer is src/models/transformer.h of marian-nmt/marian-dev. Linear maps lie there as [inputs,
outputs]. The decoder begins with a vector of zeros: the row of an id of its own here. Positions have
tensor2tensor's rates, where transformers' conversions of the same models have the paper's.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.exchange.families import MOST_LAYERS
from transformer.exchange.foreign import Foreign, shown
from transformer.exchange.marian_folder import marian_nmt_tokenizer, open_folder
from transformer.exchange.names import marian_name
from transformer.exchange.reading import ForeignModel, configuration
from transformer.exchange.safetensors_file import StoredTensor
from transformer.exchange.settings import Setting
from transformer.exchange.tensors import Tensors

_OUTPUT, _BIAS = "decoder_ff_logit_out_Wt", "decoder_ff_logit_out_b"
_OLD_OUTPUT = "decoder_ff_logit_out_W"  # of models before 2019, [inputs, outputs]
_TABLES = ("Wemb", "encoder_Wemb", "decoder_Wemb", _OUTPUT)
_NEVER = -100.0  # logit of what Marian has no id for: no probability in float32, and a finite loss

_SETTINGS = (
    Setting("d_model", ("dim-emb",)),
    Setting("d_ff", ("transformer-dim-ffn",)),
    Setting("num_heads", ("transformer-heads",)),
    Setting("num_encoder_layers", ("enc-depth",), most=MOST_LAYERS),
    Setting("num_decoder_layers", ("dec-depth",), most=MOST_LAYERS),
    Setting("activation", ("transformer-ffn-activation",), {"swish": "swish", "relu": "relu"}, "swish"),
    Setting("max_length", ("max-length",), default=512),  # of a translation: its positions have no end
)
_FIXED = dict(positions="sinusoidal_halves", norm_epsilon=1e-6, attention_bias=True, logits_bias=True)
# Options that change the function, and their values for which it is ours.
_ONLY: dict[str, tuple[Any, ...]] = {
    "type": ("transformer",),
    "transformer-ffn-depth": (2,),
    "transformer-decoder-ffn-depth": (0, 2),
    "transformer-decoder-autoreg": ("self-attention",),
    "transformer-attention-mask": ("default",),
    **dict.fromkeys(("output-omit-bias", "right-left", "ulr", "alibi"), (False,)),
    "lemma-dim-emb": (0,),
    "input-types": ([], ["sequence"] * 2),
}
_READ = {key for setting in _SETTINGS for key in setting.keys} | {"transformer-decoder-dim-ffn"}
_OPERATIONS = ("preprocess", "postprocess", "postprocess-emb", "postprocess-top")
_OF_NO_MATTER = {  # of layers without self-attention, of training, of alignments
    "transformer-dim-aan",
    "transformer-aan-depth",
    "transformer-aan-activation",
    "transformer-aan-nogate",
    "transformer-rnn-projection",
    "transformer-depth-scaling",
    "transformer-guided-alignment-layer",
}


class MarianTensor(NamedTuple):
    """A tensor of Marian as the others lie: linear maps as [outputs, inputs], tables with all rows.

    Attributes:
      stored: in the file.
      transposed: whether it lies the other way there.
      rows: that are filled up to; 0: as many as there are.
      fill: what with.
    """

    stored: StoredTensor
    transposed: bool = False
    rows: int = 0
    fill: float = 0.0

    @property
    def path(self) -> Path:
        """Of its file."""
        return self.stored.path

    @property
    def dtype(self) -> str:
        """As safetensors names it."""
        return self.stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what `read` returns."""
        return (self.rows, *self.own_shape[1:]) if self.rows else self.own_shape

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Without the rows that are filled up."""
        return self.stored.shape[::-1] if self.transposed else self.stored.shape

    def read(self) -> np.ndarray:
        """Returns the tensor as float32."""
        array = self.stored.read()
        array = array.T if self.transposed else array
        if not self.rows:
            return array
        return np.concatenate(
            [array, np.full((self.rows - len(array), *array.shape[1:]), self.fill, array.dtype)]
        )


def read_marian(source: Path) -> ForeignModel:
    """Reads options, headers of tensors, and the vocabularies of a folder of Marian.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    foreign, stored = open_folder(source)
    model = _model(foreign)
    foreign.check()
    joint = model["tied_embeddings"] in ("all", "inputs")
    tables = ("shared", "shared") if joint else ("source", "target")
    first, second = (_rows(foreign, stored, marian_name(f"{table}/embedding", model)) for table in tables)
    tensors = _tensors(foreign, stored, first, second)
    foreign.check()
    tokenizer = marian_nmt_tokenizer(foreign, (first, second), max(first, second) + 1)
    config = configuration(foreign, model, _search(foreign), tokenizer)
    return ForeignModel(
        foreign, "marian-nmt", marian_name, lambda name, _: False, Tensors(tensors), tokenizer, config
    )


def _model(f: Foreign) -> dict[str, Any]:
    """Returns fields of `ModelConfig`; options that it has no words for are reasons."""
    operations = {name: str(f.config.get(f"transformer-{name}", "")) for name in _OPERATIONS}
    for key, values in _ONLY.items():
        if f.config.get(key, None if key == "type" else values[0]) not in values:
            f.refuse(f"{key}: only {values[0]} can be represented, not {_told(f.config.get(key))}")
    known = {*_READ, *_ONLY, *_OF_NO_MATTER, *(f"transformer-{name}" for name in _OPERATIONS)}
    for key, value in f.config.items():
        if key.startswith("transformer-") and key not in known and value not in (False, 0, "", []):
            f.refuse(f"{key[:60]}: cannot be represented, is {_told(value)}")
    if f.config.get("transformer-decoder-dim-ffn"):
        f.number("transformer-dim-ffn", "transformer-decoder-dim-ffn")
    norm = {("", "an", ""): "post", ("n", "a", "n"): "pre"}
    # Where dropout is differs in training only.
    before, after, emb, top = (operations[name].replace("d", "") for name in _OPERATIONS)
    if (before, after, top) not in norm or emb not in ("", "n"):
        told = ", ".join(f"transformer-{name} {value[:20]!r}" for name, value in operations.items())
        f.refuse(f"{told}: layers are normalised neither as dan nor as n, da and n on top")
    every = f.fact("tied-embeddings-all", False)
    inputs, output = (f.fact(key, False) or every for key in ("tied-embeddings-src", "tied-embeddings"))
    return {
        **{setting.field: setting.read(f) for setting in _SETTINGS},
        **_FIXED,
        "norm": norm.get((before, after, top), "post"),
        "embedding_norm": emb == "n",
        "tied_embeddings": {(1, 1): "all", (1, 0): "inputs", (0, 1): "target", (0, 0): "none"}[
            inputs, output
        ],
    }


def _told(value: Any) -> str:
    return f"[{', '.join(map(shown, value[:3]))}]" if isinstance(value, list) else shown(value)


def _rows(f: Foreign, stored: Mapping[str, StoredTensor], name: str) -> int:
    """Returns the rows of a table."""
    shape = stored[name].shape if name in stored else ()
    if len(shape) != 2:
        f.refuse(f"{name}: expected a table of rows and columns")
    return shape[0] if len(shape) == 2 else 1


def _tensors(
    f: Foreign, stored: Mapping[str, StoredTensor], source_rows: int, target_rows: int
) -> dict[str, MarianTensor]:
    """Returns the tensors as they lie in other families, all tables with the same number of rows.

    That is one more than Marian's larger one has: the last row begins the decoder's input.
    """
    found, rows = {}, max(source_rows, target_rows) + 1
    for name, x in stored.items():
        if name == _BIAS:
            x = x._replace(shape=(math.prod(x.shape),))
        if name == _OLD_OUTPUT:
            found[_OUTPUT] = MarianTensor(x, transposed=True, rows=rows)
        elif name in (*_TABLES, _BIAS):
            found[name] = MarianTensor(x, rows=rows, fill=_NEVER if name == _BIAS else 0.0)
        else:
            found[name] = MarianTensor(x, transposed=len(x.shape) == 2 and x.shape[0] > 1)
    for name, own in found.items():
        expected = source_rows if name == "encoder_Wemb" else target_rows
        if own.rows and own.own_shape[:1] != (expected,):
            f.refuse(f"{name}: has shape {list(own.own_shape)}, its vocabulary {expected} rows")
    return found


def _search(f: Foreign) -> dict[str, Any]:
    """Returns fields of `DecodeConfig`: Marian divides by length ** normalize, as Hugging Face does."""
    return dict(
        beam_size=f.number("beam-size", default=12, most=1 << 10),
        length_penalty=f.number("normalize", default=0.0, kind=float),
        rules="huggingface",
    )
