"""A checkpoint as the converter sees it, whatever file it came from.

Both readers (`gguf`, `huggingface`) present tensors under Hugging Face names with Hugging Face semantics: the rotary
halves of q and k are in Hugging Face order, norms are float32, matrices are [outputs, inputs].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import numpy as np

from cupola.quantize.formats import Format, Quantized


class Keeping(str, Enum):
    """What becomes of a tensor's numbers in the format of its `TensorInfo`."""

    FLOATS = "floats"  # the scheme chooses how they are rounded
    EXACT = "exact"
    INTEGERS = "integers"  # kept, beside scales or minima that are rounded to float16
    ROUNDED = "rounded"  # anew, since no format of ours has its grid


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    `format` is the format in which its integers can be kept: a group format, or F32 for floats. Block
    formats of which none of ours keeps the integers (such as Q6_K) count as Q8, and are read as float32.
    `stored` is what the checkpoint calls its type, such as `BF16`, `Q4_K` or `GPTQ int4`.
    """

    name: str
    shape: tuple[int, ...]
    format: Format
    stored: str = ""
    keeping: Keeping = Keeping.FLOATS


class Checkpoint(Protocol):
    """An opened checkpoint; reading is lazy, one tensor at a time."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        ...

    @property
    def name(self) -> str:
        """A short name to show, such as `SmolLM2-135M-Instruct`."""
        ...

    @property
    def config(self) -> Mapping[str, object]:
        """The model's configuration with the keys of Hugging Face's config.json (`model_type`, `hidden_size`, ...)."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its Hugging Face name."""
        ...

    def read(self, name: str) -> np.ndarray | Quantized:
        """Reads one tensor whole; see `read_rows`."""
        ...

    def read_rows(self, name: str, start: int, stop: int, *, exact: bool = False) -> np.ndarray | Quantized:
        """Reads rows [start, stop) of one tensor, whose shape has the outputs first.

        A stack of matrices counts as one matrix: [count, rows, inputs] as [count * rows, inputs].

        Returns Quantized where the checkpoint holds the tensor in such groups, else float32. `exact`: for one who wants
        numbers, not integers; float32 also where the scales of our groups would be rounded.

        Raises:
            ModelError: the data is truncated or inconsistent.
        """
        ...

    def fingerprint(self) -> str:
        """A hash over the content (sizes, headers and a sample of the data suffice) for the cache key."""
        ...

    def write_text_files(self, folder: Path) -> None:
        """Writes tokenizer.json, chat_template.jinja (where there is one) and generation_config.json into folder."""
        ...
