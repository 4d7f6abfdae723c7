"""The thin server around the peers' engines, driven by the benchmark's own client."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from cupola.bench.client import Client
from peers.completions import Completions, Output, Request
from stand import until


class Spelling:
    """An engine whose answer spells a text, a byte a step, round and round; every request in the batch gets a byte.

    Args:
        company: how many requests it waits for.
    """

    def __init__(self, text: bytes, company: int = 1) -> None:
        self._company = company
        self.batches: list[int] = []
        self._text = text
        self._sent: dict[Request, int] = {}

    @property
    def patience(self) -> float:
        """Seconds for which it waits for another request."""
        return 100.0 if len(self._sent) < self._company else 0.0

    def add(self, request: Request) -> None:
        self._sent[request] = 0

    def step(self) -> list[Output]:
        self.batches.append(len(self._sent))
        outputs = []
        for request, count in list(self._sent.items()):
            last = count + 1 == request.max_tokens
            outputs.append(Output(request, [self._text[count % len(self._text)]], last))
            self._sent[request] += 1
            if last:
                del self._sent[request]
        return outputs


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A token for each byte, whose id is the byte."""
    # Byte-level BPE writes printable bytes as themselves, and the others as the characters from 256 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    vocabulary = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


@asynccontextmanager
async def serving(tokenizer: Path, load: Callable[[], Spelling]) -> AsyncIterator[str]:
    app = Completions("spelling", tokenizer, load)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    running = asyncio.create_task(server.serve([listening]))
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


async def test_the_benchmark_can_measure_it(tokenizer: Path) -> None:
    async with serving(tokenizer, lambda: Spelling(b"x")) as url:
        client = Client(url)
        await client.connect()
        assert client.model == "spelling"
        sample = await client.complete("hello", 20)
        assert (sample.prompt_tokens, sample.completion_tokens, len(sample.arrivals)) == (5, 20, 20)


async def test_a_character_comes_with_its_last_byte(tokenizer: Path) -> None:
    async with serving(tokenizer, lambda: Spelling("aé€".encode())) as url, httpx.AsyncClient(base_url=url) as http:
        body = {"prompt": [104, 105], "max_tokens": 8, "stream": True}
        lines = (await http.post("/v1/completions", json=body)).text.split("\n\n")
        frames = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert lines[-2] == "data: [DONE]"
        assert [choice["text"] for frame in frames for choice in frame["choices"]] == ["a", "é", "€", "a", ""]
        assert frames[-2]["choices"][0]["finish_reason"] == "length"
        assert frames[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}
        whole = (await http.post("/v1/completions", json={**body, "stream": False})).json()
        assert whole["choices"][0]["text"] == "aé€a"
        assert (await http.get("/v1/nothing")).status_code == 404


async def test_requests_share_a_batch(tokenizer: Path) -> None:
    engine = Spelling(b"x", company=4)
    async with serving(tokenizer, lambda: engine) as url:
        client = Client(url, "spelling")
        await asyncio.gather(*(client.complete("hello", 5) for _ in range(4)))
    assert engine.batches == [4] * 5
