"""Two sets as one: classes by their names, images of both, labels over all classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.errors import RecipeError, WorkError, suggestion
from distill.sets.cost import count_bytes
from distill.sets.exchange.classes import shared_classes
from distill.sets.merged_source import Given, state_source
from distill.sets.rows import take_images
from distill.sets.set_file import SetFile, read_set, set_path, write_set
from synth.images import gather

# Logits of classes that a set's labels did not know lie so far below the log of the summed
# exponentials of the others: a probability of 2e-9 each.
_BELOW = 20.0


def merge_sets(
    first: Given, second: Given, given: Mapping[str, str] | None = None, data: str = ""
) -> tuple[SetFile, tuple[str, ...]]:
    """The images of both sets, class by class, those of the first before those of the second.

    The classes of the first come first, in their order, then the new ones of the second. Images,
    learning rate and augmentation are as the first has them; images of the second that are
    normalised otherwise are normalised as those of the first. Learned labels get a column of very
    low probability for each class that they did not know; where only one set has them, the classes
    of the other take their place. Provenance is in `source["merged"]` of the manifest.

    Args:
        first: the set that stays as it is.
        second: the set that is added.
        given: names of classes of the second -> the names that these classes have in the merged
            set; others are matched by name, see `shared_classes`.
        data: source of real images of all classes, with which the merged set can be evaluated;
            "" for those of the first, if its classes are all.

    Returns:
        The set, and sentences on what was found out or left out.

    Raises:
        RecipeError: for a class in `given` that is not there, or data that do not exist.
        WorkError: if the sets do not fit together, or names do not tell which classes are the same.
    """
    _refuse(_unlike(first.content, second.content), first, second)
    old = list(first.content.manifest["class_names"])
    manifests = first.content.manifest, second.content.manifest
    renamed, notes = class_map(*manifests, given or {}, (first.name, second.name))
    names = [*old, *(name for name in renamed.values() if name not in old)]
    places = torch.tensor([names.index(name) for name in renamed.values()])
    normalised = _normalised_as(first.content, second.content)
    if normalised is not second.content:
        notes.append(f"images of {second.name} are brought to the normalisation of {first.name}")
    parts = [
        _over_classes(first.content, torch.arange(len(old)), names),
        _over_classes(normalised, places, names),
    ]
    parts, label_note = _labelled_alike(parts)
    order = torch.cat([part.hard for part in parts]).argsort(stable=True)
    content, left_out = take_images(parts, order)
    stated, data_note = state_source(first, second, names, data)
    content = replace(content, manifest={**content.manifest, **stated})
    notes += [label_note, *_settings_notes(first, second), *left_out, data_note]
    return content, tuple(filter(None, notes))


def _refuse(problem: str, first: Given, second: Given) -> None:
    if problem:
        raise WorkError(f"{first.name} and {second.name} cannot be merged: {problem}")


def _unlike(first: SetFile, second: SetFile) -> str:
    """What keeps two sets from being one, or ""."""
    sizes = [tuple(content.images.shape[1:]) for content in (first, second)]
    if sizes[0] != sizes[1]:
        return f"images of {sizes[0]} and {sizes[1]}; make both of one size, see data.size"
    if first.factor != second.factor:
        return f"formation factors {first.factor} and {second.factor}; make both with one factor"
    one, other = first.whitening, second.whitening
    if (one is None) != (other is None):
        return "one is whitened, the other is not; make both with the same data.zca"
    if one is not None and other is not None:
        same = one.transform.shape == other.transform.shape and torch.equal(one.mean, other.mean)
        if not same or not torch.equal(one.transform, other.transform):
            return "they are whitened with matrices of different data; make both without data.zca"
    return ""


def class_map(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    given: Mapping[str, str],
    titles: tuple[str, str],
) -> tuple[dict[str, str], list[str]]:
    """What each class of a second set is called in the merged one, and what to say of it.

    Args:
        one: `class_names` and `source` of the first set, as in its manifest.
        other: those of the second.
        given: see `merge_sets`.
        titles: what the two are called in messages.

    Raises:
        RecipeError, WorkError: as `merge_sets`.
    """
    first, second = titles
    counts = Counter(one["class_names"]), Counter(other["class_names"])
    twice = [name for name in counts[1] if max(counts[0][name], counts[1][name]) > 1]
    if twice:
        raise WorkError(
            f"{first} and {second}: class {twice[0]} of {second} cannot be told by its name, which "
            "one of the two has more than once; give their classes names of their own"
        )
    for name in given:
        if name not in other["class_names"]:
            raise RecipeError(
                f"--map names class {name!r}, which {second} has not; "
                f"{suggestion(name, other['class_names'])}"
            )
    tell = any(
        one["source"][key] and one["source"][key] == other["source"][key]
        for key in ("name", "digest")
    )
    try:
        renamed, guessed = shared_classes(
            one["class_names"], other["class_names"], given, numbers_tell=tell
        )
    except ValueError as error:
        raise WorkError(
            f"{first} and {second}: {error}; say it with --map NAME=NAME, first the class of "
            f"{second}"
        ) from None
    notes = [f"class {name} of {second} is taken as {renamed[name]}" for name in guessed]
    return renamed, notes


def _normalised_as(first: SetFile, second: SetFile) -> SetFile:
    """The second set, its images normalised as those of the first; itself where they are."""
    if first.whitening is not None or first.preprocess == second.preprocess:
        return second

    def moved(images: Any) -> Tensor:
        return first.preprocess(second.preprocess.inverse(gather(images)))

    refined = None if second.refined is None else moved(second.refined)
    manifest = {**second.manifest, "preprocess": first.manifest["preprocess"]}
    return replace(second, images=moved(second.images), refined=refined, manifest=manifest)


def _over_classes(content: SetFile, places: Tensor, names: Sequence[str]) -> SetFile:
    """The set with its classes renumbered, and its learned labels over all classes."""
    learned = content.learned
    if learned is not None and (len(names) > len(places) or bool((places.diff() != 1).any())):
        wide = learned.logsumexp(dim=1, keepdim=True).repeat(1, len(names)) - _BELOW
        wide[:, places] = learned
        learned = wide
    manifest = {**content.manifest, "class_names": list(names)}
    return replace(content, hard=places[content.hard], learned=learned, manifest=manifest)


def _labelled_alike(parts: list[SetFile]) -> tuple[list[SetFile], str]:
    """The sets with learned labels where one of them has these: the other's are its classes."""
    without = [part for part in parts if part.learned is None]
    if len(without) != 1:
        return parts, ""
    return [
        part if part.learned is not None else replace(part, learned=_class_logits(part))
        for part in parts
    ], "one of the sets has no learned labels: its classes take their place"


def _class_logits(content: SetFile) -> Tensor:
    classes = len(content.manifest["class_names"])
    hits = torch.nn.functional.one_hot(content.seen_hard, classes)
    return _BELOW * (hits.float() - 1)


def _settings_notes(first: Given, second: Given) -> list[str]:
    """Settings of students that differ; those of the first set are taken."""
    one, other = (part.content.manifest for part in (first, second))
    words = {"student_lr": "learning rate", "augmentation": "augmentation", "network": "network"}
    differ = [word for key, word in words.items() if one[key] != other[key]]
    return [f"students take {' and '.join(differ)} of {first.name}"] if differ else []


def read_given(path: Path) -> Given:
    """The set at a path: set.h5, or the folder of a run."""
    return Given(read_set(set_path(path)), path.name)


def merge_files(
    first: Path, second: Path, out: Path, given: Sequence[str] = (), data: str = ""
) -> dict[str, Any]:
    """Write two sets as one; returns what `distill merge --json` prints.

    Args:
        first: set.h5, or the folder of a run.
        second: likewise.
        out: the new file.
        given: texts NAME=NAME, see `merge_sets`.
        data: see `merge_sets`.

    Raises:
        RecipeError, WorkError: as `merge_sets`, or if a set cannot be read, or `out` is there.
    """
    if out.exists():
        raise WorkError(f"--out {out} exists; name another file or remove it")
    one, other = read_given(first), read_given(second)
    told = parse_map(given, other.content.manifest["class_names"])
    content, notes = merge_sets(one, other, told, data)
    write_set(out, content)
    return describe_merged(out, content, notes)


def describe_merged(out: Path, content: SetFile, notes: Sequence[str]) -> dict[str, Any]:
    """What is said of a merged set, in plain values."""
    return {
        "set": str(out),
        "images": len(content.images),
        "classes": len(content.manifest["class_names"]),
        "merged": content.manifest["source"]["merged"],
        "bytes": count_bytes(content),
        "notes": list(notes),
    }


def parse_map(texts: Sequence[str], names: Sequence[str] = ()) -> dict[str, str]:
    """The pairs of texts NAME=NAME.

    Args:
        texts: as of --map.
        names: of the classes that stand first; of use where one holds the sign itself.

    Raises:
        RecipeError: for a text of another form.
    """
    return dict(_pair(text, names) for text in texts)


def _pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    """The two names of NAME=NAME; a name may hold the sign itself."""
    for place, character in enumerate(text):
        if character == "=" and text[:place] in names and text[place + 1 :]:
            return text[:place], text[place + 1 :]
    name, _, new = text.partition("=")
    if not name or not new:
        raise RecipeError(f"--map got {text!r}; write NAME=NAME, as in --map kitten=cat")
    return name, new
