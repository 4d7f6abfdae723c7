"""How models that fill in the middle are told what comes before and after."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as HfTokenizer

from cupola.text.infill import FORMS, InfillForm, find_infill
from cupola.text.tokenizer import BYTE_OF_CHARACTER, Tokenizer


def tokenizer(*special: str, bos: str | None = None) -> Tokenizer:
    """One token a byte, and special tokens from 256 on; `bos` is put before every text."""
    made = HfTokenizer(models.BPE(vocab=BYTE_OF_CHARACTER, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if bos is not None:
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, made.token_to_id(bos))])
    return Tokenizer(made)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.prefix)
def test_every_form_is_found_by_its_tokens(form: InfillForm) -> None:
    names = [name for name in (form.prefix, form.suffix, form.middle) if name is not None]
    found = find_infill(tokenizer(*names))
    assert found is not None
    assert (found.prefix, found.suffix) == (256, 257)
    expected = [256, 1, 2, 257, 3, 258] if form.middle else [257, 3, 256, 1, 2]
    assert found.prompt([1, 2], [3]) == expected


def test_what_comes_before_every_text_and_what_ends_it() -> None:
    found = find_infill(tokenizer("<s>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", bos="<s>"))
    assert found is not None
    assert found.prompt([1], [2]) == [256, 257, 1, 258, 2, 259]
    assert found.ends == (260,)


@pytest.mark.parametrize(
    "names", [(), ("<fim_prefix>", "<fim_suffix>"), ("<fim_prefix>", "<|fim_suffix|>", "[PREFIX]")]
)
def test_a_model_that_cannot(names: tuple[str, ...]) -> None:
    assert find_infill(tokenizer(*names)) is None
