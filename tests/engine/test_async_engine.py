"""Text in, text out, on the scripted model: exactness, ends of every kind, slow and vanishing readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from scripted_engine import GREEDY, all_pages_back, oracle_text, until

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.engine.output import Usage
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import EngineError, OverloadedError, RequestError

SLOW = "scripted:step_us=2000"
LONG = SamplingParams(temperature=0.0)  # to the end of the context


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with AsyncEngine("scripted") as engine:
        yield engine


async def test_the_text_is_the_oracles_whatever_runs_beside_it(engine: AsyncEngine) -> None:
    prompts = [f"prompt {n} " * (n % 40 + 1) for n in range(100)]
    completions = await asyncio.gather(*(engine.complete(prompt, GREEDY) for prompt in prompts))
    assert [completion.text for completion in completions] == [oracle_text(prompt, 16) for prompt in prompts]
    assert {completion.finish_reason for completion in completions} == {FinishReason.LENGTH}
    assert replace(completions[3].usage, cached_tokens=0) == Usage(prompt_tokens=len(prompts[3]), completion_tokens=16)


async def test_deltas_add_up_and_only_the_last_one_ends(engine: AsyncEngine) -> None:
    deltas = [delta async for delta in engine.generate("hello", GREEDY)]
    assert "".join(delta.text for delta in deltas) == oracle_text("hello", 16)
    assert bytes(token_id for delta in deltas for token_id in delta.token_ids).decode() == oracle_text("hello", 16)
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert [delta.usage for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert deltas[-1].usage == Usage(5, 16)


async def test_text_comes_before_the_end() -> None:
    async with AsyncEngine(SLOW) as engine:
        # Seconds long, because a reader that is late gets all that piled up as one delta.
        stream = engine.submit("hello", LONG)
        assert (await anext(stream)).finish_reason is None
        await stream.aclose()


async def test_a_stop_id_ends_it_counts_and_is_not_shown() -> None:
    model = "scripted:eos_every=8"
    async with AsyncEngine(model) as engine:
        completion = await engine.complete("a prompt", SamplingParams(temperature=0.0))
        expected = oracle_text("a prompt", 4000, model)
        assert completion.text == expected
        assert completion.finish_reason is FinishReason.STOP
        assert completion.usage == Usage(8, len(expected) + 1)
        longer = await engine.complete("a prompt", SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True))
        assert longer.finish_reason is FinishReason.LENGTH
        assert longer.usage.completion_tokens == 60
        assert longer.text.startswith(expected)


async def test_the_callers_stop_ids_end_it(engine: AsyncEngine) -> None:
    text = oracle_text("x", 16)
    completion = await engine.complete("x", replace(GREEDY, stop_token_ids=(ord(text[5]),)))
    assert completion.text == text[: text.index(text[5])]
    assert completion.finish_reason is FinishReason.STOP


async def test_a_stop_string_ends_the_request_and_frees_its_pages(engine: AsyncEngine) -> None:
    text = oracle_text("stop here", 100)
    stop = text[40:44]
    completion = await engine.complete("stop here", replace(LONG, stop=("never", stop)))
    cut = text.index(stop)
    assert completion.text == text[:cut]
    assert completion.finish_reason is FinishReason.STOP
    assert completion.usage.completion_tokens == len(completion.token_ids) == cut + len(stop)
    await all_pages_back(engine)


async def test_characters_of_several_tokens_are_never_torn() -> None:
    """All 256 bytes: the deltas are the text of all bytes, invalid ones replaced."""
    async with AsyncEngine("scripted:first_id=0,num_ids=256") as engine:
        stream = engine.submit("x", replace(GREEDY, max_tokens=500))
        deltas = [delta async for delta in stream]
        ids = [token_id for delta in deltas for token_id in delta.token_ids]
        assert "".join(delta.text for delta in deltas) == bytes(ids).decode(errors="replace")
        assert engine.tokenizer.encode("ä") == [0xC3, 0xA4]


async def test_a_slow_reader_loses_nothing_and_blocks_nobody(engine: AsyncEngine) -> None:
    slow = engine.submit("slow reader", replace(GREEDY, max_tokens=300))
    others = await asyncio.gather(*(engine.complete(f"{n}", GREEDY) for n in range(70)))
    assert [other.text for other in others] == [oracle_text(f"{n}", 16) for n in range(70)]
    await until(lambda: engine.active == 0)
    deltas = [delta async for delta in slow]
    assert len(deltas) == 1  # what piled up comes as one
    assert deltas[0].text == oracle_text("slow reader", 300)


@pytest.mark.parametrize("way", ["aclose", "cancel", "with", "drop", "generator"])
async def test_leaving_a_stream_aborts_its_request(way: str) -> None:
    async with AsyncEngine(SLOW) as engine:
        await leave(engine, way)
        await all_pages_back(engine)
        assert engine.active == 0
        assert engine.stats().aborted == 1
        assert (await engine.complete("next", GREEDY)).text == oracle_text("next", 16)


async def leave(engine: AsyncEngine, way: str) -> None:
    if way == "generator":
        deltas = engine.generate("hello", LONG)
        await anext(deltas)
        await deltas.aclose()
        return
    stream = engine.submit("hello", LONG)
    await anext(stream)
    if way == "aclose":
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    elif way == "cancel":
        task = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif way == "with":
        async with stream:
            pass
    else:
        del stream


async def test_leaving_the_queue_aborts_too() -> None:
    async with AsyncEngine(SLOW, config=EngineOptions(max_batch=1)) as engine:
        running = engine.submit("first", LONG)
        await anext(running)
        waiting = [engine.submit("later", LONG) for _ in range(5)]
        await until(lambda: engine.stats().waiting == 5)
        for stream in waiting:
            await stream.aclose()
        await until(lambda: engine.stats().waiting == 0)
        await running.aclose()
        await all_pages_back(engine)


async def test_leaving_in_the_middle_of_the_prompt_gives_the_pages_back() -> None:
    async with AsyncEngine(SLOW, config=EngineOptions(max_step_tokens=16)) as engine:
        stream = engine.submit("long " * 600, LONG)
        await until(lambda: engine.stats().pages_free < engine.stats().pages_total)
        await stream.aclose()
        await all_pages_back(engine)


async def test_abort_ends_a_stream_with_what_it_has() -> None:
    async with AsyncEngine(SLOW) as engine:
        stream = engine.submit("hello", LONG)
        first = await anext(stream)
        engine.abort(stream.request_id)
        engine.abort(10**9)  # nobody's
        rest = await stream.completion()
        assert rest.finish_reason is FinishReason.ABORT
        assert oracle_text("hello", 1500).startswith(first.text + rest.text)


async def test_a_failed_step_ends_its_batch_and_the_engine_goes_on() -> None:
    async with AsyncEngine("scripted:step_us=20000,fail_at_step=16") as engine:
        results = await asyncio.gather(*(engine.complete("x", GREEDY) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [EngineError] * 3
        assert "scripted failure" in str(results[0])
        assert engine.healthy
        assert (await engine.complete("x", GREEDY)).text == oracle_text("x", 16)
        await all_pages_back(engine)


async def test_a_failed_request_gives_what_came_before_the_failure() -> None:
    async with AsyncEngine("scripted:step_us=1000,fail_at_step=8") as engine:
        stream = engine.submit("x", GREEDY)
        text = ""
        while len(text) < 7:
            text += (await anext(stream)).text
        with pytest.raises(EngineError, match="step 8"):
            await anext(stream)
        assert text == oracle_text("x", 7)


async def test_when_the_engine_dies_every_stream_raises_and_it_is_unhealthy() -> None:
    async with AsyncEngine("scripted:step_us=1000,fail_at_step=3,fail_steps=1000000") as engine:
        for _ in range(100):  # the engine gives up after some failures in a row
            if not engine.healthy:
                break
            results = await asyncio.gather(*(engine.complete("x", GREEDY) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(result, EngineError) for result in results)
        assert not engine.healthy
        assert engine.failure is not None
        assert "scripted failure" in engine.failure
        assert engine.active == 0
        with pytest.raises(EngineError, match="died"):
            engine.submit("x", GREEDY)


async def test_close_ends_what_runs_and_refuses_what_comes() -> None:
    engine = AsyncEngine(SLOW)
    stream = engine.submit("hello", LONG)
    await anext(stream)
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await stream.completion()
    with pytest.raises(EngineError, match="closed"):
        engine.submit("x")
    assert not engine.healthy
    await engine.close()


async def test_a_full_queue_refuses_and_leaves_no_trace() -> None:
    async with AsyncEngine(SLOW, config=EngineOptions(max_batch=1, max_queue=2)) as engine:
        streams = [engine.submit("x", LONG)]
        await anext(streams[0])
        streams += [engine.submit("x", LONG) for _ in range(2)]
        with pytest.raises(OverloadedError):
            engine.submit("x", LONG)
        assert engine.active == len(streams)
        for stream in streams:
            await stream.aclose()
        await all_pages_back(engine)


async def test_drain_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async with AsyncEngine(SLOW) as engine:
        running = engine.submit("hello", GREEDY)
        await anext(running)
        drained = asyncio.create_task(engine.drain())
        await until(lambda: engine.draining)
        with pytest.raises(OverloadedError):
            engine.submit("x", GREEDY)
        assert await drained
        assert (await running.completion()).finish_reason is FinishReason.LENGTH
        assert engine.healthy


async def test_drain_aborts_what_takes_too_long() -> None:
    async with AsyncEngine(SLOW) as engine:
        running = engine.submit("hello", LONG)
        assert not await engine.drain(grace=0.01)
        assert (await running.completion()).finish_reason is FinishReason.ABORT


async def test_drain_of_an_idle_engine_returns_at_once(engine: AsyncEngine) -> None:
    assert await engine.drain()


async def test_chat_is_the_template_and_then_the_model(engine: AsyncEngine) -> None:
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    prompt = engine.render_chat(messages)
    assert prompt == "<|im_start|>system\nBe brief<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = await engine.tokenize_chat(messages)
    assert ids[0] == 257  # a special token, not its letters
    answer = await engine.chat(messages, GREEDY)
    again = await engine.complete(ids, GREEDY)
    assert again.usage.cached_tokens == len(ids) - 1  # all but the one that the answer follows
    assert replace(again, usage=answer.usage) == answer
    streamed = [delta.text async for delta in engine.stream_chat(messages, GREEDY)]
    assert "".join(streamed) == answer.text
    with pytest.raises(RequestError, match="Unknown role"):
        await engine.chat([{"role": "nobody", "content": "x"}])


async def test_long_texts_are_tokenized_like_short_ones(engine: AsyncEngine) -> None:
    text = "ab" * 10_000
    assert await engine.tokenize(text) == list(text.encode())
    assert await engine.tokenize("") == []


async def test_the_same_seed_gives_the_same_text(engine: AsyncEngine) -> None:
    params = SamplingParams(temperature=2.0, seed=7, max_tokens=400)
    first, again, other = await asyncio.gather(
        engine.complete("x", params), engine.complete("x", params), engine.complete("x", replace(params, seed=8))
    )
    assert first == again
    assert first.text != other.text


async def test_a_tight_pool_preempts_and_changes_nothing() -> None:
    options = EngineOptions(num_pages=8, max_context=100, max_step_tokens=32, max_batch=16, admission="optimistic")
    async with AsyncEngine("scripted:step_us=300", config=options) as engine:  # so that they meet
        prompts = [f"prompt {n}" for n in range(30)]
        params = replace(GREEDY, max_tokens=80)
        completions = await asyncio.gather(*(engine.complete(prompt, params) for prompt in prompts))
        assert [completion.text for completion in completions] == [oracle_text(prompt, 80) for prompt in prompts]
        assert engine.stats().preemptions > 0
        await all_pages_back(engine)


def test_an_engine_may_serve_one_loop_after_another() -> None:
    engine = AsyncEngine("scripted")
    for _ in range(2):
        assert asyncio.run(engine.complete("loop", GREEDY)).text == oracle_text("loop", 16)
    asyncio.run(engine.close())


async def test_an_engine_refuses_a_second_loop_while_it_works() -> None:
    async with AsyncEngine(SLOW) as engine:
        stream = engine.submit("x", LONG)
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, engine.complete("x", GREEDY))
        await stream.aclose()


async def test_open_does_not_block_the_loop_and_says_what_it_chose() -> None:
    async with await AsyncEngine.open("scripted") as engine:
        assert engine.backend == "scripted"
        assert engine.backend_reason == "scripted: the model's name is `scripted`"
        assert engine.model_name == "scripted"
