"""Compiling grammars: beside everything else, within limits, and once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
from scripted_engine import GREEDY, all_pages_back, oracle_text

from cupola.engine import grammar_compiler, grammar_trial
from cupola.engine.async_engine import AsyncEngine
from cupola.engine.grammar import GrammarSpec
from cupola.engine.grammar_compiler import GrammarCompiler
from cupola.engine.request import SamplingParams
from cupola.errors import CupolaError, OverloadedError, RequestError
from grammar_oracle import Walk, byte_compiler


def hostile() -> dict[str, GrammarSpec]:
    """Grammars that are meant to take all time and memory there is."""
    many = {f"property_number_{i}": {"type": "string", "maxLength": i % 50 + 1} for i in range(16_000)}
    return {
        "a schema of 1 MB": GrammarSpec.json_schema({"type": "object", "properties": many}),
        "a schema that is only itself": GrammarSpec.json_schema({"$ref": "#"}),
        "a circle of references": GrammarSpec.json_schema(
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
        ),
        "a million values": GrammarSpec.json_schema({"enum": list(range(1_000_000))}),
        "as many values as fit": GrammarSpec.json_schema({"enum": [f"value{i}" for i in range(60_000)]}),
        "a million choices": GrammarSpec.choice([str(i) for i in range(150_000)]),
        "a catastrophic expression": GrammarSpec.regex("((.*)*.*){1,500}x"),
        "an exponential expression": GrammarSpec.regex(r"(\p{L}{1,200}|\w{0,300}){1,300}"),
        "references in a long row": GrammarSpec.json_schema(
            {
                "$defs": {f"d{i}": {"properties": {"x": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(5000)}
                | {"d5000": {}},
                "$ref": "#/$defs/d0",
            }
        ),
        "patterns that may overlap": GrammarSpec.json_schema(
            {"patternProperties": {f"^a{i}x.*$": {} for i in range(900)}}
        ),
        "a deep schema": GrammarSpec.json_schema('{"items":' * 50_000 + "{}" + "}" * 50_000),
        "a deep expression": GrammarSpec.regex("(" * 100_000 + "a" + ")" * 100_000),
        "a deep grammar": GrammarSpec.grammar("start: " + "(" * 100_000 + '"a"' + ")" * 100_000),
        "an exponential schema": GrammarSpec.json_schema(
            {"allOf": [{"anyOf": [{"properties": {f"{c}{i}": {}}} for c in "abcd"]} for i in range(30)]}
        ),
        "an ambiguous grammar": GrammarSpec.grammar('start: e\ne: e e | "a" | e "+" e | ""'),
        "nothing but GBNF's parser": GrammarSpec.grammar("root ::= " + "(" * 30_000),
    }


async def test_hostile_grammars_harm_their_own_requests_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial, "TRIAL_SECONDS", 0.5)
    async with AsyncEngine("scripted", backend="scripted") as engine:
        others = 0
        for name, spec in hostile().items():
            params = SamplingParams(temperature=0.0, max_tokens=12, grammar=spec)
            attack = asyncio.ensure_future(engine.complete("x", params))
            while not attack.done():
                completion = await engine.complete(f"Other {others}", GREEDY)
                assert completion.text == oracle_text(f"Other {others}", 16), name
                others += 1
            # Refused, ended by its limits, or simply served: but over, and with a sentence if it failed.
            error = attack.exception()
            assert error is None or isinstance(error, CupolaError), (name, error)
        assert others >= len(hostile())
        await all_pages_back(engine)
        assert engine.healthy
        # And the compiler is as good as before; its process may have to start anew, on a busy machine.
        monkeypatch.setattr(grammar_trial, "TRIAL_SECONDS", 100.0)
        monkeypatch.setattr(grammar_compiler, "COMPILE_SECONDS", 100.0)
        fine = await engine.complete("x", SamplingParams(max_tokens=12, grammar=GrammarSpec.choice(["a" * 900, "b"])))
        assert fine.text in ("a" * 12, "b")


async def test_a_grammar_is_compiled_once_for_all_who_want_it() -> None:
    compiler = byte_compiler()
    spec = GrammarSpec.regex("[a-z]+")
    grammars = await asyncio.gather(*(compiler.compile(spec) for _ in range(8)))
    assert all(grammar is grammars[0] for grammar in grammars)
    assert compiler.compile_now(GrammarSpec.regex("[a-z]+")) is grammars[0]


async def test_only_the_grammars_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "_MAX_REMEMBERED", 2)
    compiler = byte_compiler()
    a, b, c = (GrammarSpec.regex(letter) for letter in "abc")
    first = [await compiler.compile(spec) for spec in (a, b)]
    assert await compiler.compile(a) is first[0]
    await compiler.compile(c)  # drops b, which was used longest ago
    assert await compiler.compile(a) is first[0]
    assert await compiler.compile(b) is not first[1]


def test_a_grammar_that_failed_is_not_remembered() -> None:
    compiler = byte_compiler()
    for _ in range(2):
        with pytest.raises(RequestError, match="unclosed"):
            compiler.compile_now(GrammarSpec.regex("("))
    assert not compiler._grammars


class Stuck:
    """Keeps the compiler's threads busy until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        compile_really = GrammarCompiler._compile

        def compile_when_let(compiler: GrammarCompiler, spec: GrammarSpec) -> object:
            self.gate.wait()
            return compile_really(compiler, spec)

        monkeypatch.setattr(GrammarCompiler, "_compile", compile_when_let)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    """A compiler that gets nowhere."""
    stuck = Stuck(monkeypatch)
    yield stuck
    stuck.gate.set()


async def test_who_waits_too_long_is_told_and_later_ones_profit(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "COMPILE_SECONDS", 0.05)
    compiler = byte_compiler()
    spec = GrammarSpec.regex("[a-z]")
    with pytest.raises(RequestError, match="was not compiled within"):
        await compiler.compile(spec)
    with pytest.raises(RequestError, match="was not compiled within"):
        compiler.compile_now(spec)
    stuck.gate.set()
    monkeypatch.setattr(grammar_compiler, "COMPILE_SECONDS", 100.0)
    assert (await compiler.compile(spec)).spec == spec


async def test_a_queue_of_grammars_is_bounded(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_compiler, "_MAX_WAITING", 3)
    compiler = byte_compiler()
    waiting = [asyncio.ensure_future(compiler.compile(GrammarSpec.regex(f"a{i}"))) for i in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="3 grammars wait"):
        await compiler.compile(GrammarSpec.regex("a4"))
    stuck.gate.set()
    await asyncio.gather(*waiting)
    assert (await compiler.compile(GrammarSpec.regex("a4"))).spec.text == "a4"


async def test_an_engine_closes_while_a_grammar_is_compiled(stuck: Stuck) -> None:
    engine = AsyncEngine("scripted")
    work = asyncio.ensure_future(engine.complete("x", SamplingParams(grammar=GrammarSpec.regex("a"))))
    await asyncio.sleep(0)
    await engine.close()
    assert not stuck.gate.is_set(), "it has not waited for the grammar"
    work.cancel()


def test_json_has_one_layout_unless_the_schema_names_another() -> None:
    compiler = byte_compiler()
    for extra, text in (({}, b'{"a": 1, "b"'), ({"x-guidance": {"whitespace_flexible": False}}, b'{"a":1,"b"')):
        schema = {"type": "object", "properties": {"a": {"const": 1}, "b": {}}, "required": ["a", "b"]}
        grammar = compiler.compile_now(GrammarSpec.json_schema(json.dumps(schema | extra)))
        assert bytes(Walk(grammar).forced()).startswith(text)
