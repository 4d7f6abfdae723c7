"""`cupola eval`: what a compiled model has lost, against the float32 build of the same checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cupola.cli import options

if TYPE_CHECKING:
    from cupola.evaluation import Evaluation


def eval_command(
    model: Annotated[
        str, typer.Argument(help="A compiled folder, or any name that `cupola compile` takes.")
    ] = "smollm2",
    text: Annotated[
        Path | None, typer.Option(help="A text of the kind that the model is for; default: one of ours.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The checkpoint of a compiled folder, or its float32 build; else MODEL itself.")
    ] = None,
    quant: options.Quant = None,
    config: Annotated[Path | None, typer.Option(help="TOML file for compile-on-first-use.")] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens of the sequences into which the text is cut.")] = 512,
    tokens: Annotated[int | None, typer.Option(min=2, help="Use only so many tokens of the text.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Measure what quantization cost a model. KL divergence and perplexity against float32 on a text.

    What is measured includes the 8-bit activations and the pages of keys and values. It is kept in the model's folder,
    and `cupola show` prints it.
    Examples: `cupola eval smollm2 --quant q3`, `cupola eval ./compiled --against ./checkpoint --text mine.txt`
    """
    from cupola.engine.folder import is_compiled_folder
    from cupola.engine.prepare import prepare
    from cupola.errors import UsageError

    if against is None and is_compiled_folder(Path(model).expanduser()):
        raise UsageError(
            f"`{model}` is compiled: what is it to be compared with?", hint="name its checkpoint with --against"
        )
    name, content = _text(text)
    compared, _ = prepare(model, quant=quant, compile_config=None if config is None else str(config))
    reference, _ = prepare(against or model, quant="f32")
    found = evaluate(reference, compared, name, content, context, tokens)
    found.write(compared)
    typer.echo(found.model_dump_json(indent=1) if as_json else _screen(compared, found))


def evaluate(
    reference: Path, compared: Path, name: str, text: str, context: int, tokens: int | None = None
) -> Evaluation:
    """Runs a text through two compiled folders.

    Raises:
        UsageError: the text is too short, or the models have different vocabularies.
    """
    from cupola.engine.feed import Feed, sequences
    from cupola.errors import UsageError
    from cupola.evaluation import Evaluation, sha256_of
    from cupola.quantize.divergence import Comparison

    feeds = Feed(reference, context), Feed(compared, context)
    sizes = [feed.manifest.shape.vocab_size for feed in feeds]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"the models have vocabularies of {sizes[0]} and {sizes[1]} tokens: they are not the same model"
        )
    context = min(feed.context for feed in feeds)
    comparison = Comparison()
    for ids in sequences(compared, text, context):
        used = ids if tokens is None else ids[: tokens - comparison.tokens]
        if len(used) < 2:
            break
        at = 0
        for first, second in zip(*(feed.logits(used) for feed in feeds), strict=True):
            comparison.add(first, second, used[at + 1 : at + 1 + len(first)])
            at += len(first)
    if comparison.tokens == 0:
        raise UsageError(f"{name} has too few tokens to predict any", hint="name a longer text")
    reference_perplexity, perplexity = comparison.perplexities
    return Evaluation(
        text=name,
        text_sha256=sha256_of(text),
        context=context,
        tokens=comparison.tokens,
        mean_kl=comparison.mean_kl,
        p99_kl=comparison.p99_kl,
        same_best_token=comparison.same_best_token,
        perplexity=perplexity,
        reference_perplexity=reference_perplexity,
    )


def _text(path: Path | None) -> tuple[str, str]:
    """The text's name and content."""
    from cupola.errors import UsageError
    from cupola.resources import resource_folder

    path = path or resource_folder("texts") / "evaluation.txt"
    try:
        return path.name, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the text `{path}`: {error}") from error


def _screen(folder: Path, found: Evaluation) -> str:
    from cupola.cli.table import columns

    return columns([("model", str(folder)), *rows(found)])


def rows(found: Evaluation) -> list[tuple[str, str]]:
    """What was found, for a screen."""
    return [
        ("evaluated", f"{found.tokens:,} tokens of {found.text} in sequences of {found.context}, against float32"),
        ("divergence", f"{found.mean_kl:.5f} nats a token (KL), 99th percentile {found.p99_kl:.4f}"),
        ("same best", f"{found.same_best_token:.1%} of the tokens"),
        ("perplexity", f"{found.perplexity:.3f}, in float32 {found.reference_perplexity:.3f}"),
    ]
