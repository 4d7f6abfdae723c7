"""Which backend a model gets."""

from __future__ import annotations

from cupola.engine.backends.backend import OpenedModel
from cupola.engine.options import EngineOptions
from cupola.errors import UsageError

BACKENDS = ("auto", "compiled", "scripted")
SCRIPTED_MODEL = "scripted"
SCRIPTED_ENCODERS = ("scripted-encoder", "scripted-reranker", "scripted-classifier")


def open_model(model: str, backend: str, options: EngineOptions) -> OpenedModel:
    """Open a model with the backend that the user named, or with the one that suits it.

    Raises:
        UsageError: there is no such backend, or it cannot run this model.
        CupolaError: what the backend raises.
    """
    if backend not in BACKENDS:
        raise UsageError(f"`backend` is {backend!r}; allowed: {', '.join(BACKENDS)}")
    kind = model.partition(":")[0]
    scripted = kind in (SCRIPTED_MODEL, *SCRIPTED_ENCODERS)
    if backend == "scripted" and not scripted:
        raise UsageError(
            f"The scripted backend runs no real model, but `{model}` was asked for",
            hint=f"Name the model `{SCRIPTED_MODEL}`.",
        )
    if scripted and backend != "compiled":
        # Imported here, because each backend brings libraries of its own.
        from cupola.engine.backends.scripted import open_scripted, open_scripted_encoder

        reason = _reason(backend, "scripted", f"the model's name is `{model}`")
        opener = open_scripted_encoder if kind in SCRIPTED_ENCODERS else open_scripted
        return opener(model, options, reason)
    from cupola.engine.backends.compiled import open_compiled
    from cupola.engine.prepare import prepare

    folder, how = prepare(model, quant=options.quant, compile_config=options.compile_config)
    return open_compiled(folder, options, _reason(backend, "compiled", how))


def _reason(asked: str, chosen: str, why: str) -> str:
    return f"{chosen}: {why}" if asked == "auto" else f"{chosen}: asked for by name"
