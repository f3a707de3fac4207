"""Reports to render, and a reader of HTML that sees what is wrong with it."""

from html.parser import HTMLParser

import numpy as np

from distill.report import ReportInput

MARKUP = "<img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "hr", "input", "link"}
SOURCES = {"hard": 0.61, "learned": 0.68, "votes": 0.783, "projector": 0.775}


def entry(mean, std=0.004, seeds=3):
    offsets = [0.0] if seeds == 1 else np.linspace(-std, std, seeds)
    return {"mean": mean, "std": std, "runs": [mean + float(o) for o in offsets]}


def make_summary(votes=0.783):
    students = {
        name: {source: entry(mean - drop) for source, mean in {**SOURCES, "votes": votes}.items()}
        for name, drop in (("convnet3", 0.0), ("resnet18", 0.03))
    }
    random = {name: {"hard": entry(0.52), "votes": entry(0.641)} for name in students}
    whole = {name: {"hard": entry(0.912, seeds=1)} for name in students}
    return {
        "students": students,
        "controls": {"random": random, "whole": whole},
        "bytes": {
            "images": 78_400,
            "labels": {"hard": 100, "learned": 2_000, "votes": 600_000},
            "projector": 310_000,
            "external": 351_000_000,
        },
        "protocol": {"steps": 300, "optimizer": {"name": "sgd", "lr": 0.01}, "flips": True},
        "stages": {"match": {"seconds": 5.0, "peak_memory_bytes": 1}},
        "confusion": {name: {"votes": make_confusion()} for name in students},
    }


def make_confusion(classes=10):
    """Nine in ten right; of class 1, a third more is taken for class 2."""
    rows = [[9 if a == b else int(b == (a + 1) % classes) for b in range(classes)] for a in
            range(classes)]  # fmt: skip
    rows[1][2] += 5
    return rows


def make_sweep():
    """Three codecs and hard labels on both kinds of images; `topk:k=1` is dominated."""
    found = [
        ("hard", 20, 0.6),
        ("topk:k=1", 3_000, 0.65),
        ("roots", 2_000, 0.7),
        ("full", 9e4, 0.8),
    ]
    return [
        {"images": images, "codec": codec, "student": "convnet3", "bytes": size, "external": 0}
        | entry(mean - 0.2 * (images == "random"))
        for images in ("set", "random")
        for codec, size, mean in found
    ]


def make_metrics():
    rng = np.random.default_rng(0)
    rows = [
        {"stage": "experts", "expert": e, "epoch": i, "loss": 1 / i, "accuracy": 0.8 - 0.4 / i}
        for e in range(3)
        for i in range(1, 6)
    ]
    rows += [
        {"stage": "match", "step": i, "distance": 1 / (1 + i / 50), "student_lr": 0.02 + i / 1e5}
        | {"applied": i != 7}
        for i in range(900)
    ]
    rows += [
        {"stage": "committee", "member": name, "epoch": i, "loss": 0.1, "accuracy": rng.random()}
        for name in ("convnet3", "resnet18", "vgg11")
        for i in range(5)
    ]
    rows += [{"stage": "project", "step": i, "loss": 2.0 / (i + 1)} for i in range(50)]
    rows += [
        {"stage": "project", "step": i, "kl": 0.3, "agreement": 0.9, "accuracy": 0.8}
        for i in range(0, 50, 10)
    ]
    evaluated = {"stage": "evaluate", "student": "convnet3", "labels": "votes", "seed": 0}
    return [*rows, {**evaluated, "accuracy": 0.78}, {"stage": "something new"}, {}]


def make_report(channels=1, side=8, classes=10, ipc=2):
    rng = np.random.default_rng(1)
    labels = [k for k in range(classes) for _ in range(ipc)]
    stage = {"key": "ab" * 32, "outputs": {"set.h5": "cd" * 32}}
    return ReportInput(
        title="Digits, two images per class",
        recipe={"seed": 3, "match": {"ipc": ipc, "gradient": "adjoint"}, "evaluate": {"seeds": 3}},
        manifest={
            "created": "2024-05-01T10:00:00Z",
            "seed": 3,
            "versions": {"torch": "2.6.0"},
            "device": "cpu",
            "data": {"source": "digits", "digest": "ef" * 32, "classes": classes},
            "stages": {
                "experts": {**stage, "seconds": 12.5, "peak_memory_bytes": 250_000_000},
                "match": {**stage, "seconds": 100.0, "peak_memory_bytes": 500_000_000},
            },
        },
        summary=make_summary(),
        metrics=make_metrics(),
        synthetic=rng.normal(0.5, 0.5, (len(labels), side, side, channels)),
        synthetic_labels=labels,
        soft_labels={
            name: rng.dirichlet(np.ones(classes), len(labels)) for name in ("learned", "votes")
        },
        real=rng.random((len(labels), side, side, channels)),
        real_labels=labels,
        class_names=[f"digit {k}" for k in range(classes)],
    )


def make_minimal():
    nothing = np.zeros((0, 1, 1, 1))
    return ReportInput("Empty", {}, {}, {}, [], nothing, [], {}, nothing, [], [])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.faults, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]
