"""Small tokenizers of the kinds that language models have, built in code."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from cupola.text.tokenizer import BYTE_OF_CHARACTER

SPECIAL = "<|end|>"
PLAIN_ADDED = "<tool call>"  # an added token that is text


def byte_level() -> HfTokenizer:
    """GPT-2's kind: characters that stand for bytes, and a few merges, one of which ends within a character."""
    merges = [("h", "e"), ("l", "l"), ("Ġ", "a"), ("Ã", "¤"), ("ð", "Ł"), ("Ġ", "Ġ")]
    vocab = dict(BYTE_OF_CHARACTER)
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = HfTokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_added(tokenizer)


def byte_fallback() -> HfTokenizer:
    """SentencePiece's kind, as Llama 2 has it: a mark for spaces, bytes for what is not in the vocabulary."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += ["▁", "▁▁", "a", "b", "c", "é", "▁a", "ab", "▁the", "日", "日本", "\n", "<0xZZ>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [("▁", "▁"), ("▁", "a"), ("a", "b")]
    tokenizer = HfTokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _with_added(tokenizer)


def metaspace(prepend_scheme: str) -> HfTokenizer:
    """The Metaspace kind, as T5 and early Mistral conversions have it."""
    tokens = ["▁", "▁▁", "a", "b", "▁a", "▁b▁", "b▁", "é", "ab"]
    tokenizer = HfTokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    return _with_added(tokenizer)


def with_decoder(decoder: decoders.Decoder | None) -> HfTokenizer:
    """A tokenizer with some other decoder."""
    tokenizer = HfTokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    if decoder is not None:
        tokenizer.decoder = decoder
    return tokenizer


UNSUPPORTED = {
    "none": None,
    "CTC": decoders.CTC(),
    "BPEDecoder": decoders.BPEDecoder(),
    "Strip": decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]),
    "Replace": decoders.Sequence([decoders.Replace(Regex("▁+"), " "), decoders.Fuse()]),
}


def _with_added(tokenizer: HfTokenizer) -> HfTokenizer:
    tokenizer.add_special_tokens([AddedToken(SPECIAL, special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(PLAIN_ADDED, normalized=False)])
    return tokenizer
