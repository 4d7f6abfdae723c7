"""Several models in one server: found by name, loaded when they are wanted, unloaded when nobody wants them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator

import httpx
import pytest

from cupola.engine.async_engine import AsyncEngine
from cupola.engine.options import EngineOptions
from cupola.errors import EngineError, ModelError, OverloadedError, UsageError
from cupola.server.app import create_app
from cupola.server.lifecycle import Lifecycle
from cupola.server.served_model import ServedModel
from cupola.server.services import ServerSettings
from cupola.server.shelf import ModelShelf
from cupola.server.slot import ModelSlot, SlotLimits
from stand import COMPLETIONS, until

IDLE = 0.02


class Opener:
    """Opens the scripted model, when it is let; remembers what it opened."""

    def __init__(self, name: str, script: str = "scripted") -> None:
        self.name = name
        self.gate = threading.Event()
        self.gate.set()
        self.opened: list[weakref.ref[AsyncEngine]] = []
        self.error: Exception | None = None
        self._script = script

    def __call__(self) -> ServedModel:
        assert self.gate.wait(100)
        if self.error is not None:
            raise self.error
        engine = AsyncEngine(self._script, config=EngineOptions(num_pages=64))
        self.opened.append(weakref.ref(engine))
        return ServedModel.of(engine, [self.name])

    def slot(self, idle: float | None = None, max_waiting: int = 100) -> ModelSlot:
        return ModelSlot([self.name], self, SlotLimits(idle, max_waiting))


@contextlib.asynccontextmanager
async def client_of(*slots: ModelSlot) -> AsyncIterator[httpx.AsyncClient]:
    shelf = ModelShelf(slots)
    app = create_app(shelf, ServerSettings(), Lifecycle())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        try:
            yield client
        finally:
            await shelf.close()


def body(name: str, tokens: int = 2, **more: object) -> dict[str, object]:
    return {"model": name, "prompt": "x", "max_tokens": tokens, "ignore_eos": True, **more}


async def test_each_name_finds_its_own_model() -> None:
    one, two = Opener("one", "scripted:first_id=97,num_ids=1"), Opener("two", "scripted:first_id=98,num_ids=1")
    async with client_of(one.slot(), two.slot()) as client:
        answers = [(await client.post(COMPLETIONS, json=body(name))).json() for name in ("one", "two")]
        assert [(answer["model"], answer["choices"][0]["text"]) for answer in answers] == [("one", "aa"), ("two", "bb")]
        missing = (await client.post(COMPLETIONS, json=body("three"))).json()["error"]
        assert missing["code"] == "model_not_found"
        assert "`one`, `two`" in missing["message"]
        metrics = (await client.get("/metrics")).text
        for name in ("one", "two"):
            assert f'cupola:generation_tokens_total{{model_name="{name}"}} 2.0' in metrics


async def test_a_model_is_loaded_for_its_first_request_and_only_once() -> None:
    opener = Opener("lazy")
    slot = opener.slot()
    async with client_of(slot) as client:
        card = (await client.get("/v1/models")).json()["data"][0]
        expected = {"id": "lazy", "max_model_len": None, "capabilities": None, "state": "unloaded"}
        assert expected.items() <= card.items()
        opener.gate.clear()
        requests = [asyncio.create_task(client.post(COMPLETIONS, json=body("lazy"))) for _ in range(8)]
        await until(lambda: slot.waiting == 8)
        assert slot.state == "loading"
        assert (await client.get("/ready")).status_code == 200
        assert 'cupola:num_requests_waiting{model_name="lazy"} 8.0' in (await client.get("/metrics")).text
        opener.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}
        assert len(opener.opened) == 1
        card = (await client.get("/v1/models/lazy")).json()
        assert (card["state"], card["max_model_len"]) == ("loaded", 1024)


async def test_too_many_may_not_wait() -> None:
    opener = Opener("lazy")
    slot = opener.slot(max_waiting=2)
    async with client_of(slot) as client:
        opener.gate.clear()
        requests = [asyncio.create_task(client.post(COMPLETIONS, json=body("lazy"))) for _ in range(2)]
        await until(lambda: slot.waiting == 2)
        refused = await client.post(COMPLETIONS, json=body("lazy"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        opener.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*requests)} == {200}


async def test_who_stops_waiting_does_not_stop_the_loading() -> None:
    opener = Opener("lazy")
    slot = opener.slot()
    async with client_of(slot) as client:
        opener.gate.clear()
        leaving, staying = (asyncio.create_task(client.post(COMPLETIONS, json=body("lazy"))) for _ in range(2))
        await until(lambda: slot.waiting == 2)
        leaving.cancel()
        await until(lambda: slot.waiting == 1)
        opener.gate.set()
        assert (await staying).status_code == 200
        assert len(opener.opened) == 1


async def test_an_idle_model_frees_its_engine_and_comes_back() -> None:
    opener = Opener("idle")
    slot = opener.slot(IDLE)
    async with client_of(slot) as client:
        for round_ in (1, 2, 3):
            answer = await client.post(COMPLETIONS, json=body("idle", 5))
            assert (answer.status_code, len(opener.opened)) == (200, round_)
            await until(lambda: slot.state == "unloaded")
            await until(lambda: opener.opened[-1]() is None)  # nothing keeps the engine alive
            assert (await client.get("/ready")).status_code == 200
            assert (await client.get("/v1/models/idle")).json()["max_model_len"] == 1024
        metrics = (await client.get("/metrics")).text
        assert 'cupola:model_loaded{model_name="idle"} 0.0' in metrics
        assert 'cupola:kv_pages{model_name="idle"} 0.0' in metrics
        assert 'cupola:generation_tokens_total{model_name="idle"} 15.0' in metrics, "counters never go back"
        assert 'cupola:inter_token_latency_seconds_count{model_name="idle"} 12.0' in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_works_is_not_idle(stream: bool) -> None:
    opener = Opener("busy", "scripted:step_us=1000")
    slot = opener.slot(IDLE)
    async with client_of(slot) as client:
        answer = await client.post(COMPLETIONS, json=body("busy", 300, stream=stream))
        assert answer.status_code == 200
        assert "error" not in answer.text
        assert len(opener.opened) == 1
        await until(lambda: slot.state == "unloaded")


async def test_nobody_is_lost_while_a_model_comes_and_goes() -> None:
    opener = Opener("flapping", "scripted:step_us=300")
    slot = opener.slot(0.001)
    async with client_of(slot) as client:
        for round_ in range(8):
            requests = [asyncio.create_task(client.post(COMPLETIONS, json=body("flapping", 5))) for _ in range(4)]
            for answer in await asyncio.gather(*requests):
                assert len(answer.json()["choices"][0]["text"]) == 5
            await until(lambda: slot.state in {"unloading", "unloaded"})
            if round_ % 2:
                await until(lambda: slot.state == "unloaded")
    assert len(opener.opened) >= 8
    await until(lambda: gc.collect() >= 0 and all(engine() is None for engine in opener.opened))


async def test_a_model_that_cannot_be_loaded_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opener = Opener("broken")
    slot = opener.slot()
    opener.error = ModelError("The file is damaged", hint="Compile it again.")
    async with client_of(slot) as client:
        for _ in range(2):
            answer = await client.post(COMPLETIONS, json=body("broken"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
            assert "The file is damaged. Hint: Compile it again." in answer.json()["error"]["message"]
            assert answer.headers["retry-after"] == "5"
        opener.error = None
        assert (await client.post(COMPLETIONS, json=body("broken"))).status_code == 503, "not again so soon"
        monkeypatch.setattr("cupola.server.slot._RETRY_SECONDS", 0.0)
        assert (await client.post(COMPLETIONS, json=body("broken"))).status_code == 200


async def test_a_bug_while_loading_reaches_those_who_wait() -> None:
    opener = Opener("broken")
    slot = opener.slot()
    opener.error = ZeroDivisionError()
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        await slot.load()
    assert slot.state == "unloaded"


async def test_one_dead_engine_is_everybodys_matter() -> None:
    one, two = Opener("one"), Opener("two")
    slots = [one.slot(), two.slot()]
    async with client_of(*slots) as client:
        for slot in slots:
            await slot.load()
        engine = two.opened[0]()
        assert engine is not None
        await engine.close()
        assert (await client.get("/health")).status_code == 503


async def test_closing_waits_for_what_is_under_way() -> None:
    opener = Opener("late")
    slot = opener.slot()
    opener.gate.clear()
    waiting = asyncio.create_task(slot.load())
    await until(lambda: slot.waiting == 1)
    closing = asyncio.create_task(slot.close())
    await asyncio.sleep(0)
    opener.gate.set()
    await asyncio.gather(waiting, closing)
    assert slot.state == "unloaded"
    await until(lambda: gc.collect() >= 0 and opener.opened[0]() is None)  # the thread that loaded it lets go last


async def test_the_queue_is_bounded_without_http() -> None:
    slot = Opener("x").slot(max_waiting=0)
    with pytest.raises(OverloadedError):
        await slot.load()


def test_two_models_cannot_have_one_name() -> None:
    with pytest.raises(UsageError, match="`same`"):
        ModelShelf([Opener("same").slot(), Opener("same").slot()])
