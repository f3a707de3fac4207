"""The contents of `projector.json`, and their checks."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from projectors.errors import ProjectorError
from projectors.files.compact import Storage
from projectors.fitting.fidelity import Fidelity
from projectors.model.head import HeadSettings
from projectors.model.preparation import Preprocessing
from projectors.model.projector import AdapterSettings, check_classes
from projectors.model.tower import Tower

DESCRIPTION = "projector.json"

FORMAT = "limbeck-projector-1"

# Above the width of every known tower: a larger rank is corrupt or malicious.
_LARGEST_RANK = 1 << 14

# The key of the digest that a description holds of itself.
SEAL = "digest"

# A hundred thousand classes of long names take less.
_LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class TowerRecord:
    """The tower of a projector.

    Attributes:
        spec: as for `load_tower`.
        seed: as for `load_tower`.
        digest: SHA-256 of the tower's tensors, in hex.
        external_bytes: bytes of the tower that must be fetched elsewhere.
        image_size: height and width that it takes; None in files that do not say it.
        mean: its own preprocessing; None in files that do not say it.
        std: as `mean`.
    """

    spec: str
    seed: int
    digest: str
    external_bytes: int
    image_size: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @staticmethod
    def of(tower: Tower) -> "TowerRecord":
        """The record of a loaded tower."""
        return TowerRecord(
            tower.spec,
            tower.seed,
            tower.digest,
            tower.external_bytes,
            tower.image_size,
            tower.mean,
            tower.std,
        )

    def wanted(self) -> str:
        """The tower's spec and digest, for messages."""
        return f"{self.spec!r} (SHA-256 of its tensors {self.digest[:12]})"

    def check(self, path: str, tower: Tower) -> None:
        """Raise ProjectorError unless this is the tower, with the same preprocessing."""
        if tower.digest != self.digest:
            raise ProjectorError(
                f"{path} was fitted on a tower with the digest {self.digest[:12]}, but "
                f"{tower.spec!r} has {tower.digest[:12]}; fetch the same weights as "
                f"{self.wanted()}, or pass them with load(path, tower=load_tower(...))"
            )
        for name in ("image_size", "mean", "std"):
            came, need = getattr(tower, name), getattr(self, name)
            if need is not None and came != need:
                raise ProjectorError(
                    f"{path} was fitted on a tower whose {name} is {need}, but {tower.spec!r} "
                    f"says {came}; fetch its open_clip_config.json with the weights of "
                    f"{self.wanted()}"
                )


@dataclass(frozen=True)
class Description:
    """All that a receiver needs to rebuild a projector, beside its tensors.

    Attributes:
        tower: the frozen model.
        classes: k names.
        preprocessing: normalisation of the input images.
        adapter: the adapters, all targets named.
        head: the head.
        files: SHA-256, in hex, of every other file of the folder, by name.
        storage: how the fitted numbers are written.
        fidelity: on images held out of the fit, if it was measured.
    """

    tower: TowerRecord
    classes: list[str]
    preprocessing: Preprocessing
    adapter: AdapterSettings
    head: HeadSettings
    files: dict[str, str]
    storage: Storage
    fidelity: Fidelity | None = None

    def to_json(self) -> str:
        """The text of the file, sealed; the same description gives the same text."""
        return text_of(sealed({"format": FORMAT, **asdict(self)}))

    def check_classes(self, path: str, classes: Sequence[str]) -> None:
        """Raise ProjectorError unless these are the classes, in their order."""
        if list(classes) == self.classes:
            return
        pairs = zip(classes, self.classes, strict=False)
        ours, theirs = next(((a, b) for a, b in pairs if a != b), ("", ""))
        first = f"; the first that differ are {ours!r} and {theirs!r}" if ours or theirs else ""
        raise ProjectorError(
            f"{path} labels {len(self.classes)} classes, but the data have {len(classes)}, and "
            f"not the same in the same order{first}; fetch the projector of these data, or fit one"
        )


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A description with the digest of what it says."""
    return {**document, SEAL: _digest(document)}


def unsealed(text: str) -> str:
    """The text of a description without its digest, for what has a checksum of its own."""
    document = json.loads(text)
    return text_of({key: value for key, value in document.items() if key != SEAL})


def text_of(document: dict[str, Any]) -> str:
    """The text of the file."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _digest(document: dict[str, Any]) -> str:
    """SHA-256 of all but the digest, as JSON with sorted keys, without spaces, in ASCII."""
    content = {key: value for key, value in document.items() if key != SEAL}
    spelled = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(spelled.encode()).hexdigest()


def read_description(folder: Path) -> Description:
    """Read and check a folder's description.

    Raises:
        ProjectorError: if it is missing, is not a description, or is not what was written. One
            from before descriptions held a digest is read unchecked.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        kept = folder.resolve().with_name(f".{folder.resolve().name}.previous")
        hint = f"rename {kept}, which a broken save left" if kept.exists() else "check the path"
        raise ProjectorError(f"{folder} holds no {DESCRIPTION}, so it is no projector; {hint}")
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ProjectorError(f"it has more than {_LARGEST_BYTES:,} bytes")
        document = json.loads(path.read_text("utf-8"))
        if document["format"] != FORMAT:
            raise ProjectorError(f"its format is {document['format']!r}, not {FORMAT!r}")
        if SEAL in document and document[SEAL] != _digest(document):
            raise ProjectorError("it is not what was written, by its digest")
        return _parse(document)
    except (
        KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError, RecursionError
    ) as error:  # fmt: skip
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ProjectorError(
            f"{path} is no description of a projector ({reason}); fetch the whole folder again"
        ) from error


def _parse(document: dict[str, Any]) -> Description:
    adapter, head = document["adapter"], document["head"]
    preprocessing, storage = document["preprocessing"], document.get("storage", {})
    classes = [str(name) for name in document["classes"]]
    check_classes(classes)
    files = {str(name): str(digest) for name, digest in document["files"].items()}
    if not all(map(is_plain_name, files)):
        raise ProjectorError("a file name leads out of the folder")
    _check_numbers(document)
    measured = document.get("fidelity")
    return Description(
        tower=_tower(document["tower"]),
        classes=classes,
        preprocessing=Preprocessing(_floats(preprocessing["mean"]), _floats(preprocessing["std"])),
        adapter=AdapterSettings(
            rank=int(adapter["rank"]),
            alpha=int(adapter["alpha"]),
            targets=tuple(str(name) for name in adapter["targets"]),
            seed=int(adapter["seed"]),
            ranks={str(kind): int(rank) for kind, rank in adapter.get("ranks", {}).items()},
        ),
        head=HeadSettings(
            templates=tuple(str(template) for template in head["templates"]),
            init=str(head["init"]),
            trained=str(head["trained"]),
            seed=int(head["seed"]),
            rank=int(head.get("rank", HeadSettings.rank)),
        ),
        files=files,
        storage=Storage(**storage),
        fidelity=None if measured is None else Fidelity(**measured),
    )


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a file directly in a folder."""
    return name == Path(name).name and name not in ("", ".", "..") and "\0" not in name


def _check_numbers(document: dict[str, Any]) -> None:
    """Check the numbers by which memory is allocated and weights are drawn."""
    adapter, head = document["adapter"], document["head"]
    ranks = [adapter["rank"], head.get("rank", 1), *adapter.get("ranks", {}).values()]
    if not all(0 <= int(rank) <= _LARGEST_RANK for rank in ranks):
        raise ProjectorError(f"a rank lies outside 0 to {_LARGEST_RANK}")
    seeds = (adapter["seed"], head["seed"], document["tower"]["seed"])
    if not all(0 <= int(seed) < 2**63 for seed in seeds):
        raise ProjectorError("a seed is no whole number from 0 below 2^63")


def _tower(document: dict[str, Any]) -> TowerRecord:
    size, mean, std = (document.get(name) for name in ("image_size", "mean", "std"))
    return TowerRecord(
        spec=str(document["spec"]),
        seed=int(document["seed"]),
        digest=str(document["digest"]),
        external_bytes=int(document["external_bytes"]),
        image_size=None if size is None else tuple(int(value) for value in size),
        mean=None if mean is None else _floats(mean),
        std=None if std is None else _floats(std),
    )


def _floats(values: list[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
