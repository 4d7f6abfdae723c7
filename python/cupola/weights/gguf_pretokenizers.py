r"""How each pre-tokenizer that GGUF files name cuts text into words, before byte-pair merges work within them.

Owns the table from `tokenizer.ggml.pre` to rules. A rule is a sequence of regular expressions: each cuts what the ones
before it left whole, and both the matches and the text between them are words. The names and rules are those of
llama.cpp, which gives GGUF its meaning; where llama.cpp only approximates a model's rule, for want of \p{Lu} and its
like in its regular expressions (tekken, gpt-4o), the table has the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

from cupola.errors import UnsupportedError

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_CONTRACTION = r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_QWEN2 = "|".join((_CONTRACTION, _WORDS, r"\p{N}", _SYMBOLS, _SPACES))
_LLAMA3 = "|".join((_CONTRACTION, _WORDS, r"\p{N}{1,3}", _SYMBOLS, _SPACES))
_QWEN35 = "|".join(
    (_CONTRACTION, r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+", r"\p{N}", r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*", _SPACES)
)
_SEED = "|".join((_CONTRACTION, _WORDS, r"\p{N}", r" ?[^\s\p{L}\p{N}\r\n]+", _SPACES))
_BAILING = "|".join((_CONTRACTION, _WORDS, r"\p{N}", _SYMBOLS, r"\s*[\r\n]|\s+(?!\S)|\s+"))
_MINICPM5 = "|".join((_CONTRACTION, _WORDS, r"\p{N}+", _SYMBOLS, _SPACES))
_DEEPSEEK3 = "|".join(
    (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
        r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
        r" ?[\p{P}\p{S}]+[\r\n]*",
        _SPACES,
    )
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SYMBOLS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = "|".join((*_CASED, r"\p{N}", _SYMBOLS_AND_SLASHES, _SPACES))
_GPT4O = "|".join((*(f"{part}(?:{_CONTRACTION})?" for part in _CASED), r"\p{N}{1,3}", _SYMBOLS_AND_SLASHES, _SPACES))
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The rule of one name.

    Args:
        patterns: regular expressions, applied one after the other.
        ignore_merges: a word that is a token as a whole is that token, whatever the merges say.
        add_bos: prompts start with the beginning-of-sequence token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The rule for the `tokenizers` library; words come out in GPT-2's alphabet of bytes."""
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def pre_tokenizer(name: str) -> PreTokenizer:
    """The rule that `tokenizer.ggml.pre` names.

    Raises:
        UnsupportedError: no rule of that name is known.
    """
    try:
        return PRE_TOKENIZERS[name]
    except KeyError:
        raise UnsupportedError(
            f"the pre-tokenizer {name!r} (tokenizer.ggml.pre) is unknown",
            hint=f"Cupola knows {', '.join(sorted(PRE_TOKENIZERS))}; or use the model's Hugging Face folder.",
        ) from None


def _table() -> dict[str, PreTokenizer]:
    rules = {
        "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion granite-docling exaone4": PreTokenizer((_GPT2,)),
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": PreTokenizer((_DIGIT, _GPT2)),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": PreTokenizer((_LLAMA3,), True, True),
        "dbrx smaug-bpe chatglm-bpe": PreTokenizer((_LLAMA3,)),
        "glm4 glm5": PreTokenizer((_LLAMA3,), ignore_merges=True),
        "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan grok-2 solar-open": PreTokenizer((_QWEN2,)),
        "qwen35": PreTokenizer((_QWEN35,)),
        "seed-coder": PreTokenizer((_SEED,)),
        "bailingmoe bailingmoe2 llada-moe": PreTokenizer((_BAILING,)),
        "minicpm5": PreTokenizer((r"\p{N}{1,3}", _MINICPM5), ignore_merges=True),
        "deepseek-coder": PreTokenizer(
            (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", _DIGIT)
        ),
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer(
            (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK3)
        ),
        "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
        "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
        "gpt-4o llama4 kanana2": PreTokenizer((_GPT4O,)),
        "bloom poro-chat gpt3-finnish": PreTokenizer((_BLOOM,)),
        "viking": PreTokenizer((_BLOOM, _DIGIT)),
    }
    return {name: rule for names, rule in rules.items() for name in names.split()}


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = _table()
