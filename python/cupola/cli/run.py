"""`cupola run`: talk with a model in the terminal, or ask it one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options

if TYPE_CHECKING:
    from cupola.engine.request import SamplingParams


def run_command(
    model: Annotated[
        str, typer.Argument(help="A compiled folder, or any name that `cupola compile` takes (compiled on first use).")
    ] = "smollm2",
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Answer this and exit. Without it, standard input may be one.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message of the conversation.")] = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    seed: options.Seed = None,
    max_tokens: options.MaxTokens = None,
    max_context: options.MaxContext = None,
    kv_cache_memory: options.KvCacheMemory = None,
    num_threads: options.NumThreads = 0,
    bind_threads: options.BindThreads = False,
    spin_us: options.SpinUs = 1000,
    quant: options.Quant = None,
    backend: options.Backend = "auto",
) -> None:
    """Chat with a model in the terminal.

    Examples: `cupola run`, `cupola run ./my-model --temperature 0`, `cupola run -p "Name three rivers"`,
    `cupola run < question.txt`
    """
    import sys

    from cupola.cli.chat import answer_once, chat
    from cupola.engine.engine import Engine
    from cupola.engine.options import EngineOptions
    from cupola.errors import UsageError
    from cupola.sizes import parse_size

    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None and not prompt.strip():
        raise UsageError("The prompt is empty", hint='Give one: `cupola run -p "Name three rivers"`.')
    config = EngineOptions(
        max_batch=1,
        max_context=max_context,
        kv_cache_memory=None if kv_cache_memory is None else parse_size(kv_cache_memory, "--kv-cache-memory"),
        num_threads=num_threads,
        bind_threads=bind_threads,
        spin_us=spin_us,
        quant=quant,
    )
    with Engine(model, backend=backend, config=config) as engine:
        params = _given(
            engine.default_params,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            max_tokens=max_tokens,
        )
        if prompt is not None:
            answer_once(engine, prompt, params, system)
        else:
            chat(engine, params, system)


def _given(defaults: SamplingParams, **fields: float | int | None) -> SamplingParams:
    """The defaults, with what the user gave in their place."""
    given = {name: value for name, value in fields.items() if value is not None}
    return replace(defaults, **given)  # type: ignore[arg-type]
