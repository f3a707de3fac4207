"""Lines of Python for a data card that train a student as the stated accuracy was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.sets.dataset import DistilledSet

# Label sources whose labels belong to images, not to stored views.
_OF_IMAGES = ("learned", "hard")

_SCHEDULES = {
    "constant": "",
    "cosine": "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {epochs})",
    "step": "torch.optim.lr_scheduler.MultiStepLR(optimizer, [{half}], 0.1)",
}

# What a measurement by another version, or by another program, may lack.
_MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


def training_lines(data: DistilledSet, prepare: Mapping[str, str]) -> tuple[str, list[str]]:
    """A sentence, and the lines that train the student of the best accuracy.

    Args:
        data: the set.
        prepare: label source -> lines that make `images` [n, c, h, w], normalised, and `labels`,
            classes [n] or probabilities [n, k], of what the lines on loading left.

    Returns:
        The sentence, and lines to follow those on loading; empty where such lines would not give
        the stated accuracies.
    """
    try:
        return _lines(data, prepare)
    except _MALFORMED:
        return "", []


def _lines(data: DistilledSet, prepare: Mapping[str, str]) -> tuple[str, list[str]]:
    measured = data.manifest["measured"]
    found = [
        (stats["mean"], student, source)
        for student, sources in (measured or {"students": {}})["students"].items()
        for source, stats in sources.items()
        if source in _OF_IMAGES and source in prepare and _is_plain(measured["protocol"], source)
    ]
    if not found:
        return "", []
    mean, student, source = max(found)
    stated = measured["protocol"][source]
    sentence = (
        f"These lines follow those above, and train a student as those of {source} labels were "
        f"({100 * mean:.1f} % on average); seeds differ by their spread. Test images need the "
        "normalisation of the set. Network and views come from `limbeck`; with others, accuracies "
        "differ."
    )
    built = "build_network" if _families(stated) == "none" else "build_network, build_views"
    imports = ["import torch", f"from distill.recipes.build import {built}", ""]
    prepared = prepare[source].strip().splitlines()
    return sentence, [*imports, *prepared, *_loop(data, student, stated)]


def _is_plain(protocol: Mapping[str, Any], source: str) -> bool:
    """Whether a source's students were trained by SGD alone, and not by what was chosen aside."""
    stated = protocol[source]
    plain = str(stated["optimizer"]).startswith("sgd") and stated["schedule"] in _SCHEDULES
    return plain and "loss" not in stated and "tuned" not in protocol


def _families(stated: Mapping[str, Any]) -> str:
    """The views of a protocol, as a recipe writes them."""
    views = stated["views"]
    return views if isinstance(views, str) else "_".join(views)


def _loop(data: DistilledSet, student: str, stated: Mapping[str, Any]) -> list[str]:
    """The training of one student."""
    channels, *size = data.images.shape[1:]
    families = _families(stated)
    momentum = float(str(stated["optimizer"]).partition("momentum ")[2] or 0)
    # As `synth.training.loop`: students with the learned rate have no decay.
    decay = "" if stated["protocol"] == "trajectory" else ", weight_decay=5e-4"
    epochs = int(stated["epochs"])
    schedule = _SCHEDULES[stated["schedule"]].format(epochs=epochs, half=(epochs + 1) // 2)
    has_views = families != "none"
    seen = f"views.sample(len(part), {tuple(size)}, draws).apply(images[part])"
    return [
        f"network = build_network({student!a}, {channels}, {tuple(size)}, "
        f"{len(data.manifest['class_names'])}, seed=0)",
        *([f"views = build_views({families!a}, one_per_batch=True)"] if has_views else []),
        "draws = torch.Generator().manual_seed(0)",
        f"optimizer = torch.optim.SGD(network.parameters(), lr={float(stated['lr']):.6g}, "
        f"momentum={momentum:g}{decay})",
        *([f"schedule = {schedule}"] if schedule else []),
        f"for epoch in range({epochs}):",
        "    for part in torch.randperm(len(images), generator=draws)"
        f".split({int(stated['batch_size'])}):",
        f"        seen = {seen if has_views else 'images[part]'}",
        "        optimizer.zero_grad()",
        "        torch.nn.functional.cross_entropy(network(seen), labels[part]).backward()",
        "        optimizer.step()",
        *(["    schedule.step()"] if schedule else []),
    ]


def of_tensors(data: DistilledSet) -> dict[str, str]:
    """`prepare` of formats that hold all arrays as `tensors`, whose `images` students see."""
    if data.content.refined is not None or data.content.factor > 1:
        return {}
    found = {"hard": "labels = classes"}
    if data.content.learned is not None and data.content.coded_labels is None:
        found["learned"] = 'labels = tensors["labels/learned"].softmax(dim=1)'
    return found


def of_arrays(data: DistilledSet) -> dict[str, str]:
    """`prepare` of a format that holds them as NumPy `arrays`."""
    as_tensors = "images = torch.from_numpy(images)\n"
    lines = {
        "hard": "labels = torch.from_numpy(classes).long()",
        "learned": 'labels = torch.from_numpy(arrays["labels/learned"]).softmax(dim=1)',
    }
    return {source: as_tensors + lines[source] for source in of_tensors(data)}


def of_pictures(data: DistilledSet) -> dict[str, str]:
    """`prepare` of pictures as a dataset `data` of pixels, with the probabilities `soft`."""
    stored = data.manifest["preprocess"]
    if stored == "zca":
        return {}
    mean, std = (_column(stored[key]) for key in ("mean", "std"))
    images = (
        f"mean, std = torch.tensor({mean}), torch.tensor({std})\n"
        "images = torch.stack([(image - mean) / std for image, _ in data])\n"
    )
    found = {"hard": images + "labels = torch.tensor(data.targets)"}
    if data.content.learned is not None:
        found["learned"] = images + "labels = torch.from_numpy(soft)"
    return found


def _column(values: Sequence[float]) -> str:
    """Numbers of channels as the text of a tensor [c, 1, 1]."""
    return "[" + ", ".join(f"[[{value:.8g}]]" for value in values) + "]"
