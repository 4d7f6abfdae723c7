"""How a model converses: from a conversation to the text of a prompt, and how its replies are to be read.

Found once for each model, from its chat template and its tokenizer. Knows no wire format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from cupola.engine.reply_grammar import ReplyPlan, reasoning_state
from cupola.engine.request import ThinkingLimit
from cupola.errors import RequestError
from cupola.protocol.conversation import Conversation, Message
from cupola.protocol.conversation_forms import tools_as_text, weaker_forms
from cupola.text.call_section import CallRules
from cupola.text.chat_template import ChatTemplate
from cupola.text.reply_format import GENERIC_CALLS, ReplyFormat, format_table, named_format
from cupola.text.reply_parser import Reading
from cupola.text.template_form import TemplateForm, probe
from cupola.text.tokenizer import Tokenizer

_THINKING = ("enable_thinking", "thinking")  # what templates call the variable that turns reasoning on and off


@dataclass(frozen=True, slots=True)
class ChatStyle:
    """One for each model.

    Args:
        template: the model's, if it has one.
        form: what the template takes.
        format: what its replies are made of.
        special_tokens: those of the tokenizer, with their ids.
        marks: the ids of the delimiters of reasoning, in order; none where it does not think.
    """

    template: ChatTemplate | None
    form: TemplateForm
    format: ReplyFormat
    special_tokens: Mapping[str, int]
    marks: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())

    @classmethod
    def of(cls, template: ChatTemplate | None, tokenizer: Tokenizer, reply_format: str = "auto") -> ChatStyle:
        """Asks the template. UsageError: there is no format of that name."""
        form = TemplateForm() if template is None else probe(template)
        found = named_format(reply_format, None if template is None else template.sources)
        if not form.tools:
            found = replace(found, calls=format_table().calls[GENERIC_CALLS])
        tokens = {tokenizer.token(token_id) or "": token_id for token_id in sorted(tokenizer.special_ids)}
        special = {token: token_id for token, token_id in tokens.items() if token}
        return cls(template, form, found, special, _marks(found, tokenizer))

    def render(self, conversation: Conversation, *, add_generation_prompt: bool = True) -> str:
        """The prompt's text, by default up to where the assistant's next message begins.

        A template that refuses the conversation is offered weaker forms of it; its first refusal is the one told.

        Raises:
            RequestError: there is no template, or it refuses all forms.
        """
        if self.template is None:
            raise RequestError(
                "The model has no chat template",
                param="messages",
                hint="Use the completions endpoint, or a model that was trained for chat.",
            )
        shown = conversation if conversation.tool_choice.mode != "none" else replace(conversation, tools=())
        if not self.form.tools and (shown.tools or any(message.tool_calls for message in shown.messages)):
            shown = tools_as_text(shown)
        if self.form.short_ids:
            shown = replace(shown, messages=tuple(map(_with_short_ids, shown.messages)))
        refusal: RequestError | None = None
        for form in weaker_forms(shown):
            try:
                return self._render(self.template, form, add_generation_prompt)
            except RequestError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def reading(self, conversation: Conversation, prompt: str, guaranteed: bool) -> Reading:
        """How the reply to a conversation is to be read; `prompt` is its text."""
        tools = conversation.callable_tools
        found = self.format if tools else replace(self.format, calls=None)
        return Reading(
            format=found,
            rules=self._rules(conversation, guaranteed) if tools else None,
            inside_reasoning=found.begins_inside(prompt),
            hidden=found.special_tokens(self.special_tokens),
        )

    def shown_ids(self, reading: Reading) -> tuple[int, ...]:
        """The special tokens that the text has to show to be read so."""
        return tuple(self.special_tokens[token] for token in reading.hidden)

    def plan(self, reading: Reading, prompt: str) -> ReplyPlan:
        """What a grammar of the reply to a prompt has to know."""
        tokens = {token: self.special_tokens[token] for token in reading.hidden}
        return ReplyPlan(reading.format, tokens, reasoning_state(reading.format, prompt))

    def thinking_limit(self, prompt: str, budget: int | None) -> ThinkingLimit | None:
        """What keeps the reply to a prompt within a budget of tokens of reasoning; None: nothing has to.

        Raises:
            RequestError: reasoning does not end with one token in this model's format, so that nothing can.
        """
        state = reasoning_state(self.format, prompt)
        if budget is None or state == "none":
            return None
        start, end = self.marks
        if len(end) != 1:
            raise RequestError(
                f"A budget of {budget} tokens cannot be kept: its reasoning ends with words, not with one token",
                param="thinking_token_budget",
                hint="Leave the limit out, or turn reasoning off.",
            )
        return ThinkingLimit(start, end[0], budget, begun=state == "begun")

    def _rules(self, conversation: Conversation, guaranteed: bool) -> CallRules:
        schemas = {tool.name: tool.parameters for tool in conversation.callable_tools}
        return CallRules(schemas, guaranteed, single=not conversation.parallel_tool_calls)

    def _render(self, template: ChatTemplate, conversation: Conversation, add_generation_prompt: bool) -> str:
        messages = conversation.template_messages(
            parts=self.form.parts, developer=self.form.developer, text_arguments=self.form.text_arguments
        )
        tools = [tool.template_form for tool in conversation.tools]
        return template.render(
            messages,
            tools=tools or None,
            arguments=self._arguments(template, conversation),
            add_generation_prompt=add_generation_prompt,
        )

    def _arguments(self, template: ChatTemplate, conversation: Conversation) -> dict[str, object]:
        """The template's variables: an effort means something to templates that only know on and off, too."""
        arguments: dict[str, object] = {}
        effort = conversation.reasoning_effort
        if effort is not None:
            arguments["reasoning_effort"] = effort
        thinks = conversation.template_arguments.get("enable_thinking", None if effort is None else effort != "none")
        if thinks is not None:
            arguments |= {name: thinks for name in _THINKING if name in template.sources}
        return arguments | conversation.template_arguments


def _marks(found: ReplyFormat, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if found.reasoning is None:
        return (), ()
    start, end = found.reasoning.start.strip(), found.reasoning.end.strip()
    start_ids, end_ids = (tokenizer.encode(text, add_special_tokens=False) for text in (start, end))
    return tuple(start_ids), tuple(end_ids)


def _with_short_ids(message: Message) -> Message:
    if not message.tool_calls and message.tool_call_id is None:
        return message
    calls = tuple(replace(call, id=_short(call.id)) for call in message.tool_calls)
    answered = None if message.tool_call_id is None else _short(message.tool_call_id)
    return replace(message, tool_calls=calls, tool_call_id=answered)


def _short(call_id: str) -> str:
    """Nine letters and digits that stand for an id."""
    if len(call_id) == 9 and call_id.isalnum() and call_id.isascii():
        return call_id
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:9]
