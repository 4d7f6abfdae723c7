"""Load for the scenarios: requests over HTTP as bare as can be, and what their answers must be."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cupola.engine.backends.scripted import EOS_ID, parse_script
from oracle import Oracle

Record = Callable[[str, object], None]  # pytest's record_property: (what, figure)


def expected_text(model: str, prompt: str, max_tokens: int) -> str:
    """The unloaded greedy answer of a scripted model."""
    script = parse_script(model)
    oracle = Oracle(script.first_id, script.num_ids, EOS_ID, script.eos_every)
    return bytes(oracle.generate(list(prompt.encode()), max_tokens, [EOS_ID])[0]).decode()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


@dataclass
class Exchange:
    """One request on a connection of its own, and the head of its answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    headers: dict[str, str]
    seconds: float  # from sending to the head of the answer

    @classmethod
    async def begin(cls, url: str, body: dict[str, object], path: str = "/v1/completions") -> Exchange:
        """Send a request and read the head of its answer."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        data = json.dumps(body).encode()
        sent = time.perf_counter()
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), len(data), data)
        )
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return cls(reader, writer, int(lines[0].split(" ")[1]), headers, time.perf_counter() - sent)

    async def streamed_text(self) -> str:
        """Read a stream of completions to its end."""
        text, raw = "", b""
        while b"data: [DONE]" not in raw:
            chunk = await self.reader.read(65536)
            assert chunk, f"the stream was cut: {raw[-200:]!r}"
            raw += chunk
        for line in raw.split(b"\n"):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += event["choices"][0]["text"]
        self.leave()
        return text

    def leave(self) -> None:
        """Close the connection at once, whatever is under way."""
        self.writer.transport.abort()
