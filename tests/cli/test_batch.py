"""`cupola batch`: order, errors per line, and going on after a crash."""

from __future__ import annotations

import fcntl
import json
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import CUPOLA, cupola

from cupola.cli.batch_job import CHAT_URL, COMPLETIONS_URL, Summary, run_batch
from cupola.engine.backends.scripted import EOS_ID
from cupola.engine.options import EngineOptions
from cupola.errors import EngineError, StorageError, UsageError
from oracle import Oracle

LETTERS = Oracle(ord("a"), 26, EOS_ID)


def completion_line(custom_id: str, prompt: str, **fields: object) -> dict[str, object]:
    body = {"model": "scripted", "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": COMPLETIONS_URL, "body": body}


def chat_line(custom_id: str, content: str, **fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content}]
    body = {"model": "scripted", "messages": messages, "max_tokens": 8, "temperature": 0, **fields}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT_URL, "body": body}


def expected(prompt: str, max_tokens: int = 8) -> str:
    return bytes(LETTERS.generate(list(prompt.encode()), max_tokens, [EOS_ID])[0]).decode()


def write(path: Path, lines: Sequence[object]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def answers(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def batch(source: Path, target: Path, model: str = "scripted", **options: int) -> Summary:
    return await run_batch(source, target, model, (), "auto", EngineOptions(**options))


async def test_answers_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    # Earlier ones take longer.
    lines = [completion_line(f"r{n}", f"prompt {n}", max_tokens=300 - n) for n in range(250)]
    source, target = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    summary = await batch(source, target, max_batch=16)
    assert summary == Summary(kept=0, answered=250, failed=0)
    found = answers(target)
    assert [answer["custom_id"] for answer in found] == [f"r{n}" for n in range(250)]
    texts = [answer["response"]["body"]["choices"][0]["text"] for answer in found]
    assert texts == [expected(f"prompt {n}", 300 - n) for n in range(250)]
    assert len({answer["id"] for answer in found}) == 250
    assert {answer["response"]["status_code"] for answer in found} == {200}
    assert {answer["error"] for answer in found} == {None}


async def test_chats_and_completions_side_by_side(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [chat_line("c", "Hi"), "", "   ", completion_line("t", "Hi", n=2)])
    assert (await batch(source, tmp_path / "out.jsonl")).answered == 2
    chat, text = (answer["response"]["body"] for answer in answers(tmp_path / "out.jsonl"))
    assert chat["object"] == "chat.completion"
    assert len(chat["choices"][0]["message"]["content"]) == 8
    assert [choice["text"] for choice in text["choices"]] == [expected("Hi")] * 2


@pytest.mark.parametrize(
    ("line", "status", "code", "words"),
    [
        (completion_line("x", "a", temperature=3), 400, "invalid_value", "temperature"),
        (completion_line("x", "a", max_tokens=5000), 400, "context_length_exceeded", "4096"),
        (completion_line("x", "a", model="gpt-4o"), 404, "model_not_found", "gpt-4o"),
        (completion_line("x", "a", stream=True), 400, "unsupported_parameter", "stream"),
        (completion_line("x", "a", nonsense=1), 400, "unsupported_parameter", "nonsense"),
        (chat_line("x", "a") | {"body": {"model": "scripted"}}, 400, "missing_required_parameter", "messages"),
    ],
)
async def test_a_refused_request_gets_what_the_server_would_say(
    tmp_path: Path, line: dict[str, object], status: int, code: str, words: str
) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("before", "a"), line, completion_line("after", "a")])
    assert await batch(source, tmp_path / "out.jsonl") == Summary(0, 2, 1)
    before, refused, after = answers(tmp_path / "out.jsonl")
    assert before["response"]["status_code"] == after["response"]["status_code"] == 200
    assert refused["custom_id"] == "x"
    assert refused["error"] is None
    assert refused["response"]["status_code"] == status
    assert refused["response"]["body"]["error"]["code"] == code
    assert words in refused["response"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("line", "custom_id", "code"),
    [
        ("not json", None, "invalid_line"),
        ("[]", None, "invalid_line"),
        ('{"custom_id": "x", "url": 7}', "x", "invalid_line"),
        (completion_line("x", "a") | {"url": "/v1/embeddings"}, "x", "invalid_url"),
        (completion_line("x", "a") | {"method": "GET"}, "x", "invalid_url"),
        (completion_line("first", "a"), "first", "duplicate_custom_id"),
    ],
)
async def test_a_line_that_is_no_request_gets_an_error(
    tmp_path: Path, line: object, custom_id: str | None, code: str
) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("first", "a"), line])
    assert await batch(source, tmp_path / "out.jsonl") == Summary(0, 1, 1)
    answer = answers(tmp_path / "out.jsonl")[1]
    assert (answer["custom_id"], answer["response"], answer["error"]["code"]) == (custom_id, None, code)


@pytest.mark.parametrize("torn", ["", '{"id":', '{"id":"batch_req_1","cust', '{"id":"batch_req_1"\0\0\n', "\0\0"])
async def test_a_second_run_goes_on_where_the_first_ended(tmp_path: Path, torn: str) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line(f"r{n}", f"{n}") for n in range(10)])
    target = tmp_path / "out.jsonl"
    await batch(source, target)
    whole = target.read_text().splitlines(keepends=True)
    target.write_text("".join(whole[:4]) + torn)
    assert await batch(source, target) == Summary(kept=4, answered=6, failed=0)
    again = target.read_text().splitlines(keepends=True)
    assert again[:4] == whole[:4]
    assert [json.loads(line)["custom_id"] for line in again] == [f"r{n}" for n in range(10)]
    assert await batch(source, target) == Summary(kept=10, answered=0, failed=0)
    assert target.read_text().splitlines(keepends=True) == again


def test_a_killed_run_loses_nothing_that_it_had_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line(f"r{n}", f"{n}", max_tokens=40) for n in range(60)])
    target = tmp_path / "out.jsonl"
    command = [*CUPOLA, "batch", str(source), str(target), "--model", "scripted:step_us=5000", "--max-batch", "2"]
    command += ["--served-model-name", "scripted"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not target.exists() or target.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
        process.kill()
    kept = target.read_bytes().rpartition(b"\n")[0]
    assert kept.count(b"\n") < 59
    outcome = cupola("batch", str(source), str(target), "--model", "scripted")
    assert outcome.code == 0
    assert "kept from an earlier run" in outcome.err
    assert target.read_bytes().startswith(kept)
    assert [answer["response"]["body"]["choices"][0]["text"] for answer in answers(target)] == [
        expected(f"{n}", 40) for n in range(60)
    ]


async def test_another_inputs_answers_are_not_touched(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("a", "x")])
    target = tmp_path / "out.jsonl"
    await batch(source, target)
    before = target.read_bytes()
    other = write(tmp_path / "other.jsonl", [completion_line("b", "x"), completion_line("c", "x")])
    with pytest.raises(UsageError, match="answers to another input"):
        await batch(other, target)
    with pytest.raises(UsageError, match="answers to another input"):
        await batch(write(tmp_path / "empty.jsonl", []), target)
    assert target.read_bytes() == before


async def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("a", "x")])
    for content in (source.read_bytes(), b"precious", b"precious\n", b"{}\n", b"{}\n{}"):
        (tmp_path / "precious").write_bytes(content)
        with pytest.raises(UsageError, match="is not an answer"):
            await batch(source, tmp_path / "precious")
        assert (tmp_path / "precious").read_bytes() == content
    with pytest.raises(UsageError, match="same file"):
        await batch(source, source)


async def test_two_runs_cannot_write_one_output(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("a", "x")])
    with (tmp_path / "out.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="Another run"):
            await batch(source, tmp_path / "out.jsonl")


async def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("a", "x")])
    with pytest.raises(StorageError, match="cannot be read"):
        await batch(tmp_path / "nothing", tmp_path / "out.jsonl")
    with pytest.raises(StorageError, match="cannot be written"):
        await batch(source, tmp_path / "no folder" / "out.jsonl")


async def test_a_full_disk_is_a_sentence_and_can_go_on(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line(f"r{n}", "x") for n in range(20)])
    target = tmp_path / "out.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageError, match="cannot be written: File too large"):
            await batch(source, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    summary = await batch(source, target)
    assert summary.kept + summary.answered == 20
    assert summary.kept > 0
    assert [answer["custom_id"] for answer in answers(target)] == [f"r{n}" for n in range(20)]


async def test_a_device_is_no_output(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [completion_line("a", "x")])
    for target in (Path("/dev/full"), tmp_path):
        with pytest.raises(StorageError, match="is not a file"):
            await batch(source, target)


async def test_when_the_engine_dies_the_run_ends_and_can_go_on(tmp_path: Path) -> None:
    lines = [completion_line(f"r{n}", f"{n}") for n in range(30)]
    source, target = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    with pytest.raises(EngineError):
        await batch(source, target, "scripted:fail_at_step=20,fail_steps=1000000", max_batch=1)
    assert 0 < len(answers(target)) < 30
    await batch(source, target)
    assert [answer["custom_id"] for answer in answers(target)] == [f"r{n}" for n in range(30)]
