"""Is an exported model the same? Both are run, where the other library is installed, and compared."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.errors import CheckpointError
from transformer.inference.model_directory import LoadedModel
from transformer.inference.translator import Translator
from transformer.model.masks import shift_right

TRANSLATIONS = 100
_SCORED = 8  # lines whose log-probabilities are compared
_TOLERANCE = 1e-3  # nats; float32 on both sides differs by some 1e-6 times the size of logits

Ids = list[list[int]]


class Runtime(NamedTuple):
    """Another library with the exported model.

    Attributes:
      name: of the library.
      greedy: source ids and the longest output, all of one length each -> output ids.
      log_probs: source ids and target ids with their end mark -> log-probability of each target id.
      never: ids that it gives no probability at all.
      exact: whether it computes in float32; else differences are told, and are no error.
    """

    name: str
    greedy: Callable[[Ids, int], Ids]
    log_probs: Callable[[Ids, Ids], list[np.ndarray]]
    never: tuple[int, ...]
    exact: bool


def verify(loaded: LoadedModel, runtime: Runtime, lines: Sequence[str]) -> str:
    """Compares log-probabilities and greedy translations.

    Args:
      loaded: our model.
      runtime: the other one.
      lines: source text; empty: random pieces of the vocabulary.

    Returns:
      A line that tells what was compared.

    Raises:
      CheckpointError: if they differ although both compute in float32.
    """
    tokenizer, longest = loaded.tokenizer, loaded.config.model.max_length
    lines = [line for line in lines or _random_lines(loaded) if line.strip()][:TRANSLATIONS]
    sources = tokenizer.encode_source(lines)
    kept = [i for i, ids in enumerate(sources) if len(ids) <= longest // 2]  # tables of positions end there
    lines, sources = [lines[i] for i in kept], [sources[i] for i in kept]
    if not lines:
        raise CheckpointError(f"--verify: no line has {longest // 2} tokens or fewer; give shorter ones")
    extra = min(loaded.config.decode.max_extra_length, longest - max(map(len, sources)))
    # The models are compared: rules of the search, which others count in other ways, are off.
    rules = dict(length_limit=0, min_length=0, no_repeat_ngram_size=0)
    options: dict[str, Any] = dict(beam_size=1, temperature=0.0, max_extra_length=extra, **rules)
    ours = Translator.of(loaded).translate(lines, **options)
    theirs = _texts(loaded, runtime, sources, extra)
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    end = tokenizer.special.end
    targets = [[*ids[:-1][: longest - 1], end] for ids in tokenizer.encode_target(ours[:_SCORED])]
    found = runtime.log_probs(sources[:_SCORED], targets)
    expected = _log_probs(loaded, sources[:_SCORED], targets, runtime.never)
    far = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    told = (
        f"{same} of {len(lines)} greedy translations are {runtime.name}'s, "
        f"log-probabilities differ by at most {far:.1e}"
    )
    if runtime.exact and (same < len(lines) or not far <= _TOLERANCE):
        raise CheckpointError(f"the exported model is not the same: {told}; nothing was kept of it")
    return told


def _random_lines(loaded: LoadedModel) -> list[str]:
    draw, tokenizer = np.random.default_rng(0), loaded.tokenizer
    longest = max(2, min(20, loaded.config.model.max_length // 3))
    pieces = [piece for piece in tokenizer.source_vocabulary()[0] if piece]
    drawn = [draw.choice(pieces, draw.integers(1, longest)) for _ in range(TRANSLATIONS)]
    return ["".join(line).replace("▁", " ").strip() for line in drawn]


def _texts(loaded: LoadedModel, runtime: Runtime, sources: Ids, extra: int) -> list[str]:
    """Returns the other library's translations, in groups whose longest outputs are ours."""
    end, model = loaded.tokenizer.special.end, loaded.config.model
    outputs: Ids = [[] for _ in sources]
    for length in sorted(set(map(len, sources))):
        chosen = [i for i, ids in enumerate(sources) if len(ids) == length]
        limit = length + extra  # with the end mark, which is forced there
        if model.positions == "learned":
            limit = min(limit, model.max_length)
        for i, ids in zip(chosen, runtime.greedy([sources[i] for i in chosen], limit), strict=True):
            outputs[i] = (ids[: ids.index(end)] if end in ids else ids)[: limit - 1]
    return loaded.tokenizer.decode_target(outputs)


def _log_probs(loaded: LoadedModel, sources: Ids, targets: Ids, never: tuple[int, ...]) -> list[np.ndarray]:
    """Returns our log-probability of each target id, where ids of `never` have none."""
    special = loaded.tokenizer.special
    src_BS, seg_BS, place_BS = _padded(sources, special.pad)
    tgt_BT, tgt_seg_BT, place_BT = _padded(targets, special.pad)
    tgt_in_BT = shift_right(tgt_BT, place_BT, loaded.model.start_id)

    def apply(params: Any) -> jax.Array:
        inputs = src_BS, seg_BS, place_BS, tgt_in_BT, tgt_seg_BT, place_BT
        y_BTD = loaded.model.apply({"params": params}, *inputs)
        logits_BTV: Any = loaded.model.apply({"params": params}, y_BTD, method="logits")
        logits_BTV = logits_BTV.at[..., jnp.array(never, int)].set(-jnp.inf)
        return jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), tgt_BT[..., None], axis=-1)[..., 0]

    found = np.asarray(jax.jit(apply)(loaded.params))
    return [found[i, : len(ids)] for i, ids in enumerate(targets)]


def _padded(rows: Ids, pad: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns ids, segments and positions [B, T]."""
    longest = max(map(len, rows))
    ids = jnp.array([[*row, *[pad] * (longest - len(row))] for row in rows])
    segments = jnp.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, segments, jnp.broadcast_to(jnp.arange(longest), ids.shape)


def transformers_runtime(folder: Path, title: str, pad: int, start: int) -> Runtime | None:
    """Returns the model in `folder` as transformers runs it; None if that is not installed.

    Args:
      folder: that `export_hf` wrote.
      title: of the class.
      pad: fills sources up.
      start: begins the decoder's input.
    """
    try:
        import torch
        import transformers
    except ImportError:
        return None
    model = getattr(transformers, title).from_pretrained(folder, dtype=torch.float32).eval()

    def greedy(sources: Ids, limit: int) -> Ids:
        ids = torch.tensor(sources)
        options = dict(attention_mask=torch.ones_like(ids), num_beams=1, do_sample=False)
        options |= dict(min_length=0, min_new_tokens=None, no_repeat_ngram_size=0)
        with torch.no_grad():
            return model.generate(ids, max_new_tokens=limit, max_length=None, **options)[:, 1:].tolist()

    def log_probs(sources: Ids, targets: Ids) -> list[np.ndarray]:
        (src, seg, _), (tgt, _, _) = _padded(sources, pad), _padded(targets, pad)
        source, seen, target = (torch.tensor(np.asarray(x)).long() for x in (src, seg, tgt))
        inputs = torch.cat([torch.full_like(target[:, :1], start), target[:, :-1]], dim=1)
        with torch.no_grad():
            logits = model(input_ids=source, attention_mask=seen, decoder_input_ids=inputs).logits
        found = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0].numpy()
        return [found[i, : len(ids)] for i, ids in enumerate(targets)]

    return Runtime("transformers", greedy, log_probs, (), True)
