"""The golden cases: command lines over small recipes, whose artefacts are digested.

Only what users type stands here, so that a case outlives any change inside the packages. `a` is
the run that a case makes or goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.golden.recipes import NETWORKS


@dataclass(frozen=True)
class Case:
    """What is typed in a folder that holds the recipes.

    Attributes:
        commands: arguments of `distill`, in their order; with `> FILE`, what is printed is kept.
        base: the case whose files are there before; only what is new or changed is digested.
        code: the exit code of the last command; all others end with 0.
        recipe: whether the recipe that artefacts hold is compared too. It is for one case alone,
            so that a new key of a recipe changes one case.
    """

    commands: tuple[str, ...]
    base: str | None = None
    code: int = 0
    recipe: bool = False


def _run(recipe: str, *keys: str, out: str = "a", options: str = "") -> str:
    settings = "".join(f" --set {key}" for key in keys)
    return f"run {recipe}.toml --out {out} --quiet{settings}{options}"


def _again(base: str, recipe: str, *keys: str) -> Case:
    """The run of another case, gone on with under other settings."""
    return Case((_run(recipe, *keys),), base)


def _match(*keys: str) -> Case:
    return _again("match", "match", *keys)


def _recover(*keys: str) -> Case:
    return Case((_run("recover", *keys, out="b", options=" --reuse a"),), "committee")


def _select(*keys: str) -> Case:
    return _again("committee", "select", *keys)


def _relabel(*keys: str) -> Case:
    return _again("committee", "relabel", *keys)


def _project(*keys: str) -> Case:
    return Case((_run("whole", *keys, options=" --stage project"),), "whole")


def _evaluate(*keys: str) -> Case:
    return _again("whole", "whole", "evaluate.whole_seeds=0", *keys)


def _encode(*codecs: str) -> Case:
    commands = (f"encode a --quiet --codec {c} --out encoded-{i}.h5" for i, c in enumerate(codecs))
    return Case(tuple(commands), "whole")


def _import(layout: str, fixture: str, *options: str) -> Case:
    line = f"import fixtures/{fixture} --from {layout} --out imported.h5 --network convnet2:width=4"
    return Case((" ".join((line, *options)),))


_NOT_WHOLE = ("evaluate.labels=votes", "evaluate.epochs=6")

CASES: dict[str, Case] = {
    # Every stage in one run.
    "whole": Case((_run("whole"), "verify a"), recipe=True),
    "whole-other-seed": Case((_run("whole", options=" --seed 1"),)),
    # Other data.
    "data-glyphs": Case((_run("match", "data.source=glyphs:5", "data.validation=0.2"),)),
    "data-classes": Case((_run("match", "data.classes=three,seven,one", "data.size=10"),)),
    # Experts.
    "experts-float16": _match("experts.storage=float16"),
    "experts-bfloat16": _match("experts.storage=bfloat16"),
    "experts-int4": _match("experts.storage=int4"),
    "experts-window": _match("experts.keep=window", "match.min_start_epoch=1"),
    "experts-sharpness": _match("experts.sharpness_rho=0.01"),
    "experts-zca": _match("data.zca=true"),
    "experts-colour": _match(
        "data.channels=3", "data.augmentation=colour_crop_cutout_flip_scale_rotate"
    ),
    # Matching.
    "match": Case((_run("match"),)),
    "match-frozen-target": _match(
        "match.gradient=frozen", "match.labels=target", "match.optimizer=sgd", "match.image_lr=30"
    ),
    "match-unrolled-fixed": _match(
        "match.gradient=unrolled", "match.labels=fixed", "match.label_init=hard"
    ),
    "match-unrolled": _match("match.gradient=unrolled"),
    "match-frozen": _match("match.gradient=frozen"),
    "match-target": _match("match.labels=target"),
    "match-factor": _match("match.factor=2", "match.ipc=1"),
    "match-sqrt-segments": _match(
        "match.snapshots=sqrt", "match.segments=3", "match.batch_size=6", "match.inner_steps=7"
    ),
    "match-offload": _match("match.snapshots=offload", "match.batch_size=6"),
    "match-cosine": _match(
        "match.optimizer=sgd",
        "match.schedule=cosine",
        "match.image_lr=10",
        "match.label_lr=1",
        "match.image_average=0.9",
    ),
    "match-adam-cosine": _match("match.schedule=cosine", "match.student_lr_lr=0"),
    "match-grow": _match(
        "experts.epochs=12",
        "experts.momentum=0.9",
        "experts.batch_size=10",
        "match.ipc=1",
        "match.grow_from=0",
        "match.grow_steps=3",
        "match.init=correct",
        "match.label_init=experts",
    ),
    "match-features": _match(
        "match.objective=features", "match.labels=fixed", "match.real_batch=5", "match.factor=2"
    ),
    "match-both": _match("match.objective=both", "match.later_weight=0.5", "match.segments=2"),
    "match-random": _match("match.init=random", "match.label_lead=2"),
    "match-noise": _match("match.init=noise", "match.span=2"),
    "match-refused": _match("match.threshold=0.7", "match.patience=50", "match.iterations=8"),
    "match-diverged": Case(
        (_run("match", "match.threshold=0.001", "match.patience=2"),), "match", code=3
    ),
    # The committee, its votes, and selection.
    "committee": Case((_run("select"),)),
    "committee-members": Case((_run("members"),)),
    "select-random": _select("select.method=random"),
    "select-herding": _select("select.method=herding"),
    "select-herding-committee": _select("select.method=herding", "select.features=committee"),
    "select-k-center": _select("select.method=k-center"),
    "select-k-center-committee": _select("select.method=k-center", "select.features=committee"),
    "select-mosaics": _select("select.factor=2", "select.ipc=1", "select.crops=3"),
    # Recovery.
    "recover": _recover(),
    "recover-pairs-real": _recover("recover.schedule=pairs", "recover.init=real"),
    "recover-fixed-noise": _recover(
        "recover.schedule=fixed", "recover.init=noise", "recover.batch_size=7"
    ),
    "recover-within": _recover("recover.batches=within", "recover.drawn=1", "recover.init=noise"),
    "recover-kept": _recover("recover.background=kept", "recover.init=real", "recover.flip=true"),
    "recover-mosaics": _recover("recover.factor=2", "recover.ipc=1", "recover.crops=2"),
    "recover-members": _recover(
        "recover.members=convnet2:width=8:norm=batch,resnet18:width=4", "recover.bn_weight=1"
    ),
    "recover-bfloat16": _recover("recover.precision=bfloat16"),
    # Refinement.
    "refine": _again("committee", "refine"),
    # Labels.
    "relabel": _relabel(),
    "relabel-bssl": _relabel("relabel.bssl=on"),
    "relabel-cutmix": _relabel("relabel.mix=cutmix", "relabel.bssl=on", "relabel.parts=2"),
    "relabel-mixup-seed": _relabel("relabel.mix=mixup", "relabel.views=seed"),
    "relabel-seed": _relabel("relabel.views=seed", "relabel.temperature=2"),
    "relabel-flip": _relabel("relabel.augmentation=flip_crop", "relabel.bssl=off"),
    "relabel-equal": _relabel("committee.vote=equal"),
    "relabel-random": _relabel("committee.vote=random"),
    "relabel-measured": _relabel("committee.vote=measured"),
    "relabel-similarity": _relabel("committee.vote=similarity", "committee.similarity_power=2"),
    "relabel-nearest": _relabel("committee.vote=similarity", "committee.similarity_power=nearest"),
    "relabel-priors": _relabel("committee.priors=[70,60,50]", "committee.vote_temperature=5"),
    "relabel-probabilities": _relabel("relabel.aggregate=probabilities"),
    "relabel-standard": _relabel("relabel.aggregate=standard"),
    "relabel-crowds": _relabel("relabel.aggregate=softmax,dawid-skene"),
    "relabel-zones": _relabel("relabel.zones=ferkd"),
    "relabel-robust": _relabel("relabel.active=robust"),
    "relabel-active-random": _relabel("relabel.active=random", "relabel.budget=0.3"),
    "relabel-unasked-hard": _relabel("relabel.active=random", "relabel.unasked=hard"),
    "relabel-by-ipc": _again("committee", "by-ipc"),
    "relabel-zca": _relabel("data.zca=true"),
    # The projector.
    "project-glyphclip": _again("committee", "glyphclip"),
    "project-experts-kl": _project(
        "projector.teacher=experts:2",
        "projector.loss=kl",
        "projector.temperature=2",
        "projector.stop_on=accuracy",
        "projector.patience=1",
    ),
    "project-random-scale": _project(
        "projector.head=random",
        "projector.trained=scale",
        "projector.storage=int4",
        "projector.coder=constriction",
        "projector.augmentation=crop",
    ),
    "project-no-adapters": _project("projector.rank=0", "projector.stop_on=agreement"),
    # Label codecs.
    "encode-entries": _encode(
        "topk:k=3", "seed+topk:k=3:tail=plain", "sampled-topk", "low-rank:rank=2", "top1"
    ),
    "encode-grids": _encode(
        "dense:dtype=int8",
        "dense:dtype=bfloat16",
        "quantised:step=0.25",
        "quantised:coder=zlib",
        "roots",
        "seed+roots:step=0.05",
        "two-scalars",
    ),
    "encode-pools": _encode(
        "pruned:ratio=0.5+dense",
        "lpld:ratio=0.5",
        "lpqld:ratio=0.5:k=3",
        "pruned:ratio=0.5:unit=batch-to-epoch+quantised",
    ),
    "encode-networks": _encode("teacher", "teacher:bits=4:residual=0.2+topk:k=2", "projector"),
    "encode-residual": _encode("projector:residual=0.2+dense"),
    "encode-target": Case(("encode a --quiet --target-bytes 900 --out encoded.h5",), "whole"),
    "encode-loss": Case(("encode a --quiet --max-loss 0.2 --out encoded.h5",), "whole"),
    "encode-stage": _evaluate(
        "encode.codec=seed+topk:k=3", "evaluate.labels=hard,votes,seed+topk:k=3"
    ),
    # Students.
    "evaluate-gift": _evaluate(*_NOT_WHOLE, "evaluate.gift=0.3"),
    "evaluate-hard-share": _evaluate(*_NOT_WHOLE, "evaluate.hard_share=0.5"),
    "evaluate-self-mix": _evaluate(*_NOT_WHOLE, "evaluate.self_mix=true"),
    "evaluate-discriminator": _evaluate(*_NOT_WHOLE, "evaluate.discriminator=1"),
    "evaluate-step": _evaluate(*_NOT_WHOLE, "evaluate.anneal=step", "evaluate.anneal_every=2"),
    "evaluate-cosine": _evaluate(*_NOT_WHOLE, "evaluate.anneal=cosine"),
    "evaluate-calibrated": _evaluate(*_NOT_WHOLE, "evaluate.calibrated=true"),
    "evaluate-average": _evaluate(
        *_NOT_WHOLE,
        "evaluate.soft_average=0.9",
        "evaluate.soft_eta=2",
        "evaluate.soft_optimizer=sgd",
    ),
    "evaluate-lr-factors": _evaluate("evaluate.labels=hard,learned", "evaluate.lr_factors=0.5,2"),
    "evaluate-scores": _evaluate(
        "evaluate.labels=hard,learned",
        "evaluate.scores=true",
        "evaluate.equal_bytes=true",
        "evaluate.whole_seeds=1",
    ),
    "evaluate-kd": _evaluate("evaluate.protocol=kd", "evaluate.labels=learned,projector"),
    "evaluate-trajectory": _evaluate("evaluate.protocol=trajectory"),
    "evaluate-hard": _evaluate("evaluate.protocol=hard", "evaluate.labels=hard"),
    "evaluate-bfloat16": _evaluate(*_NOT_WHOLE, "evaluate.precision=bfloat16"),
    "evaluate-networks": Case(
        (f"evaluate a --quiet --record --students {NETWORKS} --seeds 1 --epochs 1 --labels hard",),
        "whole",
    ),
    "evaluate-command": Case(
        (
            "evaluate a --quiet --record --students mlp:width=8 --seeds 1 --epochs 2 "
            "--whole-epochs 1 --json > printed.json",
        ),
        "whole",
    ),
    # Sweeps and pages.
    "sweep": Case(
        (
            "sweep a --quiet --codecs topk:k=3,lpld:ratio=0.5,seed+quantised,projector "
            "--seeds 1 --epochs 2 --out a/sweep",
            "report a",
        ),
        "whole",
    ),
    "sweep-ends": Case(
        (
            "sweep a --quiet --codecs roots --controls ends --seeds 2 --epochs 1 --out curve",
            "report a --sweep curve",
        ),
        "whole",
    ),
    "sweep-paper": Case(("sweep --paper --json > paper.json",)),
    "report-comparison": Case(
        (
            _run("whole", "match.gradient=frozen", out="b", options=" --reuse a"),
            "report a b --out both.html",
        ),
        "whole",
    ),
    "show": Case(
        tuple(
            f"show {path} --json > {name}.json"
            for name, path in {
                "run": "a",
                "set": "a/set.h5",
                "experts": "a/experts.h5",
                "committee": "a/committee.h5",
                "projector": "a/projector",
            }.items()
        ),
        "whole",
    ),
    # Sets and projectors for others.
    "export-set": Case(
        tuple(
            f"export set a --format {name} --out {name}"
            for name in ("safetensors", "npz", "torch", "imagefolder", "hf")
        ),
        "whole",
    ),
    "export-ddranking": Case(
        ("export set a --format ddranking --out ddranking",), "experts-colour"
    ),
    "export-import": Case(
        tuple(
            f"import {name} --from {name} --data digits --size 8 --out back-{name}.h5"
            for name in ("safetensors", "npz", "torch")
        ),
        "export-set",
    ),
    "export-projector": Case(
        (
            "export projector a --format peft --out peft",
            "export projector a --format merged --out merged",
            "export projector a --format compact --out compact",
            "export projector a --format compact --bits 4 --coder constriction --out compact-4",
        ),
        "whole",
    ),
    "export-torch": Case(("export projector a --format torch-export --out exported",), "whole"),
    "import-mtt": _import("mtt", "mtt", "--statistics cifar10"),
    "import-mtt-zca": _import("mtt", "mtt-zca"),
    "import-dc": _import("dc", "dc/res_DC_CIFAR10_ConvNet_2ipc.pt", "--statistics cifar10"),
    "import-datm": _import("datm", "datm", "--space normalised", "--statistics cifar10"),
    "import-idc": _import("idc", "idc", "--factor 2"),
    "import-rded": _import("rded", "rded"),
    "import-folder": _import("folder", "folder"),
    "import-npz": _import("npz", "npz/set.npz", "--class-names cat,dog"),
    "import-npz-soft": _import("npz", "npz-soft/set.npz", "--statistics cifar10"),
    # Packed data.
    "pack": Case(
        (
            "pack digits --size 8 --out packed --quiet",
            _run("packed", "experts.count=1"),
            "show packed --json > packed.json",
        ),
    ),
}
