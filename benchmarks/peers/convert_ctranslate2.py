"""Converts the weights that `bridge.py weights` wrote into a model of CTranslate2."""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ctranslate2.converters.transformers import MarianMTLoader
from feed import BOS_ID, EOS_ID, UNK_ID
from marian import load_model


class Loader(MarianMTLoader):
    """Converts a Marian model whose decoder starts from a piece's embedding and whose padding is id 0."""

    def set_decoder(self, spec: Any, decoder: Any) -> None:
        super().set_decoder(spec, decoder)
        spec.start_from_zero_embedding = False

    def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
        super().set_config(config, model, tokenizer)
        config.decoder_start_token = str(BOS_ID)

    def get_vocabulary(self, model: Any, tokenizer: Any) -> list[str]:
        return [str(i) for i in range(model.config.vocab_size)]  # a piece's name is its number

    def _remove_pad_weights(self, spec: Any) -> None:
        """Removes nothing: the last row is a piece like others."""


def main() -> None:
    """Reads the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True, help=".npz that bridge.py wrote")
    parser.add_argument("--compute_type", choices=("float32", "int8"), default="float32")
    parser.add_argument("--output", required=True, help="folder to make")
    args = parser.parse_args()
    names = SimpleNamespace(eos_token=str(EOS_ID), unk_token=str(UNK_ID), bos_token=str(BOS_ID))
    spec = Loader()(load_model(args.weights), names)
    spec.validate()
    spec.optimize(quantization=args.compute_type)
    Path(args.output).mkdir(parents=True, exist_ok=True)
    spec.save(args.output)


if __name__ == "__main__":
    main()
