"""The model behind the endpoints: its engine and its names. Knows no HTTP."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from cupola.engine.async_engine import AsyncEngine
from cupola.protocol.conversation import Conversation
from cupola.protocol.models import Capability
from cupola.server.chat_style import ChatStyle
from cupola.server.served_engine import ServedEngine
from cupola.server.slot import ModelSummary
from cupola.text.infill import find_infill


@dataclass(frozen=True, slots=True)
class ServedModel(ServedEngine):
    """A model that generates.

    Args:
        style: how it converses.
    """

    style: ChatStyle

    @classmethod
    def of(cls, engine: AsyncEngine, names: Sequence[str] = (), reply_format: str | None = None) -> ServedModel:
        """The engine's model under `names`, or under its own name.

        Raises:
            UsageError: there is no `reply_format` of that name; None takes the manifest's, or asks the chat template.
        """
        chosen = reply_format or engine.manifest.reply_format or "auto"
        style = ChatStyle.of(engine.chat_template, engine.tokenizer, chosen)
        return cls(engine, tuple(names) or (engine.model_name,), int(time.time()), style)

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
        bound = f" ({config.pages_bound})" if config.pages_bound else ""
        return ModelSummary(
            kind="generate",
            architecture=manifest.architecture,
            quant=manifest.scheme,
            backend=self.engine.backend,
            context=config.max_context,
            cache=f"{config.num_pages} x {config.page_size} = {slots} tokens{bound}",
            concurrency=config.max_batch,
        )

    async def tokenize_chat(self, conversation: Conversation, *, add_generation_prompt: bool = True) -> list[int]:
        """A valid conversation as token ids, by default up to where the assistant's next message begins.

        Raises:
            RequestError: the model has no chat template, or it refuses these messages.
        """
        return await self.tokenize_prompt(self.style.render(conversation, add_generation_prompt=add_generation_prompt))

    async def tokenize_prompt(self, text: str) -> list[int]:
        """The token ids of a rendered conversation, in which the template has written the special tokens."""
        return await self.engine.tokenize(text, add_special_tokens=False)
