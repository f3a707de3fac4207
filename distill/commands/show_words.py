"""What `distill show` says: what a thing is, what is done, how good it is, and what may follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from distill.errors import WorkError

Shown = Mapping[str, Any]

# Errors that values of unexpected types raise, and files that cannot be read.
_MALFORMED = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, OSError
)  # fmt: skip

_MOST_NAMES = 5


def sentences(path: Path, shown: Shown) -> list[str]:
    """Lines on what is at `path`.

    Args:
        path: of a run, a recipe, a set, experts, a committee, a projector or packed data.
        shown: what `distill show --json` prints of it.

    Raises:
        WorkError: where its texts are not those of such a thing.
    """
    kinds: dict[str, Callable[[Path, Shown], Iterator[str]]] = {
        "run": _run,
        "recipe": _recipe,
        "set": _set,
        "experts": _experts,
        "committee": _committee,
        "projector": _projector,
        "packed data": _packed,
    }
    try:
        return list(kinds[shown["kind"]](path, shown))
    except WorkError:
        raise
    except _MALFORMED as error:
        raise WorkError(
            f"{path}: its texts are not those of a {shown['kind']} ({type(error).__name__}: "
            f"{error}); see them with --json, and make it again"
        ) from None


def _run(path: Path, shown: Shown) -> Iterator[str]:
    from distill.report.verdict import find_verdict
    from distill.run.artefacts import EVALUATE_STAGE, REPORT, SUMMARY
    from distill.stages.verification import stages_of
    from distill.store.documents import read_json

    recipe, stages = shown["recipe"], shown["stages"]
    source = (shown.get("data") or {}).get("source", recipe["data"]["source"])
    yield f"A run of the recipe {recipe['name']} on {source}, seed {recipe['seed']}."
    seconds = sum(float(entry["seconds"]) for entry in stages.values())
    missing = [name for name in stages_of(recipe) if name not in stages]
    done = f"Done: {', '.join(stages)}, in {_duration(seconds)}." if stages else "Nothing is done."
    yield done + (f" Not done yet: {', '.join(missing)}." if missing else "")
    if EVALUATE_STAGE in stages and (path / SUMMARY).is_file():
        yield find_verdict(read_json(path / SUMMARY)).sentence
    if (path / REPORT).is_file():
        yield f"Its report: {path / REPORT}"
    if missing:
        yield f"Next: the command that began it, with --out {_quoted(path)}, goes on."
    else:
        yield _next("export set", path, "--format imagefolder --out FOLDER")


def _recipe(path: Path, shown: Shown) -> Iterator[str]:
    from distill.stages.verification import stages_of

    summary = f": {shown['summary']}" if shown["summary"] else ""
    yield f"The recipe {shown['name']}{summary}"
    stages = stages_of({key: value for key, value in shown.items() if key != "kind"})
    yield f"Data: {shown['data']['source']}. Stages: {', '.join(stages)}."
    yield f"Next: distill plan {_quoted(path)}"


def _set(path: Path, shown: Shown) -> Iterator[str]:
    from distill.report.verdict import find_verdict

    count, *shape = shown["images"]
    classes, source = shown["class_names"], shown["source"]["name"] or "images that are not named"
    kept = "" if shown["coded images"] is None else f", kept in {shown['coded images']:,} bytes"
    formed = f", {shown['factor'] ** 2} formed in each" if shown["factor"] > 1 else ""
    yield (
        f"{count:,} distilled images of {'x'.join(map(str, shape))}{kept}{formed}, which stand for "
        f"the {len(classes)} classes of {source} ({_names(classes)})."
    )
    labels = ["hard"] + (["learned"] if shown["learned labels"] else [])
    if shown["voted labels"] is not None:
        labels.append(f"votes of {shown['voted labels'][0]} epochs")
    labels += [f"{name} ({size:,} bytes)" for name, size in shown["encoded labels"].items()]
    yield (
        f"Labels: {', '.join(labels)}. Made with {shown['network']}; students with learned labels "
        f"take SGD at {shown['student_lr']:.4g}, under the views {shown['augmentation']}."
    )
    if shown["measured"] is None:
        yield "Its accuracy has not been measured."
        yield _next("evaluate", path, "--record")
    else:
        yield find_verdict(shown["measured"]).sentence
        yield f"Its page: distill report {_quoted(path)}"
        yield _next("export set", path, "--format imagefolder --out FOLDER")


def _experts(path: Path, shown: Shown) -> Iterator[str]:
    count, kept = shown["experts"], shown["kept epochs"]
    yield (
        f"{count} expert{'' if count == 1 else 's'} of {shown['network']}, {shown['parameters']:,} "
        f"parameters, {shown['epochs']} epochs each."
    )
    error = shown["largest error"]
    rounded = f", largest error {error:.2g}" if error else ""
    span = f"{len(kept)} epochs from {kept[0]} to {kept[-1]}"
    yield f"Kept: {span}, storage {shown['storage']}{rounded}."
    if shown["imported"] is not None:
        yield f"Imported: {', '.join(shown['imported'])}."
    yield f"Next: distill run RECIPE --out RUN --reuse {_quoted(path)}"


def _committee(path: Path, shown: Shown) -> Iterator[str]:
    members = shown["members"]
    classes = shown["class_names"]
    yield f"{len(members)} teachers of {len(classes)} classes ({_names(classes)})."
    yield "Accuracy on held-out images: " + ", ".join(
        f"{spec} {100 * accuracy:.1f} %" for spec, accuracy in members.items()
    )
    yield f"Next: distill run RECIPE --out RUN --reuse {_quoted(path.parent)}"


def _projector(path: Path, shown: Shown) -> Iterator[str]:
    classes = shown["classes"]
    yield (
        f"A projector, which labels images of {len(classes)} classes ({_names(classes)}). Its "
        f"tower is {shown['tower']['spec']}, its adapters have rank {shown['adapter']['rank']}."
    )
    fidelity = shown.get("fidelity")
    if fidelity is not None:
        yield (
            f"On held-out images: agreement with its teacher {100 * fidelity['agreement']:.1f} %, "
            f"accuracy {100 * fidelity['accuracy']:.1f} %."
        )
    yield _next("export projector", path, "--format onnx --out FOLDER")


def _packed(path: Path, shown: Shown) -> Iterator[str]:
    images = ", ".join(f"{count:,} for {name}" for name, count in shown["images"].items())
    yield f"Packed data of {shown['source']}, {shown['classes']} classes; images: {images}."
    yield f"Next: distill run RECIPE --out RUN --set data.source=packed:{_quoted(path)}"


def _next(verb: str, path: Path, options: str) -> str:
    return f"Next: distill {verb} {_quoted(path)} {options}"


def _quoted(path: Path) -> str:
    return quote(str(path))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
