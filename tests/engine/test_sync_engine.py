"""`Engine`: the same results without asyncio, from any thread."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from scripted_engine import GREEDY, oracle_text

from cupola.engine.engine import Engine
from cupola.engine.options import EngineOptions
from cupola.engine.request import FinishReason, SamplingParams
from cupola.errors import ContextLengthError, EngineError, RequestError, UsageError


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("scripted") as engine:
        yield engine


def test_one_prompt_many_prompts_and_token_ids(engine: Engine) -> None:
    expected = [oracle_text(prompt, 16) for prompt in ("one", "two")]
    assert [completion.text for completion in engine.generate("one", GREEDY)] == expected[:1]
    assert [completion.text for completion in engine.generate(["one", "two"], GREEDY)] == expected
    ids = [engine.tokenizer.encode(prompt) for prompt in ("one", "two")]
    assert [completion.text for completion in engine.generate(ids, GREEDY)] == expected
    assert engine.generate([], GREEDY) == []


def test_one_params_for_each_prompt(engine: Engine) -> None:
    params = [replace(GREEDY, max_tokens=n) for n in (3, 5)]
    assert [completion.text for completion in engine.generate(["a", "b"], params)] == [
        oracle_text("a", 3),
        oracle_text("b", 5),
    ]
    with pytest.raises(RequestError, match="2 prompts, but 1 sampling parameters"):
        engine.generate(["a", "b"], params[:1])


def test_a_flat_list_of_ids_is_refused_with_the_remedy(engine: Engine) -> None:
    with pytest.raises(RequestError, match="list of such lists"):
        engine.generate([1, 2, 3], GREEDY)  # type: ignore[list-item]


def test_more_prompts_than_the_queue_holds() -> None:
    with Engine("scripted", config=EngineOptions(max_batch=2, max_queue=3)) as engine:
        prompts = [f"prompt {n}" for n in range(50)]
        completions = engine.generate(prompts, GREEDY)
    assert [completion.text for completion in completions] == [oracle_text(prompt, 16) for prompt in prompts]


def test_a_bad_prompt_ends_them_all(engine: Engine) -> None:
    with pytest.raises(ContextLengthError, match="context holds 4096"):
        engine.generate(["fine", "x" * 5000], GREEDY)
    assert engine.generate("fine", GREEDY)[0].text == oracle_text("fine", 16)


def test_chat_and_its_stream(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    answer = engine.chat(messages, GREEDY)
    assert "".join(delta.text for delta in engine.stream_chat(messages, GREEDY)) == answer.text
    assert answer.finish_reason is FinishReason.LENGTH


def test_a_stream_and_leaving_it() -> None:
    with Engine("scripted:step_us=1000") as engine:
        assert "".join(delta.text for delta in engine.stream("hello", GREEDY)) == oracle_text("hello", 16)
        for _delta in engine.stream("hello", SamplingParams(temperature=0.0)):
            break
        # The engine is busy until the generator is collected, which CPython does at once.
        assert engine.generate("next", GREEDY)[0].text == oracle_text("next", 16)
        assert engine.stats().aborted == 1


def test_several_threads_at_once(engine: Engine) -> None:
    prompts = [f"thread {n}" for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda prompt: engine.generate(prompt, GREEDY)[0].text, prompts))
    assert texts == [oracle_text(prompt, 16) for prompt in prompts]


def test_close_ends_its_thread_and_refuses_what_comes() -> None:
    before = set(threading.enumerate())
    engine = Engine("scripted")
    engine.close()
    engine.close()
    assert set(threading.enumerate()) <= before
    assert not engine.healthy
    with pytest.raises(EngineError, match="closed"):
        engine.generate("x")
    with pytest.raises(EngineError, match="closed"):
        next(engine.stream("x"))


def test_a_failure_of_the_engine_is_raised() -> None:
    with Engine("scripted:fail_at_step=1") as engine, pytest.raises(EngineError, match="scripted failure"):
        engine.generate("x", GREEDY)


def test_the_facts_of_the_model_are_there(engine: Engine) -> None:
    assert engine.model_name == engine.manifest.name == "scripted"
    assert engine.config.max_context == 4096
    assert engine.chat_template is not None
    assert engine.default_params == SamplingParams()
    assert engine.backend_reason.startswith("scripted: ")


@pytest.mark.parametrize(
    ("model", "backend", "message"),
    [
        ("scripted", "cuda", "`backend` is 'cuda'; allowed: auto, compiled, scripted"),
        ("smollm2", "scripted", "runs no real model"),
        ("scripted:nonsense=1", "auto", "`nonsense=1` is not a setting"),
        ("scripted:step_us=fast", "auto", "`step_us=fast` is not a setting"),
        ("scripted:first_id=300", "auto", "outside of its vocabulary"),
    ],
)
def test_what_cannot_be_opened_is_a_usage_error(model: str, backend: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(model, backend=backend)


def test_a_program_may_end_without_closing_its_engine() -> None:
    code = "from cupola import Engine; e = Engine('scripted:step_us=1000'); s = e.stream('x'); next(s); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_an_interrupt_at_any_moment_ends_the_stream_and_nothing_else() -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def read_until_interrupted(engine: Engine, after: float) -> None:
        threading.Timer(after, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1]).start()
        for _delta in engine.stream("hello", SamplingParams(temperature=0.0)):
            pass

    def interrupt_at_the_first_delta(engine: Engine) -> None:
        for _delta in engine.stream("hello", SamplingParams(temperature=0.0)):
            signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Engine("scripted:step_us=2000") as engine:
            for n in range(100):
                with pytest.raises(KeyboardInterrupt):
                    read_until_interrupted(engine, 0.001 + n * 0.00003)
            # And once when it surely has been submitted.
            with pytest.raises(KeyboardInterrupt):
                interrupt_at_the_first_delta(engine)
            assert engine.generate("next", GREEDY)[0].text == oracle_text("next", 16)
            # An interrupt may come before the request is submitted; what was submitted is aborted.
            deadline = time.monotonic() + 100
            while engine.stats().pages_free < engine.stats().pages_total:
                assert time.monotonic() < deadline
            assert 0 < engine.stats().aborted <= 101
    finally:
        signal.signal(signal.SIGUSR1, before)
