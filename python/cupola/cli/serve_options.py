"""The options of `cupola serve` that no other command has; see `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cupola.engine.request import AdmissionPolicy
from cupola.server.choices import LogFormat, LogLevel, MetricsAlias

_ADDRESS, _ACCESS, _MODELS, _ENGINE, _OPERATION = "Address", "Access", "Models", "Engine", "Operation"

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]MODEL...",
        help="Compiled folders, or any names that `cupola compile` takes (compiled on first use). Default: `smollm2`.",
        show_default=False,
    ),
]
Host = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 means all of this machine's.", rich_help_panel=_ADDRESS)
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.", rich_help_panel=_ADDRESS)
]

ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        help="Key that clients have to send; repeat it for several.",
        envvar="CUPOLA_API_KEY",
        show_envvar=True,
        rich_help_panel=_ACCESS,
    ),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        help="File of keys, one a line; read again when it changes.",
        envvar="CUPOLA_API_KEY_FILE",
        show_envvar=True,
        rich_help_panel=_ACCESS,
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(
        help="Web page elsewhere that may use the API, such as https://example.org; repeat it for several.",
        rich_help_panel=_ACCESS,
    ),
]
MaxBodySize = Annotated[
    str, typer.Option(help="Largest request body; beyond it the answer is 413.", rich_help_panel=_ACCESS)
]

ServedModelName = Annotated[
    list[str] | None,
    typer.Option(help="Name of the only model in the API; repeat it for aliases.", rich_help_panel=_MODELS),
]
Lazy = Annotated[
    bool,
    typer.Option("--lazy", help="Load each model for its first request, not at the start.", rich_help_panel=_MODELS),
]
IdleUnload = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        metavar="SECONDS",
        help="Unload a model that has had no request for so long; the next one loads it again.",
        rich_help_panel=_MODELS,
    ),
]

MaxStepTokens = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most tokens of one step; fewer let running answers flow more evenly.", rich_help_panel=_ENGINE
    ),
]
MaxQueue = Annotated[
    int,
    typer.Option(
        min=1, help="Most requests that wait for a model; beyond it the answer is 429.", rich_help_panel=_ENGINE
    ),
]
PrefixCache = Annotated[
    bool,
    typer.Option(
        "--prefix-cache/--no-prefix-cache",
        help="Share what equal beginnings of prompts compute.",
        rich_help_panel=_ENGINE,
    ),
]
Admission = Annotated[AdmissionPolicy, typer.Option(help="When a waiting request may run.", rich_help_panel=_ENGINE)]
PrefillRows = Annotated[
    int,
    typer.Option(
        min=0, help="Most prompt tokens a step reads beside streams; 0 follows the clock.", rich_help_panel=_ENGINE
    ),
]
RecordSteps = Annotated[
    bool,
    typer.Option(
        "--record-steps/--no-record-steps",
        help="Replay recorded decodes on GPUs (CUDA graphs).",
        rich_help_panel=_ENGINE,
    ),
]

ResponsesTtl = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="How long a response of /v1/responses is kept after its last use.",
        rich_help_panel=_OPERATION,
    ),
]
ResponsesEntries = Annotated[int, typer.Option(min=0, help="Most responses that are kept.", rich_help_panel=_OPERATION)]
ResponsesMemory = Annotated[str, typer.Option(help="Most memory for them.", rich_help_panel=_OPERATION)]

TimeoutDrain = Annotated[
    float,
    typer.Option(min=0, help="Seconds that a stopping server gives to running requests.", rich_help_panel=_OPERATION),
]
Level = Annotated[LogLevel, typer.Option("--log-level", help="How much to log.", rich_help_panel=_OPERATION)]
Format = Annotated[
    LogFormat,
    typer.Option("--log-format", help="Text for people, or JSON, one object a line.", rich_help_panel=_OPERATION),
]
ReplyFormat = Annotated[
    str | None,
    typer.Option(
        "--reply-format",
        metavar="CALLS[+REASONING]",
        help="How the models write tool calls and reasoning. Default: what their chat templates say.",
        rich_help_panel=_MODELS,
    ),
]
Alias = Annotated[
    MetricsAlias | None,
    typer.Option(
        "--metrics-alias", help="Publish metrics under the names of this server too.", rich_help_panel=_OPERATION
    ),
]
OTel = Annotated[
    bool,
    typer.Option("--otel", help="Send OpenTelemetry spans, as the OTEL_ variables say.", rich_help_panel=_OPERATION),
]
