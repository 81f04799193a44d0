"""Small models of transformers and real SentencePiece models, as `save_pretrained` writes them."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm

_TEXT = (
    "der hund läuft über hundert lange wege und quert bäche zwischen jungen tannen vor dem kleinen ort "
    "the dog runs along a road of ten miles which crosses every valley behind our quiet village"
)
WORDS = _TEXT.split()
STEPS = 350  # of training


def sentences(count: int, seed: int) -> list[str]:
    """Returns random lines of 1 to 8 words, some with characters that no vocabulary has."""
    rng = np.random.default_rng(seed)
    lines = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]
    return [line + " ☃" if i % 10 == 0 else line for i, line in enumerate(lines)]


def sentencepiece_model(size: int, seed: int, **options: Any) -> bytes:
    """Returns a unigram model trained on random sentences."""
    model = io.BytesIO()
    lines = iter(sentences(400, seed))
    spm.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=size, num_threads=1, minloglevel=2, **options
    )
    return model.getvalue()


def pieces_of(model: bytes) -> list[str]:
    """Returns the pieces of a model in its order, without its special ones."""
    processor = spm.SentencePieceProcessor(model_proto=model)
    ids = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids if not (processor.is_control(i) or processor.is_unknown(i))]


def taught(model: Any, batches: Any, pad: int, start: int) -> Any:
    """Trains a few steps, so that outputs differ and come to an end; each parameter is random before.

    Args:
      model: of transformers.
      batches: (source ids, target ids), both lists of lists, the targets with their end mark.
      pad: fills sources up.
      start: begins the decoder's input.
    """
    import torch

    torch.manual_seed(5)
    with torch.no_grad():
        learned = {name: x for name, x in model.named_parameters() if x.requires_grad}
        for name, x in learned.items():
            x.add_(torch.randn_like(x) * (0.02 if x.ndim > 1 or "norm" in name else 0.1))
    optimizer = torch.optim.Adam(learned.values(), lr=4e-3)
    model.train()
    for sources, targets in batches:
        src, tgt = (
            torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in side], True, fill)
            for side, fill in ((sources, pad), (targets, -100))
        )
        inputs = torch.cat([torch.full_like(tgt[:, :1], start), tgt[:, :-1].clamp(min=0)], dim=1)
        loss = model(input_ids=src, attention_mask=src != pad, decoder_input_ids=inputs, labels=tgt).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def copies(
    first: int,
    last: int,
    before: tuple,
    after: tuple,
    target: tuple = (),
    end: tuple = (),
    steps: int = STEPS,
) -> list:
    """Returns batches of random ids from `first` to below `last`, and the same as targets."""
    drawn = np.random.default_rng(0).integers(first, last, (steps, 16, 24))
    cut = [[list(row[: 3 + 7 * i % 22]) for i, row in enumerate(rows)] for rows in drawn]
    end = end or after
    return [([[*before, *x, *after] for x in rows], [[*target, *x, *end] for x in rows]) for rows in cut]


def save(model: Any, folder: Path) -> None:
    """Writes model and configuration; transformers' warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)


def marian(folder: Path, separate: bool = False, **changes: Any) -> Any:
    """Makes a Marian folder; returns the model."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir(parents=True, exist_ok=True)
    models = [sentencepiece_model(47, 0), sentencepiece_model(53, 1)]
    for name, content in zip(("source.spm", "target.spm"), models, strict=True):
        (folder / name).write_bytes(content)
    pieces = [pieces_of(content) for content in models]
    if not separate:
        pieces = [sorted({*pieces[0], *pieces[1]}, reverse=True)] * 2
    vocabularies = [["</s>", "<unk>", ">>deu<<", *side] for side in pieces]
    pad = max(map(len, vocabularies))
    for name, side in zip(("vocab.json", "target_vocab.json"), vocabularies, strict=True):
        ids = {piece: i for i, piece in enumerate(side)} | {"<pad>": pad}
        if separate or name == "vocab.json":
            (folder / name).write_text(json.dumps(ids))
    settings = {"separate_vocabs": separate, "source_lang": "eng", "target_lang": "deu"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = MarianConfig(
        **{
            "vocab_size": pad + 1,
            "decoder_vocab_size": pad + 1,
            "share_encoder_decoder_embeddings": not separate,
            "d_model": 24,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 3,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 37,
            "activation_function": "swish",
            "scale_embedding": True,
            "max_position_embeddings": 256,
            "pad_token_id": pad,
            "eos_token_id": 0,
            "decoder_start_token_id": pad,
            "forced_eos_token_id": 0,
            **changes,
        }
    )
    model = MarianMTModel(config)
    with torch.no_grad():
        model.final_logits_bias.copy_(torch.randn(1, pad + 1, generator=torch.Generator().manual_seed(4)))
    taught(model, copies(3, pad, (), (0,), steps=600), pad, pad)
    model.generation_config.bad_words_ids = [[pad]]
    save(model, folder)
    return model


SIZES = dict(
    d_model=24,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=37,
    decoder_ffn_dim=37,
    max_position_embeddings=128,
)


def m2m100(folder: Path) -> Any:
    """Makes an M2M100 folder from English to German; returns the model."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    content = sentencepiece_model(47, 0)
    (folder / "sentencepiece.bpe.model").write_bytes(content)
    ids = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces_of(content)[::-1]])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    settings = dict(src_lang="en", tgt_lang="de", tokenizer_class="M2M100Tokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = M2M100Config(vocab_size=len(ids) + 100 + 8, activation_function="relu", **SIZES)
    model = M2M100ForConditionalGeneration(config)
    en, de = len(ids) + 18, len(ids) + 16
    taught(model, copies(4, len(ids), (en,), (2,), (de,)), 1, 2)
    model.generation_config.forced_bos_token_id = de
    save(model, folder)
    return model


def fast_tokenizer(folder: Path, name: str, **languages: str) -> Any:
    """Writes a SentencePiece model and tokenizer.json of a class of transformers; returns its tokenizer."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    kind = dict(model_type="bpe") if name == "NllbTokenizer" else {}
    (folder / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(60 if kind else 47, 0, **kind))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **languages}))
    tokenizer = getattr(transformers, name).from_pretrained(folder)
    if kind:
        tokenizer.add_special_tokens({"extra_special_tokens": ["eng_Latn", "deu_Latn"]})
        tokenizer.src_lang, tokenizer.tgt_lang = "eng_Latn", "deu_Latn"
    tokenizer.save_pretrained(folder)
    return tokenizer


def nllb(folder: Path) -> Any:
    """Makes an NLLB folder from English to German; returns the model."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    tokenizer = fast_tokenizer(folder, "NllbTokenizer")
    en, de = tokenizer.convert_tokens_to_ids(["eng_Latn", "deu_Latn"])
    model = M2M100ForConditionalGeneration(M2M100Config(vocab_size=len(tokenizer) + 3, **SIZES))
    taught(model, copies(4, 60, (en,), (2,), (de,)), 1, 2)
    model.generation_config.forced_bos_token_id = de
    save(model, folder)
    return model


def mbart(folder: Path) -> Any:
    """Makes an mBART folder from English to German; returns the model."""
    from transformers import MBartConfig, MBartForConditionalGeneration

    tokenizer = fast_tokenizer(folder, "MBartTokenizer", src_lang="en_XX", tgt_lang="de_DE")
    en, de = tokenizer.convert_tokens_to_ids(["en_XX", "de_DE"])
    model = MBartForConditionalGeneration(MBartConfig(vocab_size=len(tokenizer) + 1, **SIZES))
    taught(model, copies(4, 46, (), (2, en), (), (2,)), 1, de)
    model.generation_config.decoder_start_token_id = de
    save(model, folder)
    return model


def bart(folder: Path, files: str = "tokenizer.json") -> Any:
    """Makes a BART folder; its tokenizer is in `files`: tokenizer.json, or vocab.json and merges.txt."""
    import tokenizers
    import torch
    from transformers import BartConfig, BartForConditionalGeneration, BartTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    trained = tokenizers.ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        sentences(400, 0), vocab_size=300, special_tokens=special, show_progress=False
    )
    trained.add_special_tokens(["<mask>"])
    if "vocab.json" in files:
        trained.save_model(str(folder))
        vocabulary = json.loads((folder / "vocab.json").read_text()) | {"<mask>": 300}
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
    else:
        vocabulary = trained.get_vocab(with_added_tokens=False)
        merges = json.loads(trained.to_str())["model"]["merges"]
        BartTokenizer(vocab=vocabulary, merges=[tuple(m) for m in merges]).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BartTokenizer"}))
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(vocab_size=303, **SIZES))
    taught(model, copies(4, 300, (0,), (2,), (0,)), 1, 2)
    model.generation_config.forced_bos_token_id = 0
    save(model, folder)
    return model


def byt5(folder: Path) -> Any:
    """Makes a ByT5 folder; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    settings = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    return taught_t5(folder, "T5", 384, (100, 126), untied=True, seed=0, **settings)  # a to z


def madlad(folder: Path) -> Any:
    """Makes a MADLAD-400 folder, whose lines begin with the target's language; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = dict(pad_id=-1, eos_id=2, unk_id=0, bos_id=1, user_defined_symbols=["<2de>", "<2en>"])
    (folder / "spiece.model").write_bytes(sentencepiece_model(53, 0, **kinds))
    tokens = dict(bos_token="<s>", eos_token="</s>", pad_token="<s>", unk_token="<unk>")
    more = dict(extra_ids=0, additional_special_tokens=["<2de>", "<2en>"], tokenizer_class="T5Tokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, **more}))
    settings = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, eos_token_id=2, pad_token_id=1)
    return taught_t5(folder, "T5", 53, (5, 53), (3,), untied=True, seed=0, **settings)


def t5(folder: Path, kind: str = "T5", untied: bool = False, **changes: Any) -> Any:
    """Makes a T5, mT5 or UMT5 folder; returns the model."""
    folder.mkdir(parents=True, exist_ok=True)
    content = sentencepiece_model(47, 0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / "spiece.model").write_bytes(content)
    settings = dict(tokenizer_class="T5Tokenizer", extra_ids=9)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return taught_t5(folder, kind, 61, (3, 47), untied=untied, **changes)


def taught_t5(
    folder: Path,
    kind: str,
    rows: int,
    ids: tuple[int, int],
    before: tuple = (),
    untied: bool = False,
    seed: int | None = None,
    **changes: Any,
) -> Any:
    """Saves a model of one of T5's classes that has learned to copy the `ids`; returns it."""
    import torch
    import transformers

    sizes = dict(d_model=20, d_kv=7, d_ff=37, num_layers=3, num_decoder_layers=2, num_heads=3)
    buckets = dict(relative_attention_num_buckets=8, relative_attention_max_distance=11)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=rows, **sizes, **buckets, decoder_start_token_id=0, **changes
    )
    if seed is not None:
        torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if untied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    pad, end = changes.get("pad_token_id", 0), changes.get("eos_token_id", 1)
    taught(model, copies(*ids, before, (end,), steps=900), pad, 0)
    save(model, folder)
    return model
