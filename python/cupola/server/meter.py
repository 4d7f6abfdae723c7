"""Counts the requests of one model as they end. Outlives the model's engine, which may come and go."""

from __future__ import annotations

from collections import Counter

from cupola.engine.histogram import Histogram
from cupola.engine.report import RequestReport
from cupola.engine.request import FinishReason
from cupola.server.record import RequestRecord

# Bounds as dashboards for other engines expect them.
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_SECONDS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)
_TOKEN_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)

_FINISHED = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.ABORT: "abort",
    FinishReason.DEADLINE: "deadline",
    FinishReason.ERROR: "error",
    FinishReason.REFUSED: "error",
}


class RequestMeter:
    """Requests of the engine (`observe`) and responses of the server (`answer`)."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.cached_tokens = 0
        self.prompt_tokens = Histogram(_TOKENS)
        self.generation_tokens = Histogram(_TOKENS)
        self.decode_seconds = Histogram(_SECONDS)
        self.token_seconds = Histogram(_TOKEN_SECONDS)
        self.first_token_seconds = Histogram(_FIRST_TOKEN)
        self.seconds = Histogram(_SECONDS)

    def observe(self, report: RequestReport) -> None:
        """A request of the engine has ended."""
        self.finished[_FINISHED[report.finish]] += 1
        self.cached_tokens += report.cached_tokens
        self.prompt_tokens.observe(report.prompt_tokens)
        self.generation_tokens.observe(report.completion_tokens)
        if report.decode_seconds is not None:
            self.decode_seconds.observe(report.decode_seconds)
        if report.seconds_per_token is not None:
            self.token_seconds.observe(report.seconds_per_token)

    def answer(self, record: RequestRecord) -> None:
        """A response has been sent, or its client has gone."""
        if record.time_to_first_token is not None:
            self.first_token_seconds.observe(record.time_to_first_token)
        if record.time_to_first_token is not None or record.prompt_tokens:
            self.seconds.observe(record.duration)
