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

    Args:
        repository: `org/name`.
        revision: a branch, tag or commit; None means the default branch.
        announce: called with one sentence before the hub is asked.

    Raises:
        ModelError: the repository or revision does not exist, needs a token, or cannot be reached.
        StorageError: the cache cannot be written.
    """
    # Imported here: it takes a quarter of a second, and most models are local files.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = f"{repository}@{revision}" if revision else repository
    announce(f"Fetching {name} from the Hugging Face hub.")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=list(_PATTERNS), ignore_patterns=list(_IGNORED)
            )
        )
    except GatedRepoError as error:
        raise ModelError(
            f"{name} asks for a licence to be accepted on the hub", hint="Accept it there, and set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is not on the Hugging Face hub", hint="Check the name; a private model needs HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{repository} has no revision {revision!r}", hint="Name a branch, tag or commit.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise ModelError(
            f"{name} is not in the local cache and the Hugging Face hub cannot be reached",
            hint="Check the network connection, or give a folder or a .gguf file.",
        ) from error
    except OSError as error:
        raise StorageError(f"{name} cannot be stored: {error}", hint="Free some space, or set HF_HOME.") from error
