"""`model.json`: the manifest of a compiled model, and the only description that `serve` reads.

Written once by the compiler, read by the engine; it never changes after that. The folder beside it:

    model.json  lib.so  weights-*.safetensors  tokenizer.json  chat_template.jinja  generation_config.json

A folder for several machines has several libraries in place of `lib.so`, such as lib-x86-64-v3.so; they share the rest.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# Raised whenever folders compiled before can no longer be served as they should: their packed weights, or what the
# library asks of the engine, have changed. They are refused then; the cache compiles them again.
FORMAT_VERSION = 3
FILE_NAME = "model.json"

Task = Literal["generate", "embed", "classify"]
Scores = Literal["sigmoid", "softmax", "none"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stamp(_Frozen):
    """What made the library; a library made by other versions is refused."""

    cupola: str
    tvm: str
    tvm_ffi: str

    @classmethod
    def current(cls) -> Stamp:
        """The stamp of this installation."""
        return cls(cupola=version("cupola"), tvm=version("apache-tvm"), tvm_ffi=version("apache-tvm-ffi"))


class Shape(_Frozen):
    """Sizes of the network that the engine needs.

    `logit_stride` is the row length of the logits tensor: the vocabulary rounded up to whole column blocks.
    """

    vocab_size: int
    logit_stride: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_context: int


class KvCache(_Frozen):
    """The pages of one layer are one tensor [num_pages, page_elements] of `dtype`; scales count as elements too.

    The layers in `window_layers` see only the last `window` tokens, and have fewer pages, numbered by themselves.
    """

    page_size: int
    dtype: str
    page_elements: int
    window: int = 0
    window_layers: tuple[int, ...] = ()

    @property
    def page_bytes(self) -> int:
        """Bytes of one page of one layer."""
        return self.page_elements * {"float32": 4, "float16": 2, "bfloat16": 2, "int16": 2, "int8": 1}[self.dtype]

    def window_pages(self, tokens: int) -> int:
        """Pages that a sequence of so many tokens uses at most in a layer with a window, when it grows by a token."""
        pages = -(-tokens // self.page_size)
        return min(pages, -(-(self.window - 1) // self.page_size) + 2) if self.window else 0

    def bytes_of(self, num_layers: int, num_pages: int, num_window_pages: int) -> int:
        """Bytes of so many pages in all layers, but in those with a window of so many."""
        windows = len(self.window_layers)
        return self.page_bytes * (num_pages * (num_layers - windows) + num_window_pages * windows)


class Embedding(_Frozen):
    """What an encoder makes of a text.

    `dimensions` of the vector, how it is pooled from the tokens' (mean, cls, last), whether it has length 1, and the
    shorter lengths that it was trained to be cut to; none listed: nobody said.
    """

    dimensions: int
    pooling: str
    normalized: bool
    matryoshka: tuple[int, ...] = ()


class Classifier(_Frozen):
    """What a classifier makes of a text or of a pair of texts: a number for each label; a reranker has one label.

    `scores` is what makes scores of these numbers; `pair_types`: the two texts of a pair have different token types.
    """

    labels: tuple[str, ...] = Field(min_length=1)
    scores: Scores
    pair_types: bool


class Limits(_Frozen):
    """Upper bounds compiled into the library."""

    max_step_tokens: int
    max_batch: int


class SpecialIds(_Frozen):
    """Token ids with a meaning: `eos` end a generation; `bos` starts every prompt where the tokenizer adds one."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None


class Functions(_Frozen):
    """Names of the library's functions."""

    alloc_kv_cache: str = "alloc_kv_cache"
    forward: str = "forward"
    decode: str = "decode"  # the same, of sequences with one row each; only in libraries for GPUs
    embed: str = "embed"
    sample: str = ""  # tokens from rows of logits; "": the library has none, so that the processor samples


class Weight(_Frozen):
    """One argument of `forward` or `embed`, in order: where it lies and what it is.

    `format` names a packed layout of `cupola.quantize` (f32, f16, bf16, q8, q4, q4s, q3) or "vector" for plain float32.
    """

    name: str
    file: str
    format: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Calibration(_Frozen):
    """By what the weights were rounded.

    Args:
        text, text_sha256: the name of the text's file, and the hash of its content.
        tokens: of it, that went through the model.
        expected_kl: where formats were chosen by a budget, the sum of what their choice costs each matrix on its own:
            nats a token.
    """

    text: str
    text_sha256: str
    tokens: int
    expected_kl: float | None = None


class Library(_Frozen):
    """One library of the folder.

    Args:
        file: its name.
        target: what it was compiled for: `kind` (llvm, cuda, ...), `machine` and `needs` (the processor's architecture
            and the features, by Linux's names, without which it cannot run), `arch` of a GPU.
        memory: function -> bytes of working memory at the compiled limits.
    """

    file: str
    target: dict[str, str]
    memory: dict[str, int] = {}


class Manifest(_Frozen):
    """The whole of `model.json`.

    An encoder has an `embedding` or a `classifier` and keeps no keys and values: its pages have no elements.
    """

    format_version: int = FORMAT_VERSION
    name: str
    architecture: str
    scheme: str
    stamp: Stamp
    libraries: tuple[Library, ...] = Field(min_length=1)
    shape: Shape
    kv_cache: KvCache
    embedding: Embedding | None = None
    classifier: Classifier | None = None
    calibration: Calibration | None = None
    reply_format: str | None = None  # how replies are written, CALLS[+REASONING]; None: the chat template tells
    limits: Limits
    special_ids: SpecialIds
    functions: Functions = Functions()
    weights: tuple[Weight, ...]
    files: dict[str, str]  # file name -> sha256

    @property
    def library(self) -> Library:
        """The first library; the only one after `engine.choice.choose`."""
        return self.libraries[0]

    @property
    def task(self) -> Task:
        """What the model is for."""
        if self.classifier is not None:
            return "classify"
        return "generate" if self.embedding is None else "embed"
