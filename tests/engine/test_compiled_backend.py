"""The engine on the real model: its text, its checks at load, and that nothing else in the engine changes it."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cupola.engine import native
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.engine import Engine
from cupola.engine.native import NativeModel, load_compiled
from cupola.engine.options import EngineOptions
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import IncompatibleError, ModelError
from cupola.in_use import nobody_else
from cupola.manifest import Manifest

pytestmark = pytest.mark.model

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
PROMPTS = [
    "Once upon a time",
    "The capital of France is",
    "def fibonacci(n):",
    "1, 2, 3,",
    "Größe und 大きさ",
    "Dear Sir",
]


@pytest.fixture
def folder(compiled_smollm2: Path, tmp_path: Path) -> Path:
    """A copy of the compiled folder to do harm to; its large files are links."""
    target = tmp_path / "model"
    target.mkdir()
    for file in compiled_smollm2.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file)
        else:
            shutil.copy(file, target / file.name)
    return target


def test_it_completes_and_chats(compiled_smollm2: Path) -> None:
    with Engine(str(compiled_smollm2)) as engine:
        with nobody_else(compiled_smollm2) as free:
            assert not free, "what is served must not be removed from the cache"
        assert engine.backend == "compiled"
        assert engine.backend_reason == f"compiled: `{compiled_smollm2}` is a compiled folder"
        assert engine.generate("The capital of France is", GREEDY)[0].text.startswith(" Paris")
        question = [{"role": "user", "content": "Say hello."}]
        answer = engine.chat(question, replace(GREEDY, max_tokens=200))
        assert "hello" in answer.text.lower()
        assert "<|" not in answer.text
        assert answer.finish_reason is FinishReason.STOP
        assert answer.usage.completion_tokens == len(answer.token_ids) + 1


async def texts(folder: Path, options: EngineOptions, *, aborts: bool = False) -> list[str]:
    async with AsyncEngine(str(folder), config=replace(options, verify_files=False)) as engine:
        doomed = [engine.submit(f"Number {n} is", replace(GREEDY, max_tokens=100)) for n in range(8 * aborts)]
        work = asyncio.gather(*(engine.complete(prompt, GREEDY) for prompt in PROMPTS))
        for stream in doomed:
            await anext(stream)
            await stream.aclose()
        completions = await work
        if options.num_pages is not None:
            assert engine.stats().preemptions > 0
        return [completion.text for completion in completions]


async def test_batch_chunks_pages_and_neighbours_change_nothing(compiled_smollm2: Path) -> None:
    alone = await texts(compiled_smollm2, EngineOptions(max_batch=1))
    assert all(alone)
    assert await texts(compiled_smollm2, EngineOptions(max_batch=32), aborts=True) == alone
    assert await texts(compiled_smollm2, EngineOptions(max_batch=7, max_step_tokens=7)) == alone
    assert await texts(compiled_smollm2, EngineOptions(num_pages=4, max_context=48, admission="optimistic")) == alone


@pytest.mark.parametrize("name", ["tokenizer.json", "lib.so", "chat_template.jinja"])
def test_a_damaged_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        Engine(str(folder))


def test_a_missing_or_shortened_shard_is_refused(folder: Path) -> None:
    shard = next(folder.glob("*.safetensors"))
    whole = shard.resolve()
    shard.unlink()
    with pytest.raises(ModelError, match=shard.name):
        Engine(str(folder))
    shutil.copy(whole, shard)
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(ModelError, match=shard.name):
        Engine(str(folder))


def test_another_versions_library_is_refused(folder: Path) -> None:
    text = (folder / "model.json").read_text()
    version = text.split('"tvm_ffi":')[1].split('"')[1]
    (folder / "model.json").write_text(text.replace(version, "0.0.1"))
    with pytest.raises(IncompatibleError, match=r"0\.0\.1") as caught:
        Engine(str(folder))
    assert caught.value.hint is not None


@pytest.mark.parametrize("record", [True, False])
def test_it_is_the_users_choice_whether_steps_are_recorded(
    compiled_smollm2: Path, record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the choice does on a device, tests/gpu/test_gpu_recordings.py says; a processor records nothing."""
    asked: list[bool] = []

    def load(folder: Path, manifest: Manifest, *, record_steps: bool) -> NativeModel:
        asked.append(record_steps)
        return load_compiled(folder, manifest, record_steps=record_steps)

    monkeypatch.setattr(native, "load_compiled", load)
    with Engine(str(compiled_smollm2), config=EngineOptions(num_pages=8, record_steps=record, verify_files=False)):
        assert asked == [record]
