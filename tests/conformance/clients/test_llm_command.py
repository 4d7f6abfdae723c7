"""The `llm` command, unchanged: a prompt, a stream, a conversation that goes on, a schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, base_url: str) -> Path:
    """A user's folder of `llm` that knows the server, as its documentation says for OpenAI-compatible ones."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: cupola\n  model_name: model\n  api_base: {base_url}\n  supports_schema: true\n"
    )
    return tmp_path


def run(home: Path, *words: str) -> str:
    """What the command prints."""
    command = [str(Path(sys.executable).parent / "llm"), *words]
    environment = os.environ | {"LLM_USER_PATH": str(home), "OPENAI_API_KEY": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("stream", [(), ("--no-stream",)])
def test_a_prompt(home: Path, stream: tuple[str, ...]) -> None:
    assert run(home, "-m", "cupola", "-o", "max_tokens", "20", "-o", "temperature", "0", *stream, "Name three rivers.")


def test_a_conversation_goes_on(home: Path) -> None:
    options = ("-m", "cupola", "-o", "max_tokens", "20", "-o", "temperature", "0")
    run(home, *options, "-s", "You are a pirate.", "Hello")
    run(home, *options, "-c", "And who am I?")
    logged = json.loads(run(home, "logs", "--json", "-n", "0"))
    assert len({entry["conversation_id"] for entry in logged}) == 1
    assert len(logged) == 2


def test_a_schema(home: Path) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text = run(home, "-m", "cupola", "-o", "temperature", "0", "--schema", json.dumps(schema), "Invent a dog.")
    assert json.loads(text).keys() == {"name", "age"}
