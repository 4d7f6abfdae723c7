"""What a grammar lets the scripted model generate, found one token at a time: the oracle of constrained output.

It takes the masks from the grammar itself but never asks what is forced, so that an engine that jumps over forced
tokens must come to the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from cupola.engine.backends.scripted import EOS_ID, byte_tokenizer, scripted_manifest
from cupola.engine.grammar import CompiledGrammar, GrammarSpec
from cupola.engine.grammar_compiler import GrammarCompiler
from cupola.engine.native_library import native
from oracle import Oracle


def byte_compiler() -> GrammarCompiler:
    """For the scripted backend's vocabulary: a token is a byte."""
    return GrammarCompiler(byte_tokenizer(), scripted_manifest())


class Walk:
    """One text on its way through a grammar."""

    def __init__(self, grammar: CompiledGrammar) -> None:
        self._handle = native("testing.grammar_clone")(grammar.handle)

    def fork(self) -> Walk:
        """Another text that has come as far."""
        return Walk(CompiledGrammar(GrammarSpec.json_object(), self._handle))

    def allowed(self) -> list[int]:
        """The tokens that may come next, in order."""
        mask = int.from_bytes(native("testing.grammar_mask")(self._handle), "little")
        return [token for token in range(mask.bit_length()) if mask >> token & 1]

    def accept(self, token: int) -> bool:
        """Go on by a token. False: it is not allowed."""
        return bool(native("testing.grammar_accept")(self._handle, token))

    def forced(self, capacity: int = 64) -> list[int]:
        """The tokens that must come next."""
        return list(memoryview(native("testing.grammar_forced")(self._handle, capacity)).cast("q"))

    @property
    def stopped(self) -> bool:
        """Nothing may follow."""
        return bool(native("testing.grammar_stopped")(self._handle))

    @property
    def accepting(self) -> bool:
        """The text is complete as it is."""
        return bool(native("testing.grammar_accepting")(self._handle))


def constrained(
    oracle: Oracle,
    grammar: CompiledGrammar,
    prompt: Sequence[int],
    max_tokens: int,
    stop_ids: Sequence[int] = (EOS_ID,),
) -> tuple[list[int], str]:
    """The greedy tokens after `prompt` under a grammar, and the finish reason: "stop" or "length"."""
    walk = Walk(grammar)
    history = list(prompt)
    while len(history) < len(prompt) + max_tokens:
        allowed = walk.allowed()
        wanted = oracle.next(history)
        token = wanted if wanted in allowed else allowed[0]
        assert walk.accept(token)
        if token in stop_ids:
            return history[len(prompt) :], "stop"
        history.append(token)
        if walk.stopped:
            return history[len(prompt) :], "stop"
    return history[len(prompt) :], "length"
