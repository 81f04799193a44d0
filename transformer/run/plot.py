"""Pictures of a run."""

from pathlib import Path

from transformer.data.corpus import open_corpora
from transformer.errors import ConfigError
from transformer.inference.attention_maps import attention_maps
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.inference.sentence_pair import sentence_pair
from transformer.io.metrics_file import read_metrics
from transformer.io.workdir import Workdir
from transformer.run.pictures import attention_heat_maps, learning_curve


def plot(model: str, source: str | None) -> list[Path]:
    """Draws learning_curve.png and attention.png into the folder of a run and prints their paths.

    Without both an encoder and a decoder there is no attention between them, and frames have no names to draw
    it with: the curve alone is drawn.

    Args:
      model: folder of the run.
      source: the sentence whose translation's attention is drawn; None takes a dev line of middling length.
    """
    root = Path(model)
    loaded = load_model(model)
    metrics, pictures = read_metrics(root), [root / "learning_curve.png"]
    c = loaded.config.model
    if (c.kind == "encoder_decoder" and not c.source_features) or source is not None:
        sentence = source if source is not None else _example(loaded, Workdir(root))
        cross = attention_maps(loaded, sentence_pair(loaded, sentence))["cross"]
        pictures.append(root / "attention.png")
        title = "Encoder-decoder attention, last layer"
        attention_heat_maps(cross.weights_LHTS, cross.keys, cross.queries, pictures[1], title)
    learning_curve(metrics, pictures[0])
    for picture in pictures:
        print(picture)
    return pictures


def _example(loaded: LoadedModel, workdir: Workdir) -> str:
    """Returns the first dev sentence of 10 to 20 pieces, or the shortest if there is none."""
    sources = [
        pair[0]
        for corpus in open_corpora(loaded.config.data, "dev", workdir.data)
        for pair in corpus
        if pair is not None
    ]
    if not sources:
        raise ConfigError("--source: the run has no dev set; give a sentence to draw")
    lengths = [len(ids) for ids in loaded.tokenizer.encode_source(sources)]
    fitting = [s for s, n in zip(sources, lengths, strict=True) if 10 <= n <= 20]
    return fitting[0] if fitting else min(sources, key=len)
