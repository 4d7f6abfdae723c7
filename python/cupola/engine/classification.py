"""Classifiers and rerankers: from the numbers of an encoder's head to scores."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from cupola.engine.encoder_desk import EncoderDesk, Tokens
from cupola.engine.encoder_text import EncoderText, Input, Pair
from cupola.manifest import Classifier as ClassifierInfo
from cupola.manifest import Scores


@dataclass(frozen=True, slots=True)
class Classification:
    """What a classifier makes of one text, or of a pair.

    Args:
        scores: one for each of the model's labels.
        label: the one of the highest score.
        num_tokens: of the text or pair, special ones included.
    """

    scores: tuple[float, ...]
    label: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Classifier:
    """An encoder with a head.

    Args:
        info: its labels.
    """

    desk: EncoderDesk
    text: EncoderText
    info: ClassifierInfo

    async def classify(
        self, inputs: Sequence[Input], truncate: int | None = None, activate: bool | None = None
    ) -> list[Classification]:
        """See `AsyncEngine.classify`."""
        return await self._run(await self.text.texts(inputs, truncate), activate)

    async def classify_pairs(
        self,
        pairs: Sequence[Pair],
        truncate: int | None = None,
        second_limit: int | None = None,
        activate: bool | None = None,
        field: str = "input",
    ) -> list[Classification]:
        """The same of pairs of texts; see `EncoderText.pairs`."""
        return await self._run(await self.text.pairs(pairs, truncate, second_limit, field), activate)

    async def _run(self, texts: list[Tokens], activate: bool | None) -> list[Classification]:
        labels, numbers = self.info.labels, array("f")
        numbers.frombytes(await self.desk.run(texts))
        rows = [numbers[i * len(labels) : (i + 1) * len(labels)] for i in range(len(texts))]
        how = self._how(activate)
        return [
            Classification(scores(row, how), labels[row.index(max(row))], len(text.ids))
            for row, text in zip(rows, texts, strict=True)
        ]

    def _how(self, activate: bool | None) -> Scores:
        """What makes scores: None: as the checkpoint says; else of one number a sigmoid, of several a softmax."""
        if activate is None or (activate and self.info.scores != "none"):
            return self.info.scores
        if not activate:
            return "none"
        return "sigmoid" if len(self.info.labels) == 1 else "softmax"


def scores(numbers: Sequence[float], how: Scores) -> tuple[float, ...]:
    """The scores of a row of numbers."""
    if how == "none":
        return tuple(numbers)
    if how == "sigmoid":
        return tuple(_sigmoid(x) for x in numbers)
    top = max(numbers)
    powers = [math.exp(x - top) for x in numbers]
    total = math.fsum(powers)
    return tuple(power / total for power in powers)


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    power = math.exp(x)
    return power / (1 + power)
