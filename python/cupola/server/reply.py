"""The bridge from a conversation to what the model answers: reasoning, content, tool calls. Knows no wire format.

A `Reply` runs the choices of one request (`Generation`) and parses the text of each. Like a Generation it is used in an
`async with`, or through `cupola.server.answer`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cupola.engine.output import ScoredPosition, TextDelta
from cupola.engine.reply_grammar import calls_are_guaranteed, reply_grammar
from cupola.engine.request import FinishReason
from cupola.errors import RequestError
from cupola.protocol.conversation import Conversation, Message, TextPart, ToolCall
from cupola.protocol.generation import GenerationFields, Usage
from cupola.server.generation import Generation, Job, wire_reason
from cupola.server.sampling import choice_sampling, request_options
from cupola.server.served_model import ServedModel
from cupola.server.structured import grammar_field
from cupola.text.detokenizer import Detokenizer
from cupola.text.reply_events import (
    ContentDelta,
    ReasoningDelta,
    ReplyEvent,
    ToolCallArguments,
    ToolCallBegin,
    merged,
)
from cupola.text.reply_parser import Reading, ReplyParser
from cupola.text.tokenizer import Tokenizer

Finish = Literal["stop", "length", "tool_calls"]


class ReplyDelta(NamedTuple):
    """What is new about one choice.

    Args:
        events: what the new text means; may be empty while it could still mean something else.
        token_ids: new token ids. They may be ahead of the events.
        logprobs: one for each of `token_ids`, if the request asked for them.
        prompt_logprobs: of the next positions of the prompt, likewise.
        finish: set on the last delta of a choice, and only there.
        stop_sequence: the stop string that ended the choice, where one did; on the last delta.
    """

    events: tuple[ReplyEvent, ...]
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[ScoredPosition, ...] = ()
    prompt_logprobs: tuple[ScoredPosition, ...] = ()
    finish: Finish | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice as a whole; the message is the assistant's, ready to go into the next conversation."""

    message: Message
    finish: Finish
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[ScoredPosition, ...] = ()
    prompt_logprobs: tuple[ScoredPosition, ...] = ()
    stop_sequence: str | None = None


async def open_reply(
    model: ServedModel,
    conversation: Conversation,
    fields: GenerationFields,
    param_names: Mapping[str, str] | None = None,
    *,
    clip: bool = False,
) -> Reply:
    """A reply, ready to start.

    Args:
        fields: how to generate.
        param_names: what the endpoint calls `messages`, `tools`, `max_tokens`, ..., where it differs; for errors.
        clip: more tokens may be asked for than the context has room for; the answer then ends where it does.

    Raises:
        OverloadedError: the queue is full.
        RequestError: the conversation is not valid, or the model's chat template refuses it.
    """
    names = {"prompt": "messages", "grammar": grammar_field(fields), **(param_names or {})}
    model.engine.check_room()
    try:
        conversation.validate()
        text = model.style.render(conversation)
        prompt = await model.tokenize_prompt(text)
    except RequestError as error:
        raise renamed(error, names) from None
    samplings = choice_sampling(fields, model.engine.default_params)
    room = model.max_model_len - len(prompt)
    if clip and fields.token_limit is not None and fields.token_limit > room > 0:
        samplings = tuple(replace(one, max_tokens=room) for one in samplings)
    content = samplings[0].grammar
    reading = model.style.reading(conversation, text, guaranteed=calls_are_guaranteed(conversation, content))
    try:
        grammar = reply_grammar(model.style.plan(reading, text), conversation, content)
        limit = model.style.thinking_limit(text, conversation.thinking_budget)
    except RequestError as error:
        raise renamed(error, names) from None
    if content is None:
        names["grammar"] = names.get("tools", "tools")
    shown = model.style.shown_ids(reading)
    samplings = tuple(replace(one, grammar=grammar, shown_ids=shown, thinking_limit=limit) for one in samplings)
    options = request_options(fields)
    jobs = [Job(0, prompt, sampling, options) for sampling in samplings]
    return Reply(Generation(model.engine, jobs, names), reading, model.engine.tokenizer)


def renamed(error: RequestError, names: Mapping[str, str]) -> RequestError:
    """The error with the endpoint's own name for the field."""
    if error.param is not None:
        head, dot, rest = error.param.partition(".")
        error.param = f"{names.get(head, head)}{dot}{rest}"
    return error


class Reply:
    """The choices of one request, parsed.

    Args:
        generation: the same as text.
        reading: how each of them is to be read.
        tokenizer: the model's.
    """

    def __init__(self, generation: Generation, reading: Reading, tokenizer: Tokenizer) -> None:
        self._generation = generation
        self._choices = [_Choice(reading, tokenizer, job.sampling.shown_ids) for job in generation.jobs]

    async def start(self) -> None:
        """Hands every choice to the engine; what it refuses is raised here, before any answer begins."""
        await self._generation.start()

    async def aclose(self) -> None:
        """Ends what still runs; safe to call at any time, and twice."""
        await self._generation.aclose()

    async def __aenter__(self) -> Reply:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @property
    def jobs(self) -> Sequence[Job]:
        """What runs: one for each choice, in their order."""
        return self._generation.jobs

    @property
    def first_token(self) -> float | None:
        """When the first token came, by `time.perf_counter`."""
        return self._generation.first_token

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        usage = self._generation.usage
        cached = usage.prompt_tokens_details.cached_tokens
        reasoning = sum(choice.reasoning_tokens for choice in self._choices)
        return Usage.of(usage.prompt_tokens, usage.completion_tokens, cached, reasoning)

    async def deltas(self) -> AsyncGenerator[tuple[int, ReplyDelta], None]:
        """(index of the choice, what is new about it), in the order in which the engine produces them."""
        async with contextlib.aclosing(self._generation.deltas()) as deltas:
            async for index, delta in deltas:
                choice = self._choices[index]
                events = choice.push(delta)
                if delta.finish_reason is None:
                    yield index, ReplyDelta(events, delta.token_ids, delta.logprobs, delta.prompt_logprobs)
                    continue
                yield index, choice.last(events, delta)
                if not choice.ended:
                    wire_reason(delta.finish_reason)  # raises: what has come so far is told first

    async def answers(self) -> list[Answer]:
        """Waits for every choice to end."""
        parts: list[list[ReplyDelta]] = [[] for _ in self._choices]
        async with contextlib.aclosing(self.deltas()) as deltas:
            async for index, delta in deltas:
                parts[index].append(delta)
        return [_answer(part) for part in parts]


class _Choice:
    """The parser of one choice, and what its tokens were spent on."""

    __slots__ = ("_parser", "_reads_reasoning", "_shown_ids", "_token_ids", "_tokenizer", "ended", "reasoning_tokens")

    def __init__(self, reading: Reading, tokenizer: Tokenizer, shown_ids: Sequence[int]) -> None:
        self.ended = False
        self.reasoning_tokens = 0
        self._parser = ReplyParser(reading)
        self._reads_reasoning = reading.format.reasoning is not None
        self._tokenizer = tokenizer
        self._shown_ids = shown_ids
        self._token_ids: list[int] = []

    def push(self, delta: TextDelta) -> tuple[ReplyEvent, ...]:
        """What the new text means."""
        if self._reads_reasoning:
            self._token_ids.extend(delta.token_ids)
        return self._parser.push(delta.text)

    def last(self, events: tuple[ReplyEvent, ...], delta: TextDelta) -> ReplyDelta:
        """The end of the choice; without `finish` if it is one that is an error."""
        reason = delta.finish_reason
        if reason not in (FinishReason.STOP, FinishReason.LENGTH):
            return ReplyDelta(events, delta.token_ids, delta.logprobs, delta.prompt_logprobs)
        self.ended = True
        events += self._parser.finish()
        self.reasoning_tokens = self._count_reasoning()
        calls = self._parser.has_calls and reason is FinishReason.STOP
        finish: Finish = "tool_calls" if calls else wire_reason(reason)
        tokens = (delta.token_ids, delta.logprobs, delta.prompt_logprobs)
        return ReplyDelta(merged(events), *tokens, finish, delta.stop_sequence)

    def _count_reasoning(self) -> int:
        """Tokens whose text begins within reasoning."""
        spans = self._parser.reasoning_spans
        if not spans:
            return 0
        detokenizer, place, count = Detokenizer(self._tokenizer, shown=self._shown_ids), 0, 0
        for token_id in self._token_ids:
            count += any(begin <= place < end for begin, end in spans)
            place += len(detokenizer.push((token_id,)).text)
        return count


def _answer(deltas: Sequence[ReplyDelta]) -> Answer:
    last = deltas[-1]
    assert last.finish is not None
    return Answer(
        message=message_of([event for delta in deltas for event in delta.events]),
        finish=last.finish,
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        logprobs=tuple(position for delta in deltas for position in delta.logprobs),
        prompt_logprobs=tuple(position for delta in deltas for position in delta.prompt_logprobs),
        stop_sequence=last.stop_sequence,
    )


def message_of(events: Sequence[ReplyEvent]) -> Message:
    """The assistant's message that these events tell."""
    content: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[str, str, list[str]]] = []
    for event in events:
        if isinstance(event, ContentDelta):
            content.append(event.text)
        elif isinstance(event, ReasoningDelta):
            reasoning.append(event.text)
        elif isinstance(event, ToolCallBegin):
            calls.append((event.id, event.name, []))
        elif isinstance(event, ToolCallArguments):
            calls[event.index][2].append(event.text)
    text = "".join(content)
    return Message(
        role="assistant",
        content=(TextPart(text),) if text else (),
        tool_calls=tuple(ToolCall(call_id, name, "".join(arguments)) for call_id, name, arguments in calls),
        reasoning="".join(reasoning) or None,
    )
