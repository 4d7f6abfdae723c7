"""Which files of a repository are fetched, and what is said where that is not clear."""

from __future__ import annotations

import pytest

from cupola.errors import CupolaError, ModelError, UnsupportedError, UsageError
from cupola.weights.hub_files import Selection, select

PARTS = ("BF16/a-BF16-00001-of-00002.gguf", "BF16/a-BF16-00002-of-00002.gguf")
MANY = ("a-Q4_K_M.gguf", "a-Q8_0.gguf", *PARTS, "README.md")


@pytest.mark.parametrize(
    ("names", "choice", "expected"),
    [
        (("a.gguf", "mmproj-F16.gguf", "imatrix.gguf"), None, Selection(("a.gguf",), "a.gguf")),
        (MANY, "q8_0", Selection(("a-Q8_0.gguf",), "a-Q8_0.gguf")),
        (MANY, "a-Q8_0.gguf", Selection(("a-Q8_0.gguf",), "a-Q8_0.gguf")),
        (MANY, "bf16", Selection(PARTS, PARTS[0])),
        (
            ("config.json", "x.safetensors", "y.safetensors"),
            None,
            Selection(("config.json", "x.safetensors", "y.safetensors")),
        ),
        (("config.json", "model.safetensors", "a.gguf"), "a.gguf", Selection(("a.gguf",), "a.gguf")),
    ],
)
def test_what_is_selected(names: tuple[str, ...], choice: str | None, expected: Selection) -> None:
    assert select(names, choice, "org/name") == expected


@pytest.mark.parametrize(
    ("names", "choice", "error", "message", "hint"),
    [
        (MANY, None, UsageError, "holds 3 GGUF models", "org/name:BF16; there are BF16, Q4_K_M, Q8_0"),
        (MANY, "Q2_K", ModelError, "no GGUF model 'Q2_K'", "there are BF16, Q4_K_M, Q8_0"),
        (
            ("a-F16.gguf", "b-F16.gguf"),
            "F16",
            UsageError,
            "2 GGUF models called F16",
            "there are a-F16.gguf, b-F16.gguf",
        ),
        (("config.json", "model.safetensors"), "Q4_0", ModelError, "holds no GGUF file", "Leave out :Q4_0"),
        (("config.json", "pytorch_model.bin"), None, UnsupportedError, "only pytorch_model.bin", "refs/pr/1"),
        (("README.md",), None, ModelError, "holds no model", ""),
    ],
)
def test_what_is_said(
    names: tuple[str, ...], choice: str | None, error: type[CupolaError], message: str, hint: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        select(names, choice, "org/name")
    assert hint in (caught.value.hint or "")
