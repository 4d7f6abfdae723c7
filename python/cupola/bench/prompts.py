"""Prompts: random sequences of common words, from a seed, about as many tokens long as asked for.

Most tokenizers have one token for each of these words. How many tokens a word has here is found by asking the first
server twice; what is reported are always the server's own counts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cupola.bench.target import Target
from cupola.errors import EngineError

_PROBES = (64, 256)

_TEXT = """
about access add address after all also am american an and any are area art as at available back based be because
been before being best between big black board book books both business but by can car care case center change check
children city code comments community company computer contact control could current data date day days design
development did do does down during each education end even family file find first following for found free from
full game games general get go good government great group had has have he health help her here high him his history
home house how if in including index information international into is it item items its just know last law life
like line link list local location long made make management many map may me media member members message more most
much music must my name national need network new news next no north not now number of off office on one only open
or order other our out over own page pages part people per personal phone photo pictures place please policy post
power price prices product products program project public rate rating read real related report research resources
results return review right rights said same school section security see send service services set she should show
sign since size small so software some south special sports state states store students subject such support system
systems take technology text than that the their them then there these they think this those three through time to
today top total travel two type under united university up us use used user using version very video view want was
water way we well were what when where which while white who will with within without women work world would year
years you your
"""

VOCABULARY = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens of n words: `extra` (a start token, for example) and `per_word` each."""

    extra: float = 0.0
    per_word: float = 1.0

    def words(self, tokens: int) -> int:
        """How many words make about so many tokens; at least one."""
        return max(1, round((tokens - self.extra) / self.per_word))


class Prompts:
    """The prompts of one workload in one round: the same for every target, and never used in another round."""

    def __init__(self, seed: str, length: Length) -> None:
        self._random = random.Random(seed)
        self._length = length

    def take(self, tokens: int) -> str:
        """The next prompt, about `tokens` long."""
        return " ".join(self._random.choices(VOCABULARY, k=self._length.words(tokens)))


async def measure_length(target: Target, seed: int) -> Length:
    """Ask a target how long two prompts are.

    Raises:
        EngineError: it counts no more tokens for a longer prompt.
    """
    few, many = _PROBES
    prompts = Prompts(f"{seed}/length", Length())
    counts = [(await target.generate(prompts.take(words), 1)).prompt_tokens for words in _PROBES]
    per_word = (counts[1] - counts[0]) / (many - few)
    if per_word <= 0:
        raise EngineError(
            f"{target.name} counts {counts[0]} tokens for {few} words and {counts[1]} for {many}, which cannot be",
            hint="Its `usage` has to count the tokens of the prompt.",
        )
    return Length(counts[0] - few * per_word, per_word)
