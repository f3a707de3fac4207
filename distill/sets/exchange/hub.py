"""Sets and projectors on the Hugging Face hub: pushed and fetched only where a person asks for it.

A repository holds what `distill export set --format hf` writes (pictures for people, all of the set
in set.safetensors for programs, card and metadata), and in projector/ the projector of its run.
"""

from __future__ import annotations

import re
import tempfile
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from types import ModuleType
from typing import Any

from distill.errors import RecipeError, WorkError
from distill.names import FORMATS
from distill.run.artefacts import PROJECTOR, SET
from distill.sets.dataset import DistilledSet, open_set
from distill.sets.exchange.exchange import CARD, export_set, restore_set
from distill.sets.set_file import read_set, set_path
from distill.store.files import digest_file, new_folder
from projectors import ProjectorError
from projectors.export.escapes import code_block
from projectors.files.description import DESCRIPTION, read_description
from projectors.model.offline import offline

_ADDRESS = re.compile(r"hf:/{1,2}(\w[\w.-]*/\w[\w.-]*?)(?:@([\w./-]+))?", re.ASCII)

_ARCHIVE = FORMATS["safetensors"].file

# What a push replaces as a whole; files that others have put there stay.
_REPLACED = ["train/*", f"{PROJECTOR}/*"]


@dataclass(frozen=True)
class HubAddress:
    """A repository of data on the hub.

    Attributes:
        repo: OWNER/NAME.
        revision: a branch, tag or commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        address: of the repository.
        commit: its commit, as the hub names it.
        files: how many were sent.
        size: of these, in bytes.
        projector: whether there is one among them.
    """

    address: str
    commit: str
    files: int
    size: int
    projector: bool


def parse_address(text: str | Path) -> HubAddress:
    """The repository of hf://OWNER/NAME or hf://OWNER/NAME@REVISION.

    Raises:
        RecipeError: for a text of another form.
    """
    found = _ADDRESS.fullmatch(str(text))
    if found is None:
        raise RecipeError(
            f"{str(text)!r} is no address of the hub; write hf://OWNER/NAME, or "
            "hf://OWNER/NAME@REVISION"
        )
    return HubAddress(found[1], found[2])


def push_set(path: Path, text: str, licence: str, *, public: bool = False) -> Pushed:
    """Send a set with its card, and the projector beside it, to a repository of the hub.

    A repository that is not there is made. What an earlier push has left there is replaced; the
    hub keeps its history.

    Args:
        path: set.h5, or the folder of a run.
        text: hf://OWNER/NAME.
        licence: SPDX identifier for the card.
        public: whether a new repository can be read by everybody.

    Raises:
        RecipeError: for an address of another form.
        WorkError: if the set cannot be read or exported, or the hub refuses it.
    """
    address = parse_address(text)
    if address.revision is not None:
        raise RecipeError(
            f"{address} names a revision, but a push goes to the main branch; omit it"
        )
    hub = _client(address)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "repository"
        export_set(path, "hf", folder, licence)
        has_projector = _add_projector(set_path(path), folder)
        _add_lines(folder / CARD, address, has_projector=has_projector)
        sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]

        def send() -> Any:
            api = hub.HfApi()
            api.create_repo(address.repo, repo_type="dataset", private=not public, exist_ok=True)
            return api.upload_folder(
                repo_id=address.repo,
                repo_type="dataset",
                folder_path=str(folder),
                commit_message="A distilled set",
                delete_patterns=_REPLACED,
            )

        commit = _asked(address, "pushed to", send)
    return Pushed(str(address), str(commit.oid), len(sizes), sum(sizes), has_projector)


def pull_set(text: str | Path, out: Path, *, download: bool = False) -> tuple[str, ...]:
    """Write the set of a repository, and its projector if there is one, into the new folder `out`.

    Args:
        text: hf://OWNER/NAME or hf://OWNER/NAME@REVISION.
        out: the folder to make.
        download: fetch what is not on this machine.

    Returns:
        Sentences on what was found.

    Raises:
        RecipeError: for an address of another form.
        WorkError: if it cannot be had, holds no set of this program, or `out` is taken.
    """
    address = parse_address(text)
    try:
        with new_folder(out) as folder:
            found = _fetch(address, download=download)
            _restore(address, found, folder / SET)
            has_projector = (found / PROJECTOR / DESCRIPTION).is_file()
            if has_projector:
                _copy_projector(found / PROJECTOR, folder / PROJECTOR)
    except OSError as error:
        raise WorkError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return (f"{SET} and {PROJECTOR}/" if has_projector else f"{SET}; there is no projector",)


def load_set(text: str | Path, *, download: bool = False) -> DistilledSet:
    """The set of a repository as a torch Dataset; see `pull_set`."""
    address = parse_address(text)
    found = _fetch(address, download=download)
    with ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / SET
        _restore(address, found, file)
        data = open_set(file)
        # Of a large set, images are read from the file as they are asked for.
        weakref.finalize(data, stack.pop_all().close)
    return data


def _client(address: HubAddress) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError:
        raise WorkError(
            f"{address} needs the package huggingface_hub, which is not installed: pip install "
            "huggingface_hub"
        ) from None
    return huggingface_hub


def _fetch(address: HubAddress, *, download: bool) -> Path:
    """The folder in which the hub's client keeps the repository."""
    hub = _client(address)

    def look() -> Any:
        with nullcontext() if download else offline():
            return hub.snapshot_download(
                address.repo,
                repo_type="dataset",
                revision=address.revision,
                allow_patterns=[_ARCHIVE, f"{PROJECTOR}/*"],
                local_files_only=not download,
            )

    if download:
        return Path(_asked(address, "fetched from", look))
    try:
        return Path(look())
    except Exception:  # noqa: BLE001 - the hub's client raises errors of several libraries
        raise WorkError(
            f"{address} is not on this machine, and nothing is fetched unasked; add --download, or "
            "download=True in Python, where there is a network"
        ) from None


def _asked(address: HubAddress, what: str, call: Callable[[], Any]) -> Any:
    """What a call that asks the hub gives; its errors in one line."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - the hub's client raises errors of several libraries
        lines = str(error).split("\n")
        reason = next((line.strip() for line in lines if line.strip()), "no reason was given")
        raise WorkError(
            f"nothing was {what} {address} ({type(error).__name__}: {reason}); check its name and "
            "the network, and log in with `hf auth login` where you need a right to it"
        ) from None


def _restore(address: HubAddress, found: Path, out: Path) -> None:
    archive = found / _ARCHIVE
    if not archive.is_file() or not restore_set(archive, FORMATS["safetensors"], out):
        raise WorkError(
            f"{address} holds no {_ARCHIVE} of this program; push a set there, or fetch its files "
            "and read them with `distill import`"
        )
    read_set(out)


def _add_projector(set_file: Path, folder: Path) -> bool:
    """Copy the projector beside a set, if there is one and it labels the same classes."""
    beside = set_file.parent / PROJECTOR
    if not (beside / DESCRIPTION).is_file():
        return False
    classes = read_set(set_file).manifest["class_names"]
    if _classes_of(beside) != classes:
        return False
    _copy_projector(beside, folder / PROJECTOR)
    return True


def _classes_of(projector: Path) -> list[str]:
    try:
        return list(read_description(projector).classes)
    except ProjectorError as error:
        raise WorkError(f"projector {projector}: {error}") from None


def _copy_projector(source: Path, target: Path) -> None:
    """Copy the files that a projector names, which must be whole, and no others that lie there."""
    target.mkdir()
    copyfile(source / DESCRIPTION, target / DESCRIPTION)
    try:
        files = read_description(target).files
    except ProjectorError as error:
        raise WorkError(f"projector {source}: {error}") from None
    for name, digest in files.items():
        if (source / name).is_file():
            copyfile(source / name, target / name)
        if not (target / name).is_file() or digest_file(target / name) != digest:
            raise WorkError(f"projector {source}: {name} is not what was written; make it again")


def _add_lines(card: Path, address: HubAddress, *, has_projector: bool) -> None:
    """Say on the card how the repository is read by this package."""
    lines = ["import distill", f'data = distill.load("{address}", download=True)']
    words = "All of the set, as a torch Dataset of images and soft labels"
    if has_projector:
        words += f", and the projector of `{PROJECTOR}/`, which labels any image"
        lines += [
            "",
            f"# distill import {address} --from hub --download --out mine",
            f'# projectors.load("mine/{PROJECTOR}")',
        ]
    text = card.read_text(encoding="utf-8")
    card.write_text(
        f"{text}\n## Load with Limbeck\n\n{words}:\n\n{code_block(lines, 'python')}\n",
        encoding="utf-8",
    )
