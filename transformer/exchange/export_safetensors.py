"""From a run to a small model directory of ours: parameters, tokenizer, configuration and a card."""

import dataclasses
from pathlib import Path

from transformer.config import InitConfig, LoraConfig
from transformer.exchange.card import Said, model_card
from transformer.exchange.folders import new_folder
from transformer.inference.model_directory import load_model
from transformer.io.origins import keep_origin
from transformer.io.weights import write_weights
from transformer.io.workdir import Workdir


def export_safetensors(model: str | Path, target: str | Path, checkpoint: str, said: Said) -> int:
    """Writes a folder that every verb takes as --model.

    Args:
      model: one of our model directories.
      target: the new folder: config.json, seal.json, model.safetensors, tokenizer/, README.md, the digest.
      checkpoint: "best", "last", or a step.
      said: for the card.

    Returns:
      The step that the parameters are from.

    Raises:
      CheckpointError: if there is no such model, or `target` is there already.
    """
    source, loaded = Workdir(model), load_model(model, checkpoint)
    optim = dataclasses.replace(loaded.config.optim, ema_decay=0.0)  # the mean itself is written
    config = dataclasses.replace(loaded.config, optim=optim, init=InitConfig(), lora=LoraConfig())
    with new_folder(target) as folder:
        written = Workdir(folder)
        write_weights(written.weights, loaded.params, loaded.step)
        loaded.tokenizer.save(written.tokenizer)
        written.seal(config, loaded.tokenizer.digest)
        written.save_config(config)
        keep_origin(source, written)
        name = Path(target).name
        verb = "classify" if loaded.tokenizer.labels else "translate"
        use = f"transformer {verb} --model {name}"
        if config.is_masked:
            use = f"transformer train --config FILE --workdir DIR --config.init.model={name}"
        card = model_card(source.root, name, loaded, said, use)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return loaded.step
