"""Builds small real TFDS datasets in array_record format, without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds


def build(
    root: Path,
    name: str,
    splits: Mapping[str, Sequence[tuple[str | bytes, str | bytes]]],
    *,
    languages: tuple[str, str] = ("en", "de"),
    version: str = "1.0.0",
    num_shards: int = 1,
) -> Path:
    """Prepares a translation dataset and returns its folder.

    Args:
      root: what `data.tfds_dir` is to name.
      name: "dataset" or "dataset/config".
      splits: pairs of each split; their order is kept.
      languages: features of the first and the second of a pair.
      version: three numbers.
      num_shards: files a split.
    """
    dataset, _, config = name.partition("/")

    class Sentences(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self) -> tfds.core.DatasetInfo:
            features = tfds.features.Translation(languages=languages)
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(pairs) for split, pairs in splits.items()}

        def _generate_examples(self, pairs):
            for key, pair in enumerate(pairs):
                yield key, dict(zip(languages, pair, strict=True))

    Sentences.name = dataset
    tfds.disable_progress_bar()
    builder = Sentences(data_dir=root, file_format="array_record")
    settings = tfds.download.DownloadConfig(num_shards=num_shards, try_download_gcs=False)
    builder.download_and_prepare(download_config=settings)
    return Path(builder.data_dir)
