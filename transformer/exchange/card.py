"""README.md of an exported model: what the user says of it, and what its run has recorded; nothing else."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformer.config import Config
from transformer.inference.model_directory import LoadedModel
from transformer.io.metrics_file import NAME, read_metrics
from transformer.model.size import count_parameters

_SCORES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
}


class Said(NamedTuple):
    """What only the user can say.

    Attributes:
      languages: codes, for example ("en", "de").
      licence: as the Hub names it, for example "cc-by-4.0"; empty: not said.
      datasets: names on the Hub, or titles.
      base_model: that this one was trained from; empty: none.
    """

    languages: tuple[str, ...] = ()
    licence: str = ""
    datasets: tuple[str, ...] = ()
    base_model: str = ""


def model_card(model: Path, title: str, loaded: LoadedModel, said: Said, use: str) -> str:
    """Returns the card, with the block that the Hub reads in front (YAML, its values written as JSON).

    Args:
      model: folder of the run, for what it has recorded.
      title: of the model.
      loaded: from that folder.
      said: by the user.
      use: how the exported folder is loaded, as lines of code.
    """
    records = read_metrics(model) if (model / NAME).exists() else []
    tests = [r for r in records if r["split"] == "test" and r["step"] == loaded.step]
    named = _tested(tests[-1], loaded) if tests else {}
    block = {
        "language": list(said.languages),
        "license": said.licence,
        "library_name": "transformers" if "transformers" in use else "",
        "pipeline_tag": _task(loaded.config),
        "datasets": list(said.datasets),
        "base_model": said.base_model,
        "model-index": [_index(title, named, task)] if named and (task := _task(loaded.config)) else [],
    }
    lines = ["---", *(f"{key}: {_json(value)}" for key, value in block.items() if value), "---", ""]
    lines += [f"# {title}", "", *_what(loaded), "", "```", *use.splitlines(), "```"]
    if named:
        lines += ["", "## Scores", "", "| test set | metric | score | signature |", "|---|---|---|---|"]
        for name, scores in named.items():
            for key, shown in _shown(scores):
                signature = _signature(scores, key).replace("|", r"\|")  # a bar ends a cell
                cell = f" `{signature}` |" if signature else " |"
                lines.append(f"| {name} | {shown} | {scores[key]:.2f} |{cell}")
    if cost := _cost(records, loaded.step):
        lines += ["", "## Training", "", *cost]
    return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _what(loaded: LoadedModel) -> list[str]:
    m, count = loaded.config.model, count_parameters(loaded.model)["total"]
    title = {
        "encoder_decoder": "Encoder-decoder Transformer",
        "decoder_only": "Transformer decoder",
        "encoder_only": "Transformer encoder",
    }[m.kind]
    target = "labels" if loaded.tokenizer.labels else "pieces"
    sides = f"vocabularies of {loaded.model.source_vocab:,} and {loaded.model.target_vocab:,} {target}"
    if m.source_features:
        sides = (
            f"frames of {m.source_features:,} numbers, a vocabulary of {loaded.model.target_vocab:,} pieces"
        )
    return [
        f"{title}: {count:,} parameters, d_model {m.d_model}, {m.num_heads} heads, d_ff "
        f"{m.d_ff}, {' + '.join(map(str, m.stacks.values()))} layers, {m.norm}-norm, {sides}."
    ]


def _task(config: Config) -> str:
    """Returns what the Hub calls it; nothing where that depends on what frames are of."""
    if config.model.source_features:
        return ""
    if config.model.kind != "encoder_only":
        return "translation" if config.model.reads_source else "text-generation"
    tasks = {"none": "fill-mask", "line": "text-classification", "word": "token-classification"}
    return tasks[config.data.labels]


def _shown(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the scores that there are, and what they are called."""
    yield from ((key, shown) for key, shown in _SCORES.items() if key in scores)


def _signature(scores: Mapping[str, Any], key: str) -> str:
    """Returns how a score was computed: its own signature, or that of all; empty where there is none."""
    return str(scores.get(f"{key}_signature", scores.get("signature", "")))


def _tested(record: Mapping[str, Any], loaded: LoadedModel) -> dict[str, Mapping[str, Any]]:
    """Returns the scores of each test set that the run has evaluated with these parameters."""
    if "sets" in record:
        return dict(record["sets"])
    data = loaded.config.data
    titles = {"cldr": "Unicode CLDR, held-out lines", "tfds": data.tfds_name, "tsv": data.test_tsv}
    return {titles.get(data.kind) or ", ".join(data.test_source or data.test_target) or "test": record}


def _index(title: str, named: Mapping[str, Mapping[str, Any]], task: str) -> dict[str, Any]:
    """Returns the scores as the Hub lists them."""
    results = [
        {
            "task": {"type": task},
            "dataset": {"name": name, "type": name},
            "metrics": [
                {
                    "type": key,
                    "value": round(scores[key], 2),
                    "name": f"{shown} {_signature(scores, key)}".rstrip(),
                }
                for key, shown in _shown(scores)
            ],
        }
        for name, scores in named.items()
    ]
    return {"name": title, "results": results}


def _cost(records: list[dict[str, Any]], step: int) -> list[str]:
    """Returns what training took, from the steps that were logged."""
    logged = [r for r in records if r["split"] == "train" and r["step"] <= step]
    lines = []
    for record in records:
        if record["split"] == "data":
            pairs = {name: facts["kept"] for name, facts in record.items() if name.startswith("train ")}
            lines += [f"{name.removeprefix('train ')}: {count:,} pairs." for name, count in pairs.items()]
    if logged:
        source, target = (
            sum(r[f"{side}_tokens"] for r in logged) / len(logged) * step for side in ("source", "target")
        )
        each = [(r["source_tokens"] + r["target_tokens"]) / r["tokens_per_second"] for r in logged]
        lines.append(
            f"{step:,} steps; by the {len(logged):,} that were logged, about {source:,.0f} source and "
            f"{target:,.0f} target tokens, {sum(each) / len(each) * step / 3600:.2f} hours of steps."
        )
    return lines
