"""What changes the training pairs of a run on their way into a batch."""

from transformer.config import Config
from transformer.data.masking import Masking
from transformer.data.pipeline import Augment
from transformer.data.subwords import SubwordDropout
from transformer.data.tokenizer import Tokenizer


def augmentation(config: Config, tokenizer: Tokenizer) -> Augment | None:
    """Returns what changes the training pairs; None if nothing does."""
    data = config.data
    if data.subword_dropout:
        epochs = data.subword_dropout_epochs
        return SubwordDropout(tokenizer, data.subword_dropout, config.model.max_length, epochs)
    return masking(config, tokenizer)


def masking(config: Config, tokenizer: Tokenizer) -> Masking | None:
    """Returns what masks pieces, of dev pairs too; None if the run is no masked language model."""
    return Masking(tokenizer, config.data.mask_rate) if config.is_masked else None
