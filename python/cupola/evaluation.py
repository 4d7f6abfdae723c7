"""What `cupola eval` found out about a compiled model: `evaluation.json` in its folder, which `cupola show` prints."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cupola.errors import StorageError

FILE_NAME = "evaluation.json"


class Evaluation(BaseModel):
    """A compiled model's predictions on a text, beside those of the same checkpoint in float32.

    Args:
        text: the name of the text's file.
        text_sha256: of its content.
        context: tokens of a sequence, into which the text was cut.
        tokens: predictions that were compared.
        mean_kl, p99_kl: Kullback-Leibler divergence from float32, nats a token; what one token in a hundred exceeds.
        same_best_token: the share of tokens with the same best successor.
        perplexity, reference_perplexity: of the text, to the model and to float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    text_sha256: str
    context: int
    tokens: int
    mean_kl: float
    p99_kl: float
    same_best_token: float
    perplexity: float
    reference_perplexity: float

    def write(self, folder: Path) -> None:
        """Puts it into a compiled folder. StorageError: that cannot be written."""
        try:
            (folder / FILE_NAME).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot write `{folder / FILE_NAME}`: {error.strerror}") from error


def read_evaluation(folder: Path) -> Evaluation | None:
    """What a compiled folder holds; None: nothing, or nothing that this version can read."""
    try:
        return Evaluation.model_validate_json((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def sha256_of(text: str) -> str:
    """The hash by which a text is known again."""
    return hashlib.sha256(text.encode()).hexdigest()
