"""Words that an operator may choose among. Imports nothing, because the command line needs them for every help."""

from __future__ import annotations

from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
MetricsAlias = Literal["vllm"]
