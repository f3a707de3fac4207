"""`distill inspect DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from distill.commands.options import (
    NameChoice,
    allow_code,
    as_json,
    debug,
    device,
    html_page,
    quiet,
)
from distill.terminal import echo, echo_json, echo_lines


@click.command()
@click.argument("data")
@click.option(
    "--size",
    type=click.IntRange(4),
    help="Bring images to this size first; default: 64 for pictures in files, else as they are.",
)
@click.option("--channels", type=NameChoice(["1", "3"]), help="Of the images, as in recipes.")
@click.option(
    "--similarity",
    type=click.FloatRange(0.5, 1),
    default=0.995,
    show_default=True,
    help="Correlation from which on two images count as near copies; 1: exact copies alone.",
)
@click.option(
    "--experts",
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Also list likely label errors, by the experts, or the committee, of this run on DATA.",
)
@html_page("pictures of what was found")
@allow_code
@device
@as_json
@quiet
@debug
def inspect(
    data: str,
    size: int | None,
    channels: str | None,
    similarity: float,
    experts: Path | None,
    html: Path | None,
    device: str | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Check the health of DATA (a source, or a folder of classes) before anything is trained.

    Counts images by class, sizes and colours, damaged pictures, and copies: in a class, across
    classes (likely label errors), and across the parts that a run would cut (leaks). Nothing is
    changed.

    \b
    Example:
      distill inspect photos
      distill inspect photos --experts runs/mine --html health.html
    """
    from distill.errors import InterruptedRunError
    from distill.evaluation.checks.inspection import Wishes, inspect_data
    from distill.evaluation.checks.inspection_page import inspection_page
    from distill.report.pages import refuse_other_file, write_page
    from distill.run.interrupt import listen

    if html is not None:
        refuse_other_file(html, "--html")
    wishes = Wishes(size, int(channels) if channels else None, similarity, experts)
    try:
        with listen() as stop:
            found = inspect_data(data, wishes, device, quiet=quiet, check=stop.check)
    except InterruptedRunError:
        raise InterruptedRunError("interrupted; run the same command to begin anew") from None
    if html is not None:
        write_page(html, inspection_page(found))
    content = found.to_dict()
    if as_json:
        echo_json(content)
        return
    echo_lines(_lines(content))
    for note in content["notes"]:
        echo(f"note: {note}", err=True)
    if html is not None:
        echo(html)


def _lines(content: dict[str, Any]) -> list[str]:
    """What was found, in lines."""
    counts = {part: sum(own) for part, own in content["images"].items()}
    by_class = [sum(own) for own in zip(*content["images"].values(), strict=True)]
    stored, looked = content["stored"], content["looked_at"]
    sizes = dict.fromkeys(f"{w}x{h}" for h, w in (stored["smallest"], stored["largest"]))
    named = [f"{name} {count:,}" for name, count in zip(content["classes"], by_class, strict=True)]
    more = f", and {len(named) - 20} more" if len(named) > 20 else ""
    lines = [
        f"{content['source']}: {sum(counts.values()):,} images of {len(named)} classes",
        f"parts: {', '.join(f'{count:,} {part}' for part, count in counts.items())}",
        f"classes: {', '.join(named[:20])}{more}",
        f"stored: {' to '.join(sizes)} pixels; "
        + ", ".join(f"{count:,} {mode}" for mode, count in stored["modes"].items()),
        f"looked at: {looked['size'][1]}x{looked['size'][0]} pixels, {looked['channels']} channels",
    ]
    lines += [f"damaged: {what}" for what in content["damaged"][:20]]
    lines += [f"found: {sentence}" for sentence in content["findings"]]
    lines += ["found: nothing to mend"] if not content["findings"] else []
    lines += [f"suggested: {sentence}" for sentence in content["suggestions"]]
    return lines + _listed(content)


def _listed(content: dict[str, Any]) -> list[str]:
    """The first pairs of each kind, and label errors."""
    words = {"leaks": "leak", "conflicts": "two labels", "within": "copy"}
    lines = [
        f"{words[kind]}: {pair['first']} = {pair['second']}"
        + ("" if pair["exact"] else f" ({pair['similarity']:.4f})")
        for kind, found in content["copies"].items()
        for pair in found["pairs"][:5]
    ]
    errors = content.get("label_errors", {"images": []})["images"]
    return lines + [
        f"label: {one['image']} is called {one['label']} ({100 * one['own']:.1f} %), more likely "
        f"{one['suggested']} ({100 * one['other']:.1f} %)"
        for one in errors[:10]
    ]
