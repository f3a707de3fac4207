"""HeLlO's ablation redone: what each part of a projector is worth, beside stored labels.

    python benchmarks/projector_ablation.py --data digits --size 16 --ipc 1,10 --seeds 3

Writes benchmarks/results/projector-DATA.json. Every number that is finished goes to
WORK/progress.jsonl first; the same command resumes from there. A row is one projector:

    probe     frozen tower, random head, taught by the committee
    weak      the same, taught by early checkpoints of the committee
    lora      adapters on the tower as well
    text      the head starts from the class names
    image     the students' images are refined in the tower's space as well

and, where `--variants` asks for it, `full teacher` is `text` taught by the committee again.
`stored` is the committee's own label of every view, in half precision: the same students, on the
same views of the same images in the same order. `hard` are hard labels. Images are RDED
mosaics (`--images mosaics`) or random real ones. Choices are made on the validation split; the
test split judges the students, once, and the projector.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from code_state import RESULTS
from projector_parts import HARD, STORED, VARIANTS, Ablation
from record import provenance, this_call, write_result

from distill.run.folder import versions


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything that is not known yet; returns the results."""
    ablation = Ablation(options)
    progress, rows = ablation.progress, [HARD, STORED, *options.variants]
    teachers = {
        name: progress.get(f"teacher {name}", lambda name=name: ablation.teacher_accuracy(name))
        for name in ("committee", "weak")
    }
    projectors = {
        variant: progress.get(
            f"projector {variant}", lambda variant=variant: ablation.describe(variant)
        )
        for variant in options.variants
    }
    students: dict[str, Any] = {}
    for ipc in options.ipc:
        for spec in options.students:
            for row in rows:
                runs = [
                    progress.get(
                        f"student {ipc} {spec} {row} {seed}",
                        lambda row=row, spec=spec, ipc=ipc, seed=seed: ablation.student(
                            row, spec, ipc, seed
                        ),
                    )
                    for seed in range(options.seeds)
                ]
                stats = torch.tensor(runs, dtype=torch.float64)
                students.setdefault(str(ipc), {}).setdefault(spec, {})[row] = {
                    "mean": float(stats.mean()),
                    "std": float(stats.std()) if len(runs) > 1 else 0.0,
                    "runs": runs,
                }
    last = options.variants[-1]
    return {
        "teachers": {"validation accuracy": teachers},
        "projectors": projectors,
        "sizes": {last: progress.get(f"sizes {last}", lambda: ablation.sizes(last))},
        "students": students,
        "stored label bytes": {str(ipc): ablation.stored_bytes(ipc) for ipc in options.ipc},
        "data": {
            "source": ablation.data.source,
            "digest": ablation.data.digest,
            "train": len(ablation.data.train),
            "test": len(ablation.data.test),
            "classes": len(ablation.names),
        },
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""

    def names(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--data", default="digits", help="a data source, as in `distill ls data`")
    add("--size", type=int)
    add("--channels", type=int, choices=(1, 3))
    add("--subset", type=int)
    add("--tower", default="config:tiny-vit")
    add("--templates", type=lambda text: text.split("|"), default=["a photo of a {}"],
        help="prompts, separated by |")  # fmt: skip
    add("--members", type=names, default=["convnet3:width=32:norm=batch", "resnet18:width=8"])
    add("--teacher-epochs", type=int, default=12)
    add("--weak-epoch", type=int, default=3)
    add("--variants", type=names, default=list(VARIANTS)[:5])
    add("--rank", type=int, default=8)
    add("--trained", default="all", choices=("all", "low-rank", "scale"))
    add("--head-rank", type=int, default=16)
    add("--steps", type=int, default=600)
    add("--lr", type=float, default=0.002)
    add("--loss", default="mse", choices=("mse", "kl"))
    add("--ce-weight", type=float, default=0.1)
    add("--bits", type=int, default=32, choices=(32, 8, 4))
    add("--coder", default="zstandard", choices=("zstandard", "constriction"))
    add("--images", default="mosaics", choices=("mosaics", "real"))
    add("--factor", type=int, default=2, help="mosaics of FACTOR x FACTOR crops")
    add("--candidates", type=int, default=300)
    add("--refine-steps", type=int, default=10)
    add("--views", default="crop_scale_rotate")
    add("--ipc", type=lambda text: [int(part) for part in names(text)], default=[1, 10])
    add("--students", type=names, default=["convnet3:width=32"])
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=300)
    add("--batch-size", type=int, default=50)
    add("--student-lr", type=float, default=0.002)
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--work", type=Path, help="default: runs/projector-DATA")
    add("--name", help="of the result; default: projector-DATA")
    options = parser.parse_args(arguments)
    options.name = options.name or f"projector-{options.data.replace(':', '-')}"
    options.work = options.work or Path("runs") / options.name
    unknown = sorted(set(options.variants) - set(VARIANTS))
    if unknown:
        parser.error(f"no variant {unknown[0]}; choose from {', '.join(VARIANTS)}")
    return options


def main() -> None:
    """Measure, and write the result file."""
    options = parse(sys.argv[1:])
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    before = options.work / "options.json"
    if before.is_file() and json.loads(before.read_text()) != plain:
        sys.exit(f"{options.work} holds numbers of other options; name another --work")
    before.parent.mkdir(parents=True, exist_ok=True)
    before.write_text(json.dumps(plain, indent=1) + "\n")
    measured = run(options)
    result = {
        **provenance(this_call()),
        "seed": options.seed,
        "versions": versions(),
        "options": plain,
        **measured,
    }
    write_result(RESULTS / f"{options.name}.json", result)


if __name__ == "__main__":
    main()
