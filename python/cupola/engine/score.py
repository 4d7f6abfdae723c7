"""Log-probabilities of given continuations: requests that generate nothing and report on their own prompt.

The prompt that the continuations share is computed once: the first of them goes ahead, and the others find its
pages in the prefix cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cupola.engine.gather import in_order
from cupola.engine.output import Score
from cupola.engine.request import FinishReason, RequestOptions, SamplingParams
from cupola.errors import DeadlineError, RequestError

if TYPE_CHECKING:
    from cupola.engine.async_engine import AsyncEngine, Prompt


async def score_all(
    engine: AsyncEngine, prompt: Prompt, continuations: Sequence[Prompt], options: RequestOptions, top: int
) -> list[Score]:
    """One score for each continuation, in their order; `AsyncEngine.score` says the rest."""
    if isinstance(continuations, str) or not continuations:
        raise RequestError(
            "`continuations` must be a list of at least one text or list of token ids", param="continuations"
        )
    context = await _ids(engine, prompt, "prompt", add_special_tokens=True)
    endings = [await _ids(engine, ending, "continuations", add_special_tokens=False) for ending in continuations]
    params = SamplingParams(temperature=0.0, max_tokens=0, prompt_logprobs=top, prompt_logprobs_from=len(context))

    async def work(ending: list[int]) -> Score:
        completion = await engine.complete([*context, *ending], params, options)
        if completion.finish_reason is FinishReason.DEADLINE:
            raise DeadlineError("A continuation was not scored within its `timeout`")
        return Score(completion.prompt_logprobs, completion.usage)

    first, *others = endings
    return [await work(first), *[score async for score in in_order(engine, others, work)]]


async def _ids(engine: AsyncEngine, text: Prompt, field: str, *, add_special_tokens: bool) -> list[int]:
    ids = await engine.tokenize(text, add_special_tokens=add_special_tokens) if isinstance(text, str) else list(text)
    if not ids:
        raise RequestError(f"`{field}` has no token in it; at least one is needed", param=field)
    return ids
