r"""How each pre-tokenizer that GGUF files name cuts text into words, before byte-pair merges work within them.

Owns the table from `tokenizer.ggml.pre` to rules. A rule is a sequence of regular expressions: each cuts what the ones
before it left whole, and both the matches and the text between them are words. The names and rules are those of
llama.cpp, which gives GGUF its meaning; where llama.cpp only approximates a model's rule, for want of \p{Lu} and its
like in its regular expressions (tekken, gpt-4o, kimi-k2, youtu, tiny_aya), the table has the model's own.
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
_DEEPSEEK3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
)
_DEEPSEEK3 = "|".join((*_DEEPSEEK3_WORDS, r" ?[\p{P}\p{S}]+[\r\n]*", _SPACES))
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_SYMBOLS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = "|".join((*_CASED, r"\p{N}", _SYMBOLS_AND_SLASHES, _SPACES))
_GPT4O = "|".join((*(f"{part}(?:{_CONTRACTION})?" for part in _CASED), r"\p{N}{1,3}", _SYMBOLS_AND_SLASHES, _SPACES))
_KANA_AND_HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_JAIS2 = "|".join((_CONTRACTION, _WORDS, r"\p{N}{1,3}", _SYMBOLS, r"\s*[\r\n]+"))
_JAIS2_SPACES = "|".join((*(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")), r"\s"))
_YOUTU = "|".join((*(f"{part}(?:{_CONTRACTION})?" for part in _CASED), r"\p{N}", _SYMBOLS_AND_SLASHES, _SPACES))
_YOUTU_SCRIPTS = "|".join(
    (
        "[\uac00-\ud7a3\u3131-\u318e]+",
        "[！…“”‘’—：；，\u3001-\u303f\ufe30-\ufe4f]+",
        "[\u3105-\u312f]+",
        "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    )
)
_EXAONE_MOE = "|".join(
    (
        _CONTRACTION,
        r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
        r"\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_UFAKZEKA = "|".join((_WORDS, r"\p{N}", _SYMBOLS, _SPACES))
_SPARK = "|".join((*_DEEPSEEK3_WORDS, r" ?[\p{P}\p{S}]+", r"[\r\n]|\s+(?!\S)|\s+"))
_LINES = r"[^\n]+|\n+"
_NO_HAN = r"(?!\p{Han})"
_KIMI = "|".join(
    (
        r"\p{Han}+",
        rf"[^\r\n\p{{L}}\p{{N}}]?(?:{_NO_HAN}{_UPPER})*(?:{_NO_HAN}{_LOWER})+(?:{_CONTRACTION})?",
        rf"[^\r\n\p{{L}}\p{{N}}]?(?:{_NO_HAN}{_UPPER})+(?:{_NO_HAN}{_LOWER})*(?:{_CONTRACTION})?",
        r"\p{N}{1,3}",
        _SYMBOLS,
        _SPACES,
    )
)
# Threes of digits, counted from the end of a number.
_THREES = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e00-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The rule of one name.

    Args:
        patterns: regular expressions, applied one after the other.
        ignore_merges: a word that is a token as a whole is that token, whatever the merges say.
        add_bos, add_sep: prompts start with the beginning-of-sequence token, or end with the separator, unless the file
            says otherwise.
        byte_level: tokens are written in GPT-2's alphabet of bytes; else as text, with SentencePiece's mark for spaces.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False
    add_sep: bool = False
    byte_level: bool = True

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The rule for the `tokenizers` library."""
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns]
        letters = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)] if self.byte_level else []
        return pre_tokenizers.Sequence([*splits, *letters])


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
    rules = _word_rules() | _script_rules()
    return {name: rule for names, rule in rules.items() for name in names.split()}


def _word_rules() -> dict[str, PreTokenizer]:
    """Rules of words, digits and symbols, alike in all scripts."""
    return {
        "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion granite-docling exaone4 modern-bert "
        "jina-es jina-de jina-v2-es jina-v2-de": PreTokenizer((_GPT2,)),
        "jina-v1-en jina-v2-code roberta-bpe": PreTokenizer((_GPT2,), add_sep=True),
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": PreTokenizer((_DIGIT, _GPT2)),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": PreTokenizer(
            (_LLAMA3,), ignore_merges=True, add_bos=True
        ),
        "dbrx smaug-bpe chatglm-bpe": PreTokenizer((_LLAMA3,)),
        "glm4 glm5": PreTokenizer((_LLAMA3,), ignore_merges=True),
        "jais-2": PreTokenizer((f"{_JAIS2}|{_JAIS2_SPACES}",)),
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan grok-2 solar-open": PreTokenizer((_QWEN2,)),
        "qwen35": PreTokenizer((_QWEN35,)),
        "laguna": PreTokenizer((_LINES, _QWEN2)),
        "ufakzeka": PreTokenizer((_UFAKZEKA,)),
        "seed-coder": PreTokenizer((_SEED,)),
        "bailingmoe bailingmoe2 llada-moe": PreTokenizer((_BAILING,)),
        "minicpm5": PreTokenizer((r"\p{N}{1,3}", _MINICPM5), ignore_merges=True),
        "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
        "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
        "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
        "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer((_GPT4O,)),
        "granite-embed-multi-97m": PreTokenizer((_GPT4O,), ignore_merges=True),
        "tiny_aya cohere2moe": PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)),
        "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
        "bloom poro-chat gpt3-finnish": PreTokenizer((_BLOOM,)),
        "viking": PreTokenizer((_BLOOM, _DIGIT)),
        "gemma4 granite-embed-multi-311m": PreTokenizer((_LINES,), ignore_merges=True, add_bos=True, byte_level=False),
        "sarvam-moe": PreTokenizer((_LINES,), byte_level=False),
    }


def _script_rules() -> dict[str, PreTokenizer]:
    """Rules that treat some scripts by themselves."""
    chinese = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
    return {
        "chameleon": PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                r"([\t\n]|    |  )",
                _DIGIT,
                r"[\p{P}!-/:-@\[-`{-~]",
                _GPT2,
            ),
            add_bos=True,
        ),
        "deepseek-llm": PreTokenizer(
            (
                r"[\r\n]",
                # Letters with two cases, but for the lower ones of Armenian and Georgian.
                r"\s?(?:(?![\u0560-\u0588\u10d0-\u10ff])[\p{Lu}\p{Ll}\p{Lt}])+",
                r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
                r"\s+$",
                chinese,
                r"\p{N}+",
            )
        ),
        "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", chinese, _DIGIT)),
        "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer((r"\p{N}{1,3}", _KANA_AND_HAN, _DEEPSEEK3)),
        "spark2_5": PreTokenizer((r"\p{N}{1,3}", _KANA_AND_HAN, _SPARK, _DIGIT)),
        "afmoe": PreTokenizer((_THREES, _ASIAN, _DEEPSEEK3)),
        "youtu": PreTokenizer((_YOUTU_SCRIPTS, _YOUTU), ignore_merges=True),
        "kimi-k2": PreTokenizer((_KIMI,)),
    }


PRE_TOKENIZERS: Mapping[str, PreTokenizer] = _table()
