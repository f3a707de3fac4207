"""What `projector.json` says, and its checks."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from projectors.errors import ProjectorError
from projectors.head import HeadSettings
from projectors.projector import AdapterSettings, Preprocessing, check_classes

DESCRIPTION = "projector.json"
FORMAT = "limbeck-projector-1"


@dataclass(frozen=True)
class Description:
    """All that a receiver needs to rebuild a projector, beside its tensors.

    Attributes:
        tower_spec: as for `load_tower`.
        tower_seed: as for `load_tower`.
        tower_digest: SHA-256 of the tower's tensors, in hex.
        external_bytes: bytes of the tower that must be fetched elsewhere.
        classes: k names.
        preprocessing: the space of the images.
        adapter: the adapters, all targets named.
        head: the head.
        files: SHA-256, in hex, of every other file of the folder, by name.
    """

    tower_spec: str
    tower_seed: int
    tower_digest: str
    external_bytes: int
    classes: list[str]
    preprocessing: Preprocessing
    adapter: AdapterSettings
    head: HeadSettings
    files: dict[str, str]

    def to_json(self) -> str:
        """The text of the file; the same description gives the same text."""
        document = {
            "format": FORMAT,
            "tower": {
                "spec": self.tower_spec,
                "seed": self.tower_seed,
                "digest": self.tower_digest,
                "external_bytes": self.external_bytes,
            },
            "classes": self.classes,
            "preprocessing": asdict(self.preprocessing),
            "adapter": asdict(self.adapter),
            "head": asdict(self.head),
            "files": self.files,
        }
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_description(folder: Path) -> Description:
    """Read and check a folder's description.

    Raises:
        ProjectorError: if it is missing, or is not a description.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        kept = folder.resolve().with_name(f".{folder.resolve().name}.previous")
        hint = f"rename {kept}, which a broken save left" if kept.exists() else "check the path"
        raise ProjectorError(f"{folder} holds no {DESCRIPTION}, so it is no projector; {hint}")
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format"] != FORMAT:
            raise ProjectorError(f"its format is {document['format']!r}, not {FORMAT!r}")
        return _parse(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ProjectorError(
            f"{path} is no description of a projector ({reason}); fetch the whole folder again"
        ) from error


def _parse(document: dict[str, Any]) -> Description:
    tower, adapter, head = document["tower"], document["adapter"], document["head"]
    preprocessing = document["preprocessing"]
    classes = [str(name) for name in document["classes"]]
    check_classes(classes)
    files = {str(name): str(digest) for name, digest in document["files"].items()}
    if any(name != Path(name).name for name in files):
        raise ProjectorError("a file name leads out of the folder")
    return Description(
        tower_spec=str(tower["spec"]),
        tower_seed=int(tower["seed"]),
        tower_digest=str(tower["digest"]),
        external_bytes=int(tower["external_bytes"]),
        classes=classes,
        preprocessing=Preprocessing(_floats(preprocessing["mean"]), _floats(preprocessing["std"])),
        adapter=AdapterSettings(
            rank=int(adapter["rank"]),
            alpha=int(adapter["alpha"]),
            targets=tuple(str(name) for name in adapter["targets"]),
            seed=int(adapter["seed"]),
        ),
        head=HeadSettings(
            templates=tuple(str(template) for template in head["templates"]),
            init=str(head["init"]),
            trained=str(head["trained"]),
            seed=int(head["seed"]),
        ),
        files=files,
    )


def _floats(values: list[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
