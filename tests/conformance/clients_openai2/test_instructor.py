"""instructor, unchanged: extraction by tools and by a JSON schema, and a list of records."""

from __future__ import annotations

from typing import Literal

import instructor
import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field


class Ticket(BaseModel):
    """A support ticket."""

    model_config = ConfigDict(extra="forbid")  # a small model goes on inventing fields where it may

    subject: str = Field(max_length=30)
    severity: Literal["low", "medium", "high"]
    hours: int = Field(ge=0, le=100)


@pytest.mark.parametrize("mode", [instructor.Mode.TOOLS_STRICT, instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA])
def test_extraction(base_url: str, mode: instructor.Mode) -> None:
    client = instructor.from_openai(openai.OpenAI(base_url=base_url, api_key="none", max_retries=0), mode=mode)
    ticket = client.chat.completions.create(
        model="model",
        response_model=Ticket,
        max_retries=0,
        temperature=0,
        max_tokens=120,
        messages=[{"role": "user", "content": "The printer burns since two hours!"}],
    )
    assert isinstance(ticket, Ticket)
