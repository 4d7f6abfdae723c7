"""Models on the Hugging Face hub: a snapshot of the files that a checkpoint needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cupola.errors import ModelError, StorageError

_PATTERNS = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "*_Pooling/config.json",
)
_IGNORED = ("*/*.safetensors", "consolidated*")  # a second copy of the weights in their makers' own layout


def fetch(repository: str, revision: str | None, announce: Callable[[str], None]) -> Path:
    """The folder of a snapshot, from the hub's own cache where it is there already.

    What a broken download had finished is kept, file by file; the next goes on from there. On a terminal there is a
    bar. The library reads $HF_ENDPOINT, $HF_TOKEN, $HF_HOME and $HF_HUB_OFFLINE.

    Args:
        repository: `org/name`.
        revision: a branch, tag or commit; None means the default branch.
        announce: called with one sentence before the hub is asked.

    Raises:
        ModelError: the repository or revision does not exist, needs a token, or cannot be reached.
        StorageError: the cache cannot be written.
    """
    # Imported here: it takes a quarter of a second, and most models are local files.
    from huggingface_hub import constants, errors, snapshot_download

    name = f"{repository}@{revision}" if revision else repository
    announce(f"Fetching {name} from the Hugging Face hub.")
    # A line that breaks is no OSError. It has its class from httpx or httpx2, as the version of huggingface_hub is.
    broken_line: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(_PATTERNS), ignore_patterns=list(_IGNORED)
            )
        )
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} asks for a licence to be accepted on the hub", hint="Accept it there, and set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is not on the Hugging Face hub", hint="Check the name; a private model needs HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision!r}", hint="Name a branch, tag or commit.") from error
    except (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, broken_line) as error:
        if constants.is_offline_mode():
            raise ModelError(
                f"{name} is not, or not whole, in the local cache, and HF_HUB_OFFLINE forbids to ask the hub",
                hint="Unset HF_HUB_OFFLINE, or give a folder or a .gguf file.",
            ) from error
        raise _unreachable(name, error) from error
    except OSError as error:
        if error.errno is None:  # not of the file system: what came is not what the hub had announced
            raise _unreachable(name, error) from error
        raise StorageError(f"{name} cannot be stored: {error}", hint="Free some space, or set HF_HOME.") from error


def _unreachable(name: str, error: Exception) -> ModelError:
    """Says what the hub answered, if it did."""
    answers = (getattr(e, "response", None) for e in (error, error.__cause__))
    answer = next((response.status_code for response in answers if response is not None), None)
    if answer in (401, 403):
        return ModelError(f"the Hugging Face hub refuses {name}", hint="Check HF_TOKEN; it may have expired.")
    if answer is not None:
        return ModelError(
            f"{name} is not, or not whole, in the local cache, and the Hugging Face hub answers with {answer}",
            hint="Try again later: what has arrived is kept.",
        )
    return ModelError(
        f"{name} is not, or not whole, in the local cache, and the Hugging Face hub cannot be reached",
        hint="Check the network connection and HF_ENDPOINT and try again, or give a folder or a .gguf file.",
    )
