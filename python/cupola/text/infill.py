"""Fill in the middle: how the families of code models are told what comes before and after the text they shall write.

A model was trained for it if its tokenizer has the special tokens of one of these forms. Sources: the model cards of
StarCoder, SantaCoder, Code Llama, DeepSeek-Coder, Qwen2.5-Coder, CodeGemma, Codestral and CodeGeeX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cupola.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class InfillForm:
    """One way to write it: prefix token, prefix, suffix token, suffix, middle token.

    Args:
        prefix, suffix: the tokens before these texts.
        middle: the token after both; none where the suffix comes first and the model goes on after the prefix.
    """

    prefix: str
    suffix: str
    middle: str | None


FORMS = (
    InfillForm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    InfillForm("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    InfillForm("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    InfillForm("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    InfillForm("▁<PRE>", "▁<SUF>", "▁<MID>"),
    InfillForm("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    InfillForm("[PREFIX]", "[SUFFIX]", None),
)
# Where a model goes on with the next file instead of ending.
_ENDS = ("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<fim_pad>", "<file_sep>", "▁<EOT>")


@dataclass(frozen=True, slots=True)
class Infill:
    """The form of one model, as token ids.

    Args:
        lead: what the tokenizer puts before every text.
        ends: tokens that end the middle, beside the model's own.
    """

    lead: tuple[int, ...]
    prefix: int
    suffix: int
    middle: int | None
    ends: tuple[int, ...]

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """What the model goes on with; both texts were tokenized without special tokens around them."""
        if self.middle is None:
            return [*self.lead, self.suffix, *suffix, self.prefix, *prefix]
        return [*self.lead, self.prefix, *prefix, self.suffix, *suffix, self.middle]


def find_infill(tokenizer: Tokenizer) -> Infill | None:
    """The form that a model knows; None for one that was not trained for it."""
    for form in FORMS:
        prefix, suffix = tokenizer.token_id(form.prefix), tokenizer.token_id(form.suffix)
        middle = None if form.middle is None else tokenizer.token_id(form.middle)
        if prefix is None or suffix is None or (form.middle is not None and middle is None):
            continue
        ends = tuple(found for end in _ENDS if (found := tokenizer.token_id(end)) is not None)
        return Infill(tuple(tokenizer.encode("")), prefix, suffix, middle, ends)
    return None
