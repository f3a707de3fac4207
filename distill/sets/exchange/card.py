"""The data card of an exported set: what it is, how it is loaded, what was measured, its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill.run.folder import versions
from distill.sets.dataset import DistilledSet
from distill.sets.exchange.training_lines import training_lines
from projectors.export.escapes import code, code_block, inline, yaml_text

UNKNOWN = "unknown"


def data_card(
    data: DistilledSet,
    load: str,
    files: Mapping[str, str],
    licence: str,
    prepare: Mapping[str, str] | None = None,
) -> str:
    """README.md in the form of a Hugging Face dataset card.

    Args:
        data: the set.
        load: five lines of Python, or fewer, that load the exported files.
        files: file name -> what it holds.
        licence: an SPDX identifier, or `UNKNOWN`.
        prepare: what follows `load` to train a student, see `training_lines`; None for no training.
    """
    manifest = data.manifest
    n, c, h, w = data.images.shape
    source = manifest["source"]["name"] or "unnamed real images"
    names = manifest["class_names"]
    sections = [
        _front(licence),
        f"# {n} distilled images of {inline(source)}\n",
        f"{n} synthetic images of {h}x{w} pixels and {c} channel{'s' if c > 1 else ''} that stand "
        f"for the {len(names)} classes of {code(source)}: {', '.join(map(inline, names[:20]))}"
        f"{', ...' if len(names) > 20 else ''}. Distilled with Limbeck; students were "
        f"{code(str(manifest['network']))}, at a learning rate of {manifest['student_lr']:.6g}.\n",
        "| file | what |\n|---|---|\n"
        + "".join(
            f"| {code(name, in_table=True)} | {inline(what)} |\n" for name, what in files.items()
        ),
        f"## Load\n\n{code_block(load.strip().splitlines(), 'python')}\n",
        f"## Space\n\n{_space(data)}\n",
        f"## Measured accuracy\n\n{_measured(manifest['measured'])}",
        *_training(data, prepare or {}),
        f"## Provenance\n\n{_provenance(manifest)}",
        f"## Licence\n\n{_licence(licence, source)}\n",
    ]
    return "\n".join(sections)


def _training(data: DistilledSet, prepare: Mapping[str, str]) -> list[str]:
    sentence, lines = training_lines(data, prepare)
    if not lines:
        return []
    return [f"## Train\n\n{sentence}\n\n{code_block(lines, 'python')}\n"]


def _front(licence: str) -> str:
    return (
        f"---\nlicense: {yaml_text(licence, quoted=True)}\n"
        "task_categories:\n- image-classification\n"
        "tags:\n- dataset-distillation\n- limbeck\n---\n"
    )


def _space(data: DistilledSet) -> str:
    stored = data.manifest["preprocess"]
    if stored == "zca":
        return "Images are ZCA-whitened; the transform and its inverse are part of the set."
    mean, std = (", ".join(f"{value:.6g}" for value in stored[key]) for key in ("mean", "std"))
    return (
        f"Normalised images are (pixels - mean) / std for pixels in [0, 1], mean {mean} and std "
        f"{std} by channel. Test images need the same."
    )


def _measured(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "Not measured. `distill evaluate SET --record` measures and stores it.\n"
    rows = [("this set", measured["students"])]
    rows += [(f"control: {name}", students) for name, students in measured["controls"].items()]
    lines = ["| trained on | student | labels | accuracy | runs |", "|---|---|---|---:|---:|"]
    for title, students in rows:
        for student, sources in students.items():
            start = f"| {inline(title)} | {code(student, in_table=True)}"
            for source, stats in sources.items():
                spread = f" ± {100 * stats['std']:.1f}" if len(stats["runs"]) > 1 else ""
                lines.append(
                    f"{start} | {inline(source)} | {100 * stats['mean']:.1f}{spread} % | "
                    f"{len(stats['runs'])} |"
                )
    tested = measured["protocol"]["test_images"]
    note = f"\nFresh students on {tested:,} test images, each tested once after its last epoch.\n"
    return "\n".join(lines) + "\n" + note


def _provenance(manifest: dict[str, Any]) -> str:
    source = manifest["source"]
    facts = {
        "real data": source["name"] or "not given",
        "digest of the real data": source["digest"] or "not known",
        "seed": manifest["seed"],
        "augmentation": manifest["augmentation"],
        "recipe digest": manifest["recipe_digest"],
        "exported with": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    if "imported" in source:
        facts["imported from"] = f"{source['imported']['file']} ({source['imported']['layout']})"
    for place, part in enumerate(source.get("merged", ()), 1):
        words = f"{part['images']:,} images of {part['name'] or 'unnamed data'}"
        facts[f"part {place}"] = f"{words}, recipe {part['recipe'] or 'unnamed'} ({part['file']})"
    lines = "".join(f"- {name}: {inline(str(value))}\n" for name, value in facts.items())
    recipe = json.dumps(manifest["recipe"], indent=1, ensure_ascii=False)
    block = code_block(recipe.split("\n"), "json")
    return f"{lines}\n<details><summary>Recipe</summary>\n\n{block}\n\n</details>\n"


def _licence(licence: str, source: str) -> str:
    if licence == UNKNOWN:
        return (
            f"Not stated. The images derive from {code(source)}, whose licence binds; fill in the "
            "field `license` above before you publish."
        )
    return f"{inline(licence)}. The images derive from {code(source)}, whose licence binds as well."
