"""Structured output against the suite of schemas: whatever comes out fits its schema, as `jsonschema` judges it.

With CUPOLA_CONFORMANCE=full every schema is also asked of the real model, and more random texts are tried.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from schema_suite import FILES, SchemaCase, admits, all_schemas, random_text, refused_schemas, schemas

from cupola.engine.grammar import CompiledGrammar, GrammarSpec
from cupola.engine.grammar_compiler import GrammarCompiler
from grammar_oracle import byte_compiler
from serving import ServerProcess
from stand import CHAT, COMPLETIONS, open_stand

FULL = os.environ.get("CUPOLA_CONFORMANCE") == "full"
TEXTS = 40 if FULL else 6
BYTES_THAT_END = {str(ord(byte)): 20 for byte in '"}],n'}


@pytest.fixture(scope="module")
def compiler() -> Iterator[GrammarCompiler]:
    """Grammars over bytes."""
    made = byte_compiler()
    yield made
    made.close()


def compile_case(compiler: GrammarCompiler, case: SchemaCase) -> CompiledGrammar:
    """The grammar of a schema."""
    return compiler.compile_now(GrammarSpec.json_schema(json.dumps(case.schema)))


def test_the_suite_is_large_and_no_schema_is_there_twice() -> None:
    written = [json.dumps(case.schema, sort_keys=True) for case in all_schemas()]
    assert len(set(written)) == len(written) >= 300
    assert len({case.name for case in all_schemas()}) == len(written)


@pytest.mark.parametrize("file", FILES)
def test_a_grammar_admits_what_fits_and_nothing_else(compiler: GrammarCompiler, file: str) -> None:
    for case in schemas(file):
        grammar = compile_case(compiler, case)
        assert [case.problem(json.dumps(one)) for one in case.fits] == [None] * len(case.fits)
        assert all(case.problem(json.dumps(one)) for one in case.misfits), case.name
        assert [one for one in case.fits if not admits(grammar, one)] == [], case.name
        assert [one for one in case.misfits if admits(grammar, one)] == [], case.name


@pytest.mark.parametrize("file", FILES)
def test_every_random_text_of_a_grammar_fits(compiler: GrammarCompiler, file: str) -> None:
    endless = []
    for case in schemas(file):
        grammar = compile_case(compiler, case)
        for number in range(TEXTS):
            text = random_text(grammar, random.Random(f"{case.name} {number}"))
            if text is None:  # a long word that the pattern wants is not found by chance
                endless.append(case.name)
                continue
            assert case.problem(text) is None
    assert len(endless) <= 0.1 * TEXTS * len(schemas(file)), endless


async def test_every_completed_answer_over_http_fits() -> None:
    gate = asyncio.Semaphore(24)
    async with open_stand() as stand:

        async def ask(number: int, case: SchemaCase) -> bool:
            body = {"model": "scripted", "seed": number, "temperature": 1, "max_tokens": 400, "prompt": "?"}
            body |= {"guided_json": case.schema, "logit_bias": BYTES_THAT_END}
            async with gate:
                return judged(case, await stand.client.post(COMPLETIONS, json=body))

        cases = all_schemas() if FULL else all_schemas()[::4]
        completed = await asyncio.gather(*(ask(number, case) for number, case in enumerate(cases)))
        assert sum(completed) > 0.8 * len(cases)


@pytest.mark.model
async def test_every_completed_answer_of_the_real_model_fits(compiled_smollm2: Path) -> None:
    cases = all_schemas() if FULL else all_schemas()[::40]
    with ServerProcess(str(compiled_smollm2), "--served-model-name", "model", "--log-level", "warning") as server:
        gate = asyncio.Semaphore(24)
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:

            async def ask(number: int, case: SchemaCase) -> bool:
                question = f"Write JSON: {case.name}."
                body = {"model": "model", "seed": number, "temperature": 0.8, "max_tokens": 160}
                body |= {"messages": [{"role": "user", "content": question}]}
                body["response_format"] = {"type": "json_schema", "json_schema": {"name": "s", "schema": case.schema}}
                async with gate:
                    return judged(case, await client.post(CHAT, json=body))

            completed = await asyncio.gather(*(ask(number, case) for number, case in enumerate(cases)))
    # Of nine, one more or less is a matter of the processor, whose rounding may change what a small model says.
    assert sum(completed) > (0.7 if FULL else 0.4) * len(cases)


def judged(case: SchemaCase, answer: httpx.Response) -> bool:
    """Whether the answer was completed; if so it must fit."""
    assert answer.status_code == 200, f"{case.name}: {answer.text}"
    choice = answer.json()["choices"][0]
    if choice["finish_reason"] != "stop":
        return False
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    assert case.problem(text) is None
    return True


async def test_what_is_not_supported_is_refused_by_name() -> None:
    async with open_stand() as stand:
        for case in refused_schemas():
            body = {"model": "scripted", "prompt": "?", "max_tokens": 1, "guided_json": case.schema}
            answer = await stand.client.post(COMPLETIONS, json=body)
            assert answer.status_code == 400, f"{case.name}: {answer.text}"
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("guided_json", "invalid_schema"), case.name
            assert case.names in error["message"], f"{case.name}: {error['message']}"
