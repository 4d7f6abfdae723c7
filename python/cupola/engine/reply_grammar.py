"""The grammar of a whole reply: reasoning first, then the calls of tools or what the request asks of the text.

Built from the same `ReplyFormat` that the parser reads by, so that whatever it admits is read back as it was meant.
Where a delimiter is a special token of the tokenizer, the grammar asks for that token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cupola.engine.argument_grammar import ArgumentGrammar
from cupola.engine.grammar import FRAMED, GrammarKind, GrammarSpec
from cupola.engine.lark import LarkWriter
from cupola.protocol.conversation import Conversation, Tool
from cupola.text.reply_format import CallFormat, ReplyFormat

ReasoningState = Literal["none", "possible", "begun"]

MAX_CALLS = 16
"""Most calls in one reply that a grammar lets a model write: a small one might never stop."""

_TEXT = "/(?s:.*)/"


@dataclass(frozen=True, slots=True)
class ReplyPlan:
    """What a reply's grammar is made for.

    Args:
        format: how the model writes.
        special_ids: the tokenizer's special tokens, by their text.
        reasoning: whether the reply may begin with reasoning, or has begun with it in the prompt already.
    """

    format: ReplyFormat
    special_ids: Mapping[str, int]
    reasoning: ReasoningState = "none"


def reply_grammar(plan: ReplyPlan, conversation: Conversation, content: GrammarSpec | None) -> GrammarSpec | None:
    """The grammar of the reply to a conversation; None: it is free.

    Calls are bound when one is required, when a tool is strict, and when the text is bound.

    Args:
        content: what the text of the answer has to follow.

    Raises:
        RequestError: a strict tool's schema cannot be kept to in this model's format.
    """
    bound = _calls_are_bound(conversation) or (content is not None and bool(conversation.callable_tools))
    if not bound and (content is None or plan.reasoning == "none"):
        return content
    writer = _ReplyWriter(plan, conversation)
    frame = writer.write(with_calls=bound, content=content)
    if content is None:
        return GrammarSpec(GrammarKind.GRAMMAR, frame)
    return GrammarSpec(content.kind, content.text, frame)


def calls_are_guaranteed(conversation: Conversation, content: GrammarSpec | None) -> bool:
    """Whether `reply_grammar` binds the calls of the reply."""
    return _calls_are_bound(conversation) or (content is not None and bool(conversation.callable_tools))


def _calls_are_bound(conversation: Conversation) -> bool:
    if conversation.tool_choice.mode in ("required", "named"):
        return True
    return any(tool.strict for tool in conversation.callable_tools)


class _ReplyWriter:
    """Writes the rules of one reply."""

    def __init__(self, plan: ReplyPlan, conversation: Conversation) -> None:
        self._plan = plan
        self._conversation = conversation
        self._lark = LarkWriter(plan.special_ids)

    def write(self, *, with_calls: bool, content: GrammarSpec | None) -> str:
        """All rules; with `content`, the rule FRAMED is left to be written."""
        lark, form = self._lark, self._plan.format.calls
        mode = self._conversation.tool_choice.mode
        if not with_calls or form is None:
            main = self._answer(FRAMED)
        elif mode in ("required", "named"):
            main = self._required(form)
        elif content is not None:
            main = f"{self._required(form)} | {self._answer(FRAMED)}"
        else:
            main = self._optional(form)
        lark.rule("main", main)
        return lark.text(f"{self._reasoning()} main".strip())

    def _answer(self, text: str) -> str:
        thinking = self._plan.format.reasoning
        if thinking is None:
            return text
        return self._lark.join(
            self._lark.literal(thinking.content_start), text, self._lark.literal(thinking.content_end)
        )

    # Reasoning.

    def _reasoning(self) -> str:
        thinking, lark = self._plan.format.reasoning, self._lark
        if thinking is None or self._plan.reasoning == "none":
            return ""
        rest = lark.join(lark.rule("thoughts", lark.up_to("thought", thinking.end.strip())), self._after())
        if self._plan.reasoning == "begun":
            return rest
        return f"({lark.literal(thinking.start.strip())} {rest})?"

    def _after(self) -> str:
        """Between reasoning and answer: white space may be missing, other framing not."""
        thinking = self._plan.format.reasoning
        assert thinking is not None
        return self._lark.literal(thinking.after) if thinking.after.strip() else r"/\n{0,2}/"

    # Calls.

    def _required(self, form: CallFormat) -> str:
        """One call or more, and nothing else."""
        lark = self._lark
        first, others = self._calls(form)
        return lark.join(self._opening(form), first, others, self._closing(form))

    def _calls(self, form: CallFormat) -> tuple[str, str]:
        """The first call without its start, and those that may follow."""
        lark = self._lark
        call = lark.rule("call", " | ".join(self._call(form, tool) for tool in self._conversation.callable_tools))
        several = self._conversation.parallel_tool_calls and self._conversation.tool_choice.mode != "named"
        if not several or form.end_is_eos:
            return call, ""
        separator, start = lark.literal(form.separator), lark.literal(form.start)
        return call, f"({lark.join(separator, start, call)}){{0,{MAX_CALLS - 1}}}"

    def _opening(self, form: CallFormat) -> str:
        return self._lark.literal(form.begin + form.open + form.start)

    def _closing(self, form: CallFormat) -> str:
        bare_end = "" if form.bare else form.finish
        return self._lark.literal(form.close + bare_end)

    def _optional(self, form: CallFormat) -> str:
        """Any text, and then calls if the delimiter that announces them comes."""
        lark = self._lark
        first, others = self._calls(form)
        calls = lark.join(first, others, self._closing(form))
        free = lark.terminal("FREE", _TEXT)
        if form.bare:
            bracket = re.escape(form.open or "{")
            plain = lark.terminal("PLAIN", rf"/[^\s{bracket}](?s:.*)/")
            return f'{lark.join(self._opening(form), calls)} | {plain} | ""'
        opening = form.begin + form.open + form.start
        opener = opening.split()[0] if opening.split() else opening
        token = next((token for token in self._plan.special_ids if opening.startswith(token)), None)
        if token is not None:
            return f"{free} ({lark.join(self._opening(form), calls)})?"
        announced = lark.rule("announced[lazy]", f"{free} {lark.quoted(opener)}")
        return f"{free} | {lark.join(announced, lark.literal(opening[len(opener) :]), calls)}"

    def _call(self, form: CallFormat, tool: Tool) -> str:
        """A call of one tool, from behind its start to its end."""
        lark, arguments = self._lark, ArgumentGrammar(self._lark, form, tool)
        end = "" if form.end_is_eos else form.end
        match form.syntax:
            case "json":
                extra = self._numbered(form.extra)
                head = lark.literal(f"{json.dumps(form.name_key)}: {json.dumps(tool.name)}, ")
                key = lark.literal(f"{json.dumps(form.arguments_key)}: ")
                return lark.join(lark.literal("{"), extra, head, key, arguments.json(), lark.literal("}" + end))
            case "named":
                head = lark.join(lark.literal(tool.name), self._numbered(form.tag), lark.literal(form.arguments_start))
                return lark.join(head, arguments.json(), lark.literal(end))
            case "python":
                return lark.join(lark.literal(f"{tool.name}("), arguments.python(), lark.literal(f"){end}"))
            case "parameters":
                return lark.join(lark.literal(tool.name + form.name_end), arguments.parameters(), lark.literal(end))
            case "keyed":
                return lark.join(lark.literal(f"{tool.name}{{"), arguments.keyed(), lark.literal(f"}}{end}"))

    def _numbered(self, text: str) -> str:
        before, found, after = text.partition("{index}")
        if not found:
            return self._lark.literal(text)
        return self._lark.join(self._lark.literal(before), "/[0-9]{1,3}/", self._lark.literal(after))


def reasoning_state(format_: ReplyFormat, prompt: str) -> ReasoningState:
    """Whether the reply to a prompt may begin with reasoning."""
    if format_.reasoning is None or format_.begins_after(prompt):
        return "none"
    return "begun" if format_.begins_inside(prompt) else "possible"
