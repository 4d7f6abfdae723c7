"""Models on the Hugging Face hub: a snapshot of the files that a checkpoint needs.

Owns talking to the hub and what is said when it fails; which files are needed says `hub_files`.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from cupola.errors import ModelError, StorageError
from cupola.weights.hub_files import Selection, select


def fetch(repository: str, revision: str | None, choice: str | None, announce: Callable[[str], None]) -> Path:
    """The folder of a snapshot, or a GGUF file in one, from the hub's own cache where it is there already.

    What a broken download had finished is kept, file by file; the next goes on from there. On a terminal there is a
    bar. The library reads $HF_ENDPOINT, $HF_TOKEN, $HF_HOME and $HF_HUB_OFFLINE.

    Args:
        repository: `org/name`.
        revision: a branch, tag or commit; None means the default branch.
        choice: which GGUF file, as `hub_files.select` takes it.
        announce: called with one sentence before the hub is asked.

    Raises:
        UsageError: the repository has several GGUF files, and `choice` does not say which.
        UnsupportedError: it has only pickled weights.
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
        selection = _selection(repository, revision, choice)
        wanted = [glob.escape(name) for name in selection.files]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
        return folder if selection.gguf is None else folder / selection.gguf
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


def _selection(repository: str, revision: str | None, choice: str | None) -> Selection:
    """What to fetch, by the hub's list of files; where it cannot be reached, by those of the snapshot in the cache."""
    from huggingface_hub import HfApi, errors, snapshot_download

    broken_line: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        entries = HfApi().model_info(repository, revision=revision).siblings or ()
        return select([entry.rfilename for entry in entries], choice, repository)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise
    except (ConnectionError, TimeoutError, broken_line) as error:
        try:
            # Patterns for no file: whether the snapshot has all that the repository has is not the question.
            folder = snapshot_download(repository, revision=revision, local_files_only=True, ignore_patterns=["*"])
            kept = (path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
            return select(sorted(kept), choice, repository)
        except (errors.LocalEntryNotFoundError, ModelError):  # what is there is no model
            raise error from None


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
