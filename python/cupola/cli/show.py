"""`cupola show`: what a model is, the memory that it takes, and whether this machine has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options

if TYPE_CHECKING:
    from cupola.cli.outline import Outline


def show_command(
    model: Annotated[
        str,
        typer.Argument(help="A compiled folder or its name in the cache, or any name that `cupola compile` takes."),
    ] = "smollm2",
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one sequence to count memory for; default: the model's most.")
    ] = None,
    quant: options.Quant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, in bytes.")] = False,
) -> None:
    """Show a model. Architecture, parameters, scheme, context, memory, and whether this machine can serve it.

    A checkpoint is shown as it would be compiled, and fetched first where it is not here.
    Examples: `cupola show`, `cupola show ./model --context 4096`, `cupola show org/name --quant q8 --json`
    """
    from cupola.engine.sizing import available_memory
    from cupola.errors import UsageError

    outline, obstacle = _open(model, quant)
    most = outline.shape.max_context
    if context is not None and context > most:
        raise UsageError(f"`--context` is {context}, but {outline.name} was made for {most} tokens")
    show = _json if as_json else _screen
    typer.echo(show(outline, context or most, available_memory(), obstacle))


def _open(model: str, quant: str | None) -> tuple[Outline, str | None]:
    """The outline, and why this machine cannot run what is compiled already."""
    from cupola.cli import outline
    from cupola.compiler.cache import compiled_root
    from cupola.engine.choice import choose
    from cupola.engine.folder import is_compiled_folder, read_manifest
    from cupola.errors import IncompatibleError, UsageError
    from cupola.weights.source import open_checkpoint

    folder = Path(model).expanduser()
    if not folder.exists() and folder.name == model:
        folder = compiled_root() / model
    if not is_compiled_folder(folder):
        checkpoint = open_checkpoint(model, announce=lambda text: typer.echo(text, err=True))
        return outline.of_checkpoint(checkpoint, quant), None
    if quant is not None:
        raise UsageError(f"{folder} is compiled already; --quant is for a checkpoint", hint="leave out --quant")
    manifest = read_manifest(folder)
    try:
        return outline.of_folder(folder, choose(manifest)), None
    except IncompatibleError as error:
        return outline.of_folder(folder, manifest), error.message


def _json(outline: Outline, context: int, available: int, obstacle: str | None) -> str:
    import json

    facts = {
        "name": outline.name,
        "path": str(outline.path),
        "state": outline.state,
        "architecture": outline.architecture,
        "task": outline.task,
        "scheme": outline.scheme,
        "parameters": outline.parameters,
        "bits_per_weight": round(outline.bits_per_weight, 2),
        "shape": outline.shape.model_dump(),
        "context": context,
        "weight_bytes": outline.weight_bytes,
        "weight_bytes_by_format": dict(outline.formats),
        "holdings": [
            {"stored": h.stored, "format": h.format.value, "keeping": h.keeping.value, "weights": h.weights}
            for h in outline.holdings
        ],
        "kv_dtype": outline.kv_cache.dtype,
        "kv_bytes": outline.kv_bytes(context),
        "working_bytes": outline.working_bytes,
        "memory_bytes": outline.memory(context),
        "available_bytes": available,
        "fits": obstacle is None and outline.memory(context) <= available,
        "longest_context": 0 if obstacle else outline.longest_context(available),
        "obstacle": obstacle,
        "calibration": None if outline.calibration is None else outline.calibration.model_dump(),
        "evaluation": None if outline.evaluation is None else outline.evaluation.model_dump(),
    }
    return json.dumps(facts, indent=2)


def _screen(outline: Outline, context: int, available: int, obstacle: str | None) -> str:
    from cupola.cli.eval import rows as evaluation_rows
    from cupola.cli.table import columns
    from cupola.sizes import show_size

    shape = outline.shape
    formats = ", ".join(f"{show_size(size)} {name}" for name, size in outline.formats.items())
    heads = f"{shape.num_heads} heads of {shape.head_dim}, {shape.num_kv_heads} of keys and values"
    purpose = {"generate": "text", "embed": "embeddings", "classify": "scores of texts and pairs"}[outline.task]
    rows = [
        ("model", outline.name),
        ("path", str(outline.path)),
        ("state", "compiled" if outline.state == "compiled" else "a checkpoint, shown as it would be compiled"),
        ("architecture", f"{outline.architecture}, for {purpose}"),
        ("shape", f"{shape.num_layers} layers of width {shape.hidden_size}, {heads}"),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("context", f"{shape.max_context:,} tokens"),
        ("parameters", f"{outline.parameters / 1e6:,.1f} million"),
        ("scheme", f"{outline.scheme}: {outline.bits_per_weight:.2f} bits a weight"),
        ("weights", f"{show_size(outline.weight_bytes)} ({formats})"),
    ]
    rows += [("from", f"{holding.weights / 1e6:,.1f} million {holding}") for holding in outline.holdings]
    if outline.calibration is not None:
        rows.append(("calibrated", f"with {outline.calibration.tokens:,} tokens of {outline.calibration.text}"))
    if outline.evaluation is not None:
        rows += evaluation_rows(outline.evaluation)
    if outline.task == "generate":
        kv = show_size(outline.kv_bytes(context))
        rows.append(("keys, values", f"{kv} for {context:,} tokens, as {outline.kv_cache.dtype}"))
    if outline.working_bytes is not None:
        rows.append(("a step", f"{show_size(outline.working_bytes)} at most"))
    rows.append(("this machine", obstacle or _room(outline, context, available)))
    return columns(rows)


def _room(outline: Outline, context: int, available: int) -> str:
    from cupola.sizes import show_size

    needs, has = show_size(outline.memory(context)), show_size(available)
    if outline.memory(context) <= available:
        return f"has room for it: {needs} of {has} free"
    longest = outline.longest_context(available)
    rest = f"at most {longest:,} tokens of context fit" if longest else "not even one page of context fits"
    return f"has no room for it: {needs} needed, {has} free; {rest}"
