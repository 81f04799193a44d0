"""Searches on a mesh of eight simulated devices and on one device; prints how far they are apart as JSON.

search_on_eight.py NAME...

Run by test_search.py in a process of its own: the number of devices is fixed when JAX starts.
"""

import dataclasses
import json
import sys
from typing import Any

import jax
from jax.sharding import NamedSharding
from unit.small_model import ALONE, make_model

from transformer.axes import param_specs
from transformer.config import MeshConfig
from transformer.inference.model_directory import LoadedModel
from transformer.inference.translator import Translation, Translator
from transformer.io.devices import make_mesh

LINES = [
    "ant bee",
    "",
    "cat dog eel fox. gnu",
    "hen",
    "bee bee. ant cat dog",
    "fox",
    "gnu hen ant",
    "eel",
    "dog",
]
WHOLE_ROWS: dict[str, Any] = {"data": {"packing": False}}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, {}),
    "window": ({}, dict(attention="window", attention_radius=2, positions="alibi")),
    "compressed": (WHOLE_ROWS, dict(attention="compressed", compression=2)),
    "additive": ({}, dict(attention_score="additive", positions="none", num_kv_heads=2)),
    "rotary": ({}, dict(positions="rotary", head_size=4)),
    "shaw": ({}, dict(positions="shaw", relative_max_distance=2)),
    "adaptive": ({}, dict(recurrence="adaptive", num_decoder_layers=3)),
    "alone": ({}, dict(ALONE, prefix="bidirectional")),
}
SEARCHES: dict[str, dict[str, Any]] = {
    "beam": {"beam_size": 3},
    "sampled": {"beam_size": 1, "temperature": 1.0, "seed": 3},
}


def outputs(loaded: LoadedModel, mesh: Any, options: dict[str, Any]) -> list[list[Translation]]:
    params = loaded.params
    if mesh is not None:
        params = jax.device_put(params, jax.tree.map(lambda s: NamedSharding(mesh, s), param_specs(params)))
    decode = dataclasses.replace(loaded.config.decode, batch_size=16)
    translator = Translator(loaded.model, params, loaded.tokenizer, decode, mesh)
    return translator.translate_n_best(LINES, options["beam_size"], **options)


def main(names: list[str]) -> None:
    report: dict[str, Any] = {"devices": jax.device_count()}
    for name in names:
        sections, changes = MODELS[name]
        loaded = make_model(sections, **changes)
        for search, options in SEARCHES.items():
            alone, mesh = outputs(loaded, None, options), make_mesh(MeshConfig(2, 2, 2))
            with jax.set_mesh(mesh):
                found = outputs(loaded, mesh, options)
            pairs = [pair for lines in zip(found, alone, strict=True) for pair in zip(*lines, strict=True)]
            report[f"{name} {search}"] = {
                "outputs": len({a.text for _, a in pairs}),
                "others": sum(f.text != a.text for f, a in pairs),
                "apart": max(abs(f.log_prob - a.log_prob) for f, a in pairs),
            }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
