"""`embed` of both faces of the engine, on the scripted encoder; its token ids are the bytes of a text."""

from __future__ import annotations

import asyncio

import pytest

from cupola import AsyncEngine, Engine, EngineOptions
from cupola.errors import ContextLengthError, EngineError, OverloadedError, RequestError, UsageError
from native.test_embedder import expected

SMALL = EngineOptions(max_context=32, max_queue=3)


def test_texts_and_token_ids() -> None:
    with Engine("scripted-encoder", config=SMALL) as engine:
        assert engine.manifest.task == "embed"
        found = engine.embed(["ab", [97, 98], "é"])
        assert [one.vector.tolist() for one in found] == [expected(list(t.encode())) for t in ("ab", "ab", "é")]
        assert [one.num_tokens for one in found] == [2, 2, 2]
        assert engine.embed([]) == []
        assert engine.embed(["ab"], dimensions=3)[0].vector.tolist() == expected([97, 98])[:3]
        assert [one.num_tokens for one in engine.embed(["a" * 99, [7] * 99, "b"], truncate=-1)] == [32, 32, 1]
        first, last = engine.embed(["abc", list(b"abc")], truncate=2)
        assert first.vector.tolist() == expected(list(b"ab"))
        assert last.vector.tolist() == expected(list(b"bc"))


def test_what_is_refused() -> None:
    with Engine("scripted-encoder", config=SMALL) as engine:
        with pytest.raises(ContextLengthError, match="input 1 has 33 tokens") as caught:
            engine.embed(["a", "b" * 33])
        assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")
        for arguments in ({"dimensions": 0}, {"dimensions": 9}, {"truncate": 0}, {"truncate": 33}):
            with pytest.raises(RequestError, match=next(iter(arguments))):
                engine.embed(["a"], **arguments)
        with pytest.raises(RequestError, match="no tokens"):
            engine.embed([[]])
        with pytest.raises(EngineError, match="a token that fails"):
            engine.embed(["fine", "<|im_end|>"])
        assert engine.healthy
    with pytest.raises(EngineError, match="closed"):
        engine.embed(["a"])


def test_each_kind_says_what_it_cannot_do() -> None:
    with Engine("scripted-encoder") as engine:
        for call in (engine.generate, lambda text: engine.score(text, ["b"])):
            with pytest.raises(RequestError, match="makes embeddings and cannot generate"):
                call("a")
        with pytest.raises(RequestError, match="cannot generate"):
            engine.chat([{"role": "user", "content": "a"}])
    with Engine("scripted", config=EngineOptions(num_pages=8)) as engine:
        assert engine.manifest.task == "generate"
        with pytest.raises(RequestError, match="generates text and cannot make embeddings"):
            engine.embed(["a"])


def test_options_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="max_step_tokens"):
        Engine("scripted-encoder", config=EngineOptions(max_step_tokens=16, max_context=17))


async def test_many_at_once_cancellation_and_drain() -> None:
    async with AsyncEngine("scripted-encoder:step_us=100000", config=SMALL) as engine:
        jobs = [asyncio.create_task(engine.embed([f"{i}-{j}" for j in range(20)])) for i in range(3)]
        await asyncio.sleep(0)
        assert engine.active == 3
        with pytest.raises(OverloadedError):
            await engine.embed(["d"])
        jobs[1].cancel()
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert isinstance(found[1], asyncio.CancelledError)
        assert [one.vector.tolist() for one in found[2]] == [expected(list(f"2-{j}".encode())) for j in range(20)]
        running = asyncio.create_task(engine.embed(["x"] * 50))
        await asyncio.sleep(0)
        assert await engine.drain(grace=100)
        assert len(await running) == 50
        with pytest.raises(OverloadedError, match="shutting down"):
            await engine.embed(["a"])
    with pytest.raises(EngineError):
        await engine.embed(["a"])
