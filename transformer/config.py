"""Every default and unit of a run, as frozen dataclasses; the only home of a default.

Recipes (`configs/*.py`) build an `ml_collections.ConfigDict` with `default_config()`, the command
line overrides it, and `config_mapping.from_config_dict()` turns it into a `Config` once. Nothing below
that sees a ConfigDict.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Literal

from ml_collections import ConfigDict, config_dict

Dtype = Literal["float32", "bfloat16"]
Kind = Literal["encoder_decoder", "decoder_only", "encoder_only"]
Labels = Literal["none", "line", "word"]
# See model/positions.py. Sinusoids and learned ones are added to embeddings; relative (biases of distances),
# shaw (vectors of distances), alibi and rotary belong to self-attention.
Positions = Literal[
    "sinusoidal",
    "sinusoidal_split",
    "sinusoidal_halves",
    "learned",
    "relative",
    "shaw",
    "alibi",
    "rotary",
    "none",
]
# See model/local.py and model/compressed.py. The last two are the encoder's, the decoder's is full.
Attention = Literal["full", "window", "block", "compressed", "alternating"]
AttentionScore = Literal["dot_product", "general", "additive"]  # see model/scoring.py
# Those of Hugging Face by the value of its early_stopping: False, True, "never".
SearchRules = Literal["paper", "huggingface", "huggingface_early", "huggingface_never"]

# Paper, table 3. "base" is the defaults of ModelConfig; the others say what differs.
PRESETS: Mapping[str, Mapping[str, int | float]] = types.MappingProxyType(
    {
        "tiny": dict(
            d_model=128, d_ff=256, num_heads=4, num_encoder_layers=4, num_decoder_layers=4, dropout_rate=0.3
        ),
        "small": dict(d_model=256, d_ff=1024, num_heads=4, num_encoder_layers=3, num_decoder_layers=3),
        "base": dict(),
        "big": dict(d_model=1024, d_ff=4096, num_heads=16, dropout_rate=0.3),
    }
)
# Sections whose settings are those of `init.model`, if there is one.
BASE_SECTIONS = ("model", "tokenizer", "decode")
PRESET_SIZES = ("d_model", "d_ff", "num_heads", "num_encoder_layers", "num_decoder_layers", "dropout_rate")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and choices of the Transformer (paper, section 3).

    The six sizes of a preset may be overridden one by one. Vocabulary sizes are the tokenizer's
    and reach the model with it, so they are not repeated here.
    """

    preset: Literal["tiny", "small", "base", "big"] = "base"
    kind: Kind = "encoder_decoder"  # or language models; masked ones and classifiers
    source_features: int = 0  # numbers of a frame, where sources are such vectors; 0: sources are tokens
    # decoder_only: what stands before each target, and sees itself from left to right or in both directions.
    prefix: Literal["none", "causal", "bidirectional"] = "none"
    d_model: int = 512
    d_ff: int = 2048
    num_heads: int = 8
    num_kv_heads: int = 0  # heads of keys and values, each shared by a group of query heads; 0: num_heads
    head_size: int = 0  # of queries, keys and values; 0: d_model / num_heads, as the paper
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6  # encoder_only has none
    # fixed: one layer, as often as there would be layers; adaptive: and a position keeps its state once it
    # halts, though all steps are computed (Universal Transformer, Dehghani et al. 2019).
    recurrence: Literal["none", "fixed", "adaptive"] = "none"
    dropout_rate: float = 0.1  # sub-layer outputs, and embeddings with positions (without, if layers recur)
    attention_dropout_rate: float = 0.0  # on attention weights; not in the paper
    activation_dropout_rate: float = 0.0  # after the feed-forward activation; not in the paper
    max_length: int = 256  # tokens with the end mark; longer pairs are left out, longer inputs split
    norm: Literal["post", "pre"] = "post"  # post: LayerNorm(x + Dropout(Sublayer(x))), as the paper
    norm_type: Literal["layer", "rms"] = "layer"  # rms: neither mean nor bias (Zhang and Sennrich 2019)
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False  # a norm on sums of embeddings and positions (BART)
    activation: Literal["relu", "gelu", "gelu_tanh", "swish"] = "relu"
    gated_feed_forward: bool = False  # activation(x W) * (x V), for example GEGLU (Shazeer 2020)
    feed_forward_bias: bool = True  # b_1 and b_2 of equation 2
    positions: Positions = "sinusoidal"
    position_offset: int = 0  # number of a sentence's first position (BART 2)
    relative_buckets: int = 32  # relative: classes of distances, each with a bias (Raffel et al. 2020)
    relative_max_distance: int = 128  # relative, shaw: farther ones are as this one (Shaw et al. 2018: 16)
    relative_shared: bool = True  # relative: one table a stack; false: one a layer (UMT5)
    tied_embeddings: Literal["all", "target", "inputs", "none"] = "all"  # which tables are one (3.4)
    scale_embeddings: bool = True  # times sqrt(d_model) (3.4)
    attention_score: AttentionScore = "dot_product"
    # Of self-attention. window, block: what is near; compressed: all, several positions as one key;
    # alternating: the encoder's layers 1, 3, ... are window, the others compressed (Liu et al. 2018).
    attention: Attention = "full"
    compression: int = 3  # compressed: positions that become one key and value
    attention_radius: int = 64  # window: farthest distance seen; block: size of a block, two seen around it
    global_tokens: int = 0  # window, block: first source tokens, which see all of it and are seen by all
    scale_queries: bool = True  # scores over sqrt(head size) (equation 1); additive ones never are
    scale_logits: bool = False  # over sqrt(d_model) (T5 with a tied output)
    logits_bias: bool = False  # one number a target piece (Marian, BART)
    attention_implementation: Literal["xla", "cudnn"] = "xla"  # cudnn: fused, for NVIDIA GPUs
    attention_bias: bool = False  # the paper's projections W^Q, W^K, W^V, W^O have none
    dtype: Dtype = "float32"  # of computation
    param_dtype: Dtype = "float32"  # of parameters
    remat: bool = False  # layers again in the backward pass: less memory, more time; CPU: with scan_layers
    # Positions whose hidden vectors in feed-forward networks, and whose scores with compressed keys, exist at
    # one time; they are computed again in the backward pass. 0: all.
    chunk_length: int = 0
    scan_layers: bool = False  # one compiled layer looped over: compiles faster, runs a little slower

    def of_layer(self, depth: int) -> "ModelConfig":
        """Returns the configuration of an encoder layer, counted from 0, where layers differ."""
        if self.attention != "alternating":
            return self
        return dataclasses.replace(self, attention="compressed" if depth % 2 else "window")

    @property
    def stacks(self) -> dict[str, int]:
        """Number of layers of each stack that a model of this kind has."""
        layers = {"encoder": self.num_encoder_layers, "decoder": self.num_decoder_layers}
        return layers if self.kind == "encoder_decoder" else {(one := self.kind[:7]): layers[one]}

    @property
    def kv_heads(self) -> int:
        """G, the heads of keys and values: as many as of queries, one (multi-query), or between (grouped)."""
        return self.num_kv_heads or self.num_heads

    @property
    def key_size(self) -> int:
        """K, the size of each head's queries, keys and values."""
        return self.head_size or self.d_model // self.num_heads

    @property
    def reads_source(self) -> bool:
        """Whether there are sources: only a language model without a prefix knows of none."""
        return self.kind != "decoder_only" or self.prefix != "none"

    @property
    def num_positions(self) -> int:
        """The most positions of one sequence: of a source, a target, or both one after the other."""
        return self.max_length * (1 if self.prefix == "none" else 2)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """SentencePiece model, trained by `train` when the workdir has none."""

    model_type: Literal["unigram", "bpe", "word", "char"] = "unigram"
    vocab_size: int = 8000  # pieces, special ones included; of each side if not joint
    joint: bool = True  # one model for both sides
    normalization: Literal["identity", "nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf"] = "identity"
    remove_extra_whitespaces: bool = False
    split_digits: bool = False
    byte_fallback: bool = False  # unknown characters as UTF-8 bytes
    character_coverage: float = 1.0
    max_training_lines: int = 2_000_000  # lines a side, drawn evenly from the corpus


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where sentence pairs come from and how they become batches."""

    kind: Literal["text", "lines", "tsv", "tfds", "cldr", "trees", "frames"] = "text"
    root: str = ""  # folder that relative paths start from; empty: the current one
    train_source: tuple[str, ...] = ()  # text: one file or several, plain or .gz; trees: both; frames: .npy
    train_target: tuple[str, ...] = ()  # lines: the only side
    train_weights: tuple[float, ...] = ()  # share of each pair of files; empty: by their lines
    dev_source: tuple[str, ...] = ()
    dev_target: tuple[str, ...] = ()
    test_source: tuple[str, ...] = ()
    test_target: tuple[str, ...] = ()
    holdout_lines: int = 0  # dev pairs taken out of train when no dev set is given
    train_tsv: str = ""  # tsv: one file a split
    dev_tsv: str = ""
    test_tsv: str = ""
    tsv_columns: tuple[int, ...] = (0, 1)  # source, target; counted from 0
    tfds_name: str = ""  # tfds: for example "wmt14_translate/de-en"
    tfds_dir: str = ""  # folder of prepared (array_record) datasets
    tfds_splits: tuple[str, ...] = ("train", "validation", "test")
    source_language: str = "en"  # tfds: the feature; cldr: the locale
    target_language: str = "de"
    cldr_pairs: int = 45_000  # cldr: training pairs to generate
    cldr_seed: int = 0
    tree_tags: bool = False  # trees: write each word's tag; false: XX, but for punctuation
    invalid_utf8: Literal["error", "skip"] = "error"
    labels: Labels = "none"  # encoder_only: targets are a label a line, or one a word; none: mask pieces
    mask_rate: float = 0.15  # encoder_only without labels: share of the pieces that are asked for
    max_ratio: float = 0.0  # drop pairs whose token lengths differ by more than this factor; 0: keep
    subword_dropout: float = 0.0  # probability that a training piece falls into its two parts
    subword_dropout_epochs: int = 0  # from then on pieces stay whole, as they are in use; 0: to the end
    seed: int = 0  # order of the training pairs
    packing: bool = True  # several pairs a row; false: buckets by length
    batch_tokens: int = 4096  # target positions in one optimizer step, over all devices
    row_length: int = 0  # positions in a packed row; 0: model.max_length
    # Longest target, and target positions of a batch, in tokens, where targets are far shorter than sources
    # (summaries); batch_tokens then counts source positions. 0: as sources.
    target_length: int = 0
    packing_bins: int = 512  # rows that first-fit packing fills at once
    buckets: tuple[int, ...] = ()  # upper lengths when not packing; empty: powers of two
    workers: int = 0  # processes that read and pack ahead, for devices too fast for a thread (0)

    @property
    def has_sources(self) -> bool:
        """Whether there are sources, or targets alone."""
        return self.kind != "lines"


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Loss, optimizer and learning-rate schedule (paper, sections 5.3 and 5.4)."""

    name: Literal["adam", "adamw", "adafactor", "lion"] = "adam"
    learning_rate: float = 0.0  # peak; 0: the paper's (d_model * warmup_steps) ** -0.5
    schedule: Literal["inverse_sqrt", "cosine", "linear", "wsd", "constant"] = "inverse_sqrt"
    warmup_steps: int = 4000
    decay_fraction: float = 0.2  # wsd: last part of the run in which the rate falls
    end_ratio: float = 0.0  # cosine, linear, wsd: last rate over peak rate
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.0  # adamw and lion; on kernels and embeddings only
    clip_norm: float = 0.0  # largest global gradient norm; 0: no clipping
    accumulation_steps: int = 1  # parts that a step's batch is computed in
    freeze: str = ""  # regular expression: parameters whose path has it are not trained
    ema_decay: float = 0.0  # moving average of the weights, used to evaluate and translate; 0: none
    ponder_weight: float = 0.01  # adaptive recurrence: nats that a step of a position costs
    random_offset: int = 0  # training: rows begin at a place drawn from 0 to this (Dehghani et al. 2019)
    label_smoothing: float = 0.1
    loss_chunk: int = 512  # tokens whose logits exist at one time


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Search (paper, section 6.1)."""

    beam_size: int = 4  # 1 is greedy
    length_penalty: float = 0.6  # alpha of ((5 + length) / 6) ** alpha, where `rules` is "paper"
    rules: SearchRules = "paper"  # of other libraries: length ** alpha, and when to stop
    max_extra_length: int = 50  # longest output: input length + this, in tokens
    length_limit: int = 0  # longest output whatever the input, in tokens (summaries); 0: no other limit
    min_length: int = 0  # shortest output, in tokens with the end mark; 0: an end mark may come at once
    no_repeat_ngram_size: int = 0  # no output has so many tokens in a row twice; 0: it may
    temperature: float = 0.0  # above 0: sample instead of searching
    top_k: int = 0  # sampling: only the k likeliest pieces; 0: all
    top_p: float = 1.0  # sampling: only the likeliest pieces of this total probability
    seed: int = 0  # sampling
    batch_size: int = 64  # sentences


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """Parameters that a new run starts from; see docs/finetuning.md.

    Where `model` is given, the sections `model`, `tokenizer` and `decode` are that model's, but for what
    may change when a run is continued, and for what the command line sets.
    """

    model: str = ""  # folder of a run, an average or an import; empty: random, by run.init_seed
    checkpoint: str = "best"  # of that folder: best, last, or a step
    include: str = ""  # regular expression: only parameters whose path has it are taken; empty: all
    exclude: str = ""  # regular expression: these are not
    vocabulary: Literal["base", "transplant"] = "base"  # transplant: another tokenizer, rows made of old ones
    source_language: str = ""  # another one than the base was imported for; a code it has not is added
    target_language: str = ""
    language_like: str = ""  # whose row an added language begins with; empty: the mean of all languages
    optimizer: bool = False  # the moments of its optimizer are taken, too; the schedule begins anew


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters, trained and saved instead of the parameters of `init.model` (Hu et al. 2021)."""

    rank: int = 0  # 0: none
    alpha: float = 16.0  # adapters are multiplied by alpha / rank
    targets: str = "(query|key|value|out|wi|wi_linear|wo)/kernel$"  # regular expression of their paths


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one may be -1: all that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1  # positions of the source, in the encoder (docs/long_input.md)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Length, evaluation, checkpoints and logging of a training run."""

    num_steps: int = 100_000  # optimizer steps
    eval_every: int = 1000  # steps; the last step is always evaluated
    save_every: int = 1000  # steps; evaluated steps are always saved
    log_every: int = 50  # steps between lines of metrics.jsonl
    eval_lines: int = 1000  # dev lines translated for BLEU and chrF; 0: none, -1: all
    bleu_tokenize: Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"] = "13a"
    keep_latest: int = 2  # checkpoints
    keep_best: int = 1  # checkpoints
    best_metric: Literal["bleu", "chrf", "exact_match", "accuracy", "nll"] = "bleu"
    max_skipped: int = 10  # updates in a row that may be skipped as not finite before going back
    spike_factor: float = 0.0  # go back when the loss is above this many times its mean; 0: never
    max_rollbacks: int = 3  # returns to the last checkpoint before the run ends as diverged
    replica_check_every: int = 1000  # steps; devices' copies are compared, before saves too; 0: never
    max_compilations: int = 32  # shapes of batches, each compiled once, before the run is stopped
    patience: int = 0  # evaluations without a better best_metric before stopping; 0: never stop
    init_seed: int = 0
    dropout_seed: int = 0
    dropout_prng: Literal["threefry2x32", "rbg"] = "threefry2x32"  # rbg: faster on TPUs, bits depend on mesh


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    init: InitConfig = InitConfig()
    lora: LoraConfig = LoraConfig()
    decode: DecodeConfig = DecodeConfig()
    mesh: MeshConfig = MeshConfig()
    run: RunConfig = RunConfig()

    @property
    def is_masked(self) -> bool:
        """Whether pieces are masked and asked for, so that sources alone are read."""
        return self.model.kind == "encoder_only" and self.data.labels == "none"

    @property
    def row_length(self) -> int:
        """Positions of a packed row, source and target each."""
        return self.data.row_length or self.model.max_length

    @property
    def target_length(self) -> int:
        """Tokens of the longest target."""
        return self.data.target_length or self.model.max_length


def default_config() -> ConfigDict:
    """Returns the defaults as a ConfigDict in which the preset's sizes are still open (None)."""
    config = ConfigDict(dataclasses.asdict(Config()))
    for name in PRESET_SIZES:
        config.model[name] = config_dict.placeholder(type(config.model[name]))
    return config.lock()
