"""The model card of an exported projector."""

from collections.abc import Mapping

from projectors.export.escapes import code, code_block, inline, yaml_text
from projectors.export.formats import Exported
from projectors.export.open_clip_folder import public_name
from projectors.fitting.fidelity import Fidelity
from projectors.model.projector import Projector

_LIBRARIES = {"peft": "peft", "merged": "open_clip", "onnx": "onnx", "torch-export": "pytorch"}

_CLASSES_SHOWN = 20


def model_card(
    projector: Projector,
    exported: Exported,
    files: Mapping[str, int],
    *,
    form: str,
    fidelity: Mapping[str, Fidelity | None],
    licence: str,
) -> str:
    """The text of README.md, in the form that model hubs read.

    Args:
        projector: what was exported.
        exported: how it is loaded.
        files: bytes of every other file of the folder, by name.
        form: the format's name.
        fidelity: measured fidelity, by what it was measured against.
        licence: an identifier, or "unknown".
    """
    shown = ", ".join(map(inline, projector.classes[:_CLASSES_SHOWN]))
    more = len(projector.classes) - _CLASSES_SHOWN
    parts = [
        "---",
        f"license: {yaml_text(licence)}",
        f"library_name: {_LIBRARIES.get(form, 'limbeck')}",
        "tags: [dataset-distillation, soft-labels, image-classification]",
        "---",
        "",
        f"# Projector of {len(projector.classes)} classes",
        "",
        "An image encoder with a fitted head that gives an image its soft label, so that no label "
        "has to be stored with a synthetic set.",
        "",
        f"Classes: {shown}{f', and {more} more' if more > 0 else ''}; all in `about.json`.",
        "",
        "## Use",
        "",
        f"In this folder, with {exported.takes}:",
        "",
        code_block(exported.lines, "python"),
        "",
        *_base(projector, exported),
        "",
        "## Fidelity",
        "",
        *_fidelity(fidelity),
        f"Loaded by the lines above, its probabilities differ by at most {exported.gap:.1e} from "
        "the projector that was exported, on random images.",
        "",
        "## Bytes",
        "",
        "| file | bytes |",
        "|---|---:|",
        *(f"| {code(name, in_table=True)} | {size:,} |" for name, size in sorted(files.items())),
        f"| **all** | **{sum(files.values()):,}** |",
        "",
        "## Licence",
        "",
        f"{inline(licence)}. The base has a licence of its own, which this one does not replace.",
        "",
    ]
    return "\n".join(parts)


def _base(projector: Projector, exported: Exported) -> list[str]:
    tower = projector.tower
    where = (
        "It is in this folder."
        if exported.has_base
        else f"It is not in this folder: {tower.external_bytes:,} bytes to fetch elsewhere."
    )
    return [
        "## Base",
        "",
        f"{code(public_name(tower))}, SHA-256 of its tensors `{tower.digest}`. {where}",
    ]


def _fidelity(measured: Mapping[str, Fidelity | None]) -> list[str]:
    rows = [
        f"| {inline(name)} | {fidelity.kl:.5f} | {100 * fidelity.agreement:.2f} % | "
        f"{100 * fidelity.accuracy:.2f} % |"
        for name, fidelity in measured.items()
        if fidelity is not None
    ]
    if not rows:
        return ["Not measured on held-out images.", ""]
    return [
        "On held-out images: divergence from what it is compared with in nats, share of equal "
        "first classes, and its own accuracy.",
        "",
        "| against | KL | agreement | accuracy |",
        "|---|---:|---:|---:|",
        *rows,
        "",
    ]
