"""Weights that are larger than a tensor of a device can be: refused by name, with a way out if there is one."""

from __future__ import annotations

import re

import pytest

from cupola.engine.backends.scripted import scripted_manifest
from cupola.engine.native_devices import TensorLimit
from cupola.engine.native_model import check_sizes
from cupola.errors import ModelError
from cupola.manifest import Manifest, Weight

ROWS, WIDTH = 128256, 2048  # the head of Llama 3.2 1B


def limit(mib: int) -> TensorLimit:
    return TensorLimit("a GPU", mib << 20)


def manifest() -> Manifest:
    head = Weight(name="head", file="w", format="f16", dtype="uint32", shape=(ROWS // 16, WIDTH, 8))
    return scripted_manifest().model_copy(update={"weights": (head,)})


@pytest.mark.parametrize(
    ("mib", "hint"), [(300, r"fewer bits \(--quant q8\)"), (160, r"fewer bits \(--quant q3\)"), (128, "--target cpu")]
)
def test_a_head_that_is_too_large_names_a_scheme_that_is_not(mib: int, hint: str) -> None:
    with pytest.raises(ModelError, match=f"the weight `head` has 525336576 bytes, .* at most {mib << 20}") as raised:
        check_sizes(manifest(), limit(mib))
    assert re.search(hint, raised.value.hint or "")


def test_what_fits_is_taken() -> None:
    check_sizes(manifest(), limit(502))
