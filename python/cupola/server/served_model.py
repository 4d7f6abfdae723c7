"""The model behind the endpoints: its engine and its names. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.histogram import HistogramCounts
from cupola.engine.report import RequestReport
from cupola.engine.request import EngineStats
from cupola.protocol.conversation import Conversation
from cupola.protocol.errors import model_not_found
from cupola.protocol.models import Capability
from cupola.server.chat_style import ChatStyle
from cupola.server.slot import ModelSummary
from cupola.text.infill import find_infill

_HANG_SECONDS = 120.0  # far longer than any step; a thread that has work and is silent for so long is stuck


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One engine under one or more names; the first is the one that responses carry.

    Args:
        engine: a started engine.
        names: at least one.
        created: Unix time.
        style: how it converses.
    """

    engine: AsyncEngine
    names: tuple[str, ...]
    created: int
    style: ChatStyle

    @classmethod
    def of(cls, engine: AsyncEngine, names: Sequence[str] = (), reply_format: str = "auto") -> ServedModel:
        """The engine's model under `names`, or under its own name.

        Raises:
            UsageError: there is no `reply_format` of that name; "auto" asks the chat template.
        """
        style = ChatStyle.of(engine.chat_template, engine.tokenizer, reply_format)
        return cls(engine, tuple(names) or (engine.model_name,), int(time.time()), style)

    @property
    def name(self) -> str:
        """The name that responses carry."""
        return self.names[0]

    @property
    def max_model_len(self) -> int:
        """Most tokens of one request."""
        return self.engine.config.max_context

    @property
    def page_size(self) -> int:
        """Token slots a page of the KV cache."""
        return self.engine.config.page_size

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """What may be asked of it."""
        chats = self.style.template is not None
        found: dict[Capability, bool] = {
            "chat": chats,
            "completions": True,
            "infill": find_infill(self.engine.tokenizer) is not None,
            "structured_outputs": True,
            "tools": chats,
            "thinking": chats and self.style.format.reasoning is not None,
        }
        return tuple(name for name, has in found.items() if has)

    @property
    def summary(self) -> ModelSummary:
        """What the operator wants to see of it."""
        config, manifest = self.engine.config, self.engine.manifest
        slots = config.num_pages * config.page_size
        return ModelSummary(
            kind="generate",
            architecture=manifest.architecture,
            quant=manifest.scheme,
            backend=self.engine.backend,
            context=config.max_context,
            cache=f"{config.num_pages} x {config.page_size} = {slots} tokens",
            concurrency=config.max_batch,
        )

    def stats(self) -> EngineStats:
        """Counters and gauges of the engine now."""
        return self.engine.stats()

    def histograms(self) -> Mapping[str, HistogramCounts]:
        """What the engine measures of its steps, by name."""
        return self.engine.histograms()

    def watch(self, on_end: Callable[[RequestReport], None]) -> None:
        """Have every request's numbers reported when it ends."""
        self.engine.watch(on_end)

    def retire(self) -> None:
        """The first half of closing the engine, on the event loop."""
        self.engine.retire()

    def release(self) -> None:
        """The second half: frees its memory. Blocks."""
        self.engine.release()

    def check_name(self, name: str) -> None:
        """Raises ApiError 404 for a name that is not served."""
        if name not in self.names:
            raise model_not_found(name, self.names)

    async def tokenize_chat(self, conversation: Conversation, *, add_generation_prompt: bool = True) -> list[int]:
        """A valid conversation as token ids, by default up to where the assistant's next message begins.

        Raises:
            RequestError: the model has no chat template, or it refuses these messages.
        """
        return await self.tokenize_prompt(self.style.render(conversation, add_generation_prompt=add_generation_prompt))

    async def tokenize_prompt(self, text: str) -> list[int]:
        """The token ids of a rendered conversation, in which the template has written the special tokens."""
        return await self.engine.tokenize(text, add_special_tokens=False)

    def fault(self) -> str | None:
        """Why the engine cannot work, or None while it can."""
        if not self.engine.healthy:
            return f"The engine has failed: {self.engine.failure or 'it was closed'}."
        stats = self.engine.stats()
        if stats.running + stats.waiting > 0 and stats.last_step_age > _HANG_SECONDS:
            return f"The engine has given no sign of life for {stats.last_step_age:.0f} s."
        return None
