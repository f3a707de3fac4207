"""Limbeck's application: recipes, data, runs, evaluation and the command `distill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.run.progress import Event
    from distill.sets.compress import Compressed
    from distill.sets.dataset import DistilledSet
    from distill.stages.one_call import Distilled, Network, Teacher


__all__ = ["compress", "distill", "evaluate", "load", "relabel"]


def distill(
    data: object,
    recipe: str | Mapping[str, Any] | None = None,
    *,
    network: Network | None = None,
    teachers: Sequence[Teacher] = (),
    ipc: int | None = None,
    budget_bytes: int | None = None,
    out: str | Path | None = None,
    progress: Callable[[Event], object] | None = None,
) -> Distilled:
    """Distil labelled images into a small set, in this process.

    Args:
        data: a torch Dataset of (image, class number); a pair (images, classes) of arrays or
            tensors; two of either, as (train, test); a mapping of arrays, as in an npz file; a
            folder with a folder of pictures for each class; or a source such as "digits". Images
            are uint8, or floats in [0, 1], of one size, without random changes. Without a test
            part, a fifth is set aside.
        recipe: the name of a packaged recipe or the path of a TOML file; or tables and keys as a
            dict, which change those of another recipe where the key "base" names one. None takes
            the settings of `digits`, without its projector, for images of their own size, or of
            `photos-bytes` where `budget_bytes` is given without `ipc` and `teachers`.
        network: of experts and students: a spec such as "convnet3:width=32", or a class or
            function of your own, called as (channels, (height, width), classes), that gives an
            nn.Module. None for the recipe's.
        teachers: that vote the soft labels, all with equal weight: trained modules or functions,
            called with pixels [n, c, h, w] (images of the data in [0, 1], under views) for logits
            [n, k]; or specs. None are trained but those of specs. Empty for the recipe's.
        ipc: images per class; None for the recipe's.
        budget_bytes: the most bytes of images, labels and all else that a receiver needs.
        out: the folder of the run, from which the same call goes on; None for a temporary one.
        progress: called after every unit of work with a `distill.run.progress.Event`; what it
            raises ends the run. None shows progress on standard error.

    Returns:
        The set, its curves, and what can be done with it.

    Raises:
        distill.errors.LimbeckError: in one line; with `out`, what is finished is kept.
    """
    from distill.stages.one_call import distil

    return distil(
        data,
        recipe,
        network=network,
        teachers=teachers,
        ipc=ipc,
        budget_bytes=budget_bytes,
        out=out,
        progress=progress,
    )


def evaluate(
    set: str | Path | DistilledSet | Distilled,
    *,
    network: Network | Sequence[Network] | None = None,
    teachers: Sequence[Teacher] = (),
    data: object = None,
    device: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train fresh students on a set, and on its controls.

    Args:
        set: a set.h5, the folder of a run that holds one, or what `load` or `distill` gave.
        network: of the students, one or several, as for `distill`; None for the recipe's.
        teachers: those that were given to `distill`, in the same order, where labels need them.
        data: the real data where they are not where the set says, as for `distill`; they must be
            those that it was made from.
        device: "auto", "cpu" or "cuda"; None for the recipe's.
        quiet: show no progress.
        settings: keys of a recipe's table [evaluate], such as seeds=3, epochs=300.

    Returns:
        What `distill evaluate --json` prints: `students` and `controls`, each as network ->
        label source -> mean and so on, accuracies as fractions; `bytes`, and `protocol`.

    Raises:
        distill.errors.LimbeckError: in one line.
    """
    from distill.stages.one_call import evaluate

    return evaluate(
        set,
        network=network,
        teachers=teachers,
        data=data,
        device=device,
        quiet=quiet,
        **settings,
    )


def load(path: str | Path, *, download: bool = False) -> DistilledSet:
    """Read set.h5 as a torch Dataset of (image, soft label).

    Torch is imported here and not above, so that `distill --help` stays quick.

    Args:
        path: a set.h5, or the folder of a run that holds one; or hf://OWNER/NAME, a repository of
            the Hugging Face hub that `distill export hub` has made.
        download: of the hub, fetch what is not on this machine; nothing is fetched unasked.

    Raises:
        distill.errors.WorkError: if the file is missing, foreign or damaged.
    """
    from distill.sets.dataset import open_set

    if str(path).startswith("hf:/"):
        from distill.sets.exchange.hub import load_set

        return load_set(path, download=download)
    return open_set(path)


def compress(set: str | Path | DistilledSet, budget_bytes: int, *, steps: int = 0) -> Compressed:
    """Keep a set in at most `budget_bytes` bytes of images, labels and all else a receiver needs.

    Args:
        set: a set.h5, the folder of a run that holds one, or what `load` gave.
        budget_bytes: at least 1.
        steps: gradient steps that bring coded images nearer to the originals in the same bytes;
            30 are enough, 0 for none.

    Returns:
        The set, how its images are coded, how near they come, and what is counted; `save` writes
        it as set.h5.

    Raises:
        distill.errors.WorkError: if the set cannot be read, or does not fit, or an argument is of
            another kind.
    """
    from distill.sets.compress import compress_given

    return compress_given(set, budget_bytes, steps)


def relabel(
    set: str | Path | DistilledSet | Distilled,
    teachers: Sequence[Teacher] | Teacher = (),
    *,
    data: object = None,
    device: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> DistilledSet:
    """Label every view of a set's images anew; the images stay as they are.

    Args:
        set: a set.h5, the folder of a run that holds one, or what `load` or `distill` gave; it is
            left as it is.
        teachers: that vote, all with equal weight, as for `distill`; empty for the committee that
            lies beside the set.
        data: the real data where they are not where the set says, as for `distill`; they must be
            those that it was made from. Teachers are measured on a held-out part of them, and one
            near chance is refused.
        device: "auto", "cpu" or "cuda"; None for the recipe's.
        quiet: show no progress.
        settings: keys of a recipe's table [relabel], such as epochs=300, temperature=4.0.

    Returns:
        The set with these labels; `save` writes it as set.h5. Hard and learned labels stay; what
        was encoded, or measured, with the former labels is left out.

    Raises:
        distill.errors.LimbeckError: in one line.
    """
    from distill.stages.one_call import relabel

    return relabel(set, teachers, data=data, device=device, quiet=quiet, **settings)
