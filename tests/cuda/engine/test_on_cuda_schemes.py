"""Every scheme of weights on CUDA, with activations of 16 bits, against float32 on the processor.

The weights of that are the rounded ones, so that what differs is what activations of 16 bits lose: up to 0.05 of logits
up to 9 with float16, eight times that with bfloat16, which has three bits less. Prompts, chunks of them and single
tokens go through different kernels, and their logits have to agree far better than that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cuda_stand_in import folder_with_ptx

from compiled import compiled_folder
from numerics.rounded import write_rounded
from numerics.sequence import Sequences
from tiny_models import TINY_MODELS

TINY = TINY_MODELS[0]
PROMPT = TINY.token_ids()
TOLERANCE = {"f16": 0.1, "q8": 0.1, "q4": 0.1, "bf16": 0.8}


@pytest.mark.parametrize("quant", TOLERANCE)
def test_logits_are_those_of_the_rounded_weights(quant: str, tmp_path: Path) -> None:
    TINY.write(tmp_path / "tiny")
    write_rounded(TINY, quant, tmp_path / "rounded")
    gpu = Sequences(folder_with_ptx(str(tmp_path / "tiny"), quant), count=2)
    cpu = Sequences(compiled_folder(str(tmp_path / "rounded"), "f32"), count=2)
    tolerance = TOLERANCE[quant]
    expected = cpu.run(PROMPT, len(PROMPT))
    found = {}
    for chunk in (len(PROMPT), 7, 1):
        gpu.restart()
        found[chunk] = gpu.run(PROMPT, chunk)
        assert np.abs(found[chunk] - expected).max() < tolerance
        assert np.abs(found[chunk] - found[len(PROMPT)]).max() < tolerance / 2
    # Several at once: a chunk of one beside single tokens of another.
    for sequences in (gpu, cpu):
        sequences.restart()
        sequences.step({0: PROMPT[:30]})
    for step in ({0: PROMPT[30:31], 1: PROMPT[:20]}, {0: PROMPT[31:32], 1: PROMPT[20:21]}):
        wanted, rows = cpu.step(step), gpu.step(step)
        for sequence in step:
            assert np.abs(rows[sequence] - wanted[sequence]).max() < tolerance
