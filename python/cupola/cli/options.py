"""Options that several commands share, each declared once. Use: `temperature: options.Temperature = None`."""

from __future__ import annotations

from typing import Annotated

import typer

Quant = Annotated[
    str | None, typer.Option(help="Scheme for compile-on-first-use: `f32`, `f16`, `bf16`, `q16`, `q8`, `q4`, `q3`.")
]
Calibrate = Annotated[
    str | None,
    typer.Option(help="Round by what a text shows to matter: a file, or `auto` for the text that comes with Cupola."),
]
Bits = Annotated[
    float | None, typer.Option(min=0, help="Bits a weight in all, such as 4.25: formats are chosen matrix by matrix.")
]
TargetSize = Annotated[str | None, typer.Option(help="The same by the bytes of all weights, such as `400MB`.")]
Backend = Annotated[str, typer.Option(help="`auto`, `compiled` or `scripted`.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Most requests that run at once.")]
MaxContext = Annotated[int | None, typer.Option(min=1, help="Most tokens of one request.")]
KvCacheMemory = Annotated[str | None, typer.Option(help="Memory for the KV cache, such as `512MiB` or `4GiB`.")]
NumThreads = Annotated[int, typer.Option(min=0, help="Most threads of the model; 0 means one a core.")]
BindThreads = Annotated[
    bool, typer.Option("--bind-threads/--no-bind-threads", help="Keep each of them on a core of its own.")
]
SpinUs = Annotated[
    int, typer.Option(min=0, max=10**6, help="Microseconds for which they spin for the next step before they sleep.")
]

Temperature = Annotated[float | None, typer.Option(help="0 always takes the likeliest token; up to 2.")]
TopK = Annotated[int | None, typer.Option(help="Choose among so many tokens; 0 means all.")]
TopP = Annotated[float | None, typer.Option(help="Choose among the likeliest tokens with this probability together.")]
MinP = Annotated[float | None, typer.Option(help="Leave out tokens less likely than this part of the likeliest.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens of an answer.")]
