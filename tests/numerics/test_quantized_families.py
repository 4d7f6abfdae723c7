"""Tiny models of every family in q8 and q4 against transformers' float32 logits: `make test-families`.

The bound is on the error's share of the logits' spread, both as root mean squares over all tokens. Random weights have
no redundancy, and two layers no depth in which errors average out, so this is arithmetic and not quality: rounding
moves each weight matrix by a share e of its size (q8 0.6 %, q4 7.3 %: `docs/quantization.md`) and each quantized
activation by 0.4 %, independently. A logit has been through the n products of its path, whose shares add up in
quadrature, so that sqrt(n) * e is expected of a model that passes errors on as they are. Norms and softmaxes amplify
them, in these models up to `AMPLIFIED` times; a wrong layout, scale or order of rows gives an error of 100 % or more.

Of a mixture of experts it is the median token's error: one whose two best experts are nearly level goes to the other
one after rounding, and what comes then is another answer and not a rounded one (random routers are often level).

pytest -m families tests/numerics/test_quantized_families.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from compiled import compiled_folder
from cupola.kernels.cpu.isa import AVX2, PLAIN, VNNI
from cupola.manifest import Manifest
from cupola.models import registry
from cupola.models.spec import DecoderSpec
from family_models import FAMILIES, PREFILL, golden_logits, golden_shapes, token_ids, write
from kernels.kernel_driver import TARGETS
from numerics.sequence import Sequences
from selected_tests import made_ahead, selected

ROUNDING = {"q8": math.hypot(0.006, 0.004), "q4": math.hypot(0.073, 0.004)}
AMPLIFIED = {"q8": 4.0, "q4": 2.5}
PRODUCTS = 4  # a layer: queries and the like, attention's output, up, down

pytestmark = [pytest.mark.families, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[Path]]]:
    """What is to be tested, compiled, under "FAMILY QUANT"."""
    checkpoints = tmp_path_factory.mktemp("families")
    config = checkpoints / "isa.toml"
    # With vectors of eight outputs a kernel has fewer tiles than with sixteen, and compiles in half the time; that all
    # of them compute the same is for tests/kernels to say.
    isa = next(isa for isa in (VNNI, AVX2, PLAIN) if isa in TARGETS)
    config.write_text(f'[target]\nisa = "{isa.name}"\n')
    families = selected(request, "family")
    for family in families:
        write(family, golden_shapes(family), checkpoints / family)

    def compiled(name: str) -> Path:
        family, quant = name.split()
        return compiled_folder(str(checkpoints / family), quant, config)

    names = [f"{family} {quant}" for family, quant in product(families, selected(request, "quant"))]
    with made_ahead(names, compiled) as made:
        yield made


@pytest.mark.parametrize("quant", ROUNDING)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_is_within_its_bound(
    folders: Mapping[str, Future[Path]], family: str, quant: str, record_property: pytest.RecordProperty
) -> None:
    folder = folders[f"{family} {quant}"].result()
    ids, expected = token_ids(family), golden_logits(family)
    sequences = Sequences(folder)
    found = np.concatenate([sequences.run(ids[:PREFILL], PREFILL), sequences.run(ids[PREFILL:], 1)])
    spread = np.sqrt(((expected - expected.mean(axis=1, keepdims=True)) ** 2).mean())
    squares = ((found - expected) ** 2).mean(axis=1)
    error = np.sqrt(np.median(squares) if _has_experts(family) else squares.mean()) / spread
    manifest = Manifest.model_validate_json((folder / "model.json").read_text())
    products = PRODUCTS * manifest.shape.num_layers + 1
    expected_error = math.sqrt(products) * ROUNDING[quant]
    record_property("error", json.dumps([float(error), expected_error]))
    print(f"{family} {quant}: {error:.4f}, expected {expected_error:.4f}")
    assert 0 < error <= AMPLIFIED[quant] * expected_error


def _has_experts(family: str) -> bool:
    spec = registry.read(FAMILIES[family])[1]
    return isinstance(spec, DecoderSpec) and bool(spec.experts)
