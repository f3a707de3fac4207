"""Run the variants of an ablation and write benchmarks/results/NAME.json.

    python benchmarks/ablation.py benchmarks/ablations/fashion-mnist-ipc1-matching.toml

The TOML file names a recipe, overrides that all variants share, and the overrides of each. The
shared stages (experts, committee) are run once and copied; each variant is a run folder of its
own below --work, so an interrupted ablation resumes where it stopped. A variant whose file entry
is there, with the same overrides and of the same code, is not run again; each names its commit.

With `seeds`, such as [0, 1, 2], all is made anew for each of these seeds of the recipe, and the
table has the differences from the first variant, paired by seed, with their confidence intervals.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

from code_state import RESULTS, commit, same_code
from record import provenance, write_result

from distill.recipes.loading import load_recipe
from distill.stages.run_recipe import run_recipe

SHARED_FILES = ("manifest.json", "experts.h5", "committee.h5")


def run_variant(spec: dict[str, Any], name: str, work: Path) -> dict[str, Any]:
    """Run one variant; returns its overrides and its summary, or one for each of the seeds."""
    overrides = spec["variants"][name]
    seeds = spec.get("seeds")
    if seeds is None:
        found = {"summary": run_once(spec, name, work, [])}
    else:
        found = {
            "summaries": {
                str(seed): run_once(spec, name, work / str(seed), [f"seed={seed}"])
                for seed in seeds
            }
        }
    return {"overrides": overrides, "commit": commit(), **found}


def run_once(spec: dict[str, Any], name: str, work: Path, seed: list[str]) -> dict[str, Any]:
    """Run one variant in a folder of its own, with what all share; returns its summary."""
    shared = load_recipe(spec["recipe"], [*spec["shared"], *seed])
    run_recipe(shared, work / "shared", spec["stages"], quiet=True)
    folder = work / name.replace(" ", "-").replace("/", "-")
    if not (folder / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for file in SHARED_FILES:
            if (work / "shared" / file).exists():
                shutil.copy2(work / "shared" / file, folder / file)
    recipe = load_recipe(spec["recipe"], [*spec["shared"], *spec["variants"][name], *seed])
    run_recipe(recipe, folder, quiet=True)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    # Which classes are taken for which, of every student, is more than all the rest.
    return {key: value for key, value in summary.items() if key != "confusion"}


def measured(result: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """The variants of a result file that need not be run again."""
    if any(result.get(key) != spec.get(key) for key in ("shared", "seeds")):
        return {}
    variants = {
        # Older files name one commit for all.
        name: {"commit": result["commit"]} | variant
        for name, variant in result["variants"].items()
    }
    return {
        name: variant
        for name, variant in variants.items()
        if spec["variants"].get(name) == variant["overrides"] and same_code(variant["commit"])
    }


def main() -> None:
    """Run every variant, writing the result file after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--only", nargs="+", help="run these variants only")
    options = parser.parse_args()
    spec = tomllib.loads(options.spec.read_text())
    out, work = RESULTS / f"{options.spec.stem}.json", options.work / options.spec.stem
    variants = measured(json.loads(out.read_text()), spec) if out.exists() else {}
    shared = load_recipe(spec["recipe"], spec["shared"])
    seeds = {"seeds": spec["seeds"]} if "seeds" in spec else {"seed": shared.seed}
    for name in options.only or spec["variants"]:
        if name in variants:
            continue
        print(f"{datetime.datetime.now():%H:%M} {name}", file=sys.stderr, flush=True)
        variants[name] = run_variant(spec, name, work)
        result = {
            **provenance(f"python benchmarks/ablation.py {options.spec}"),
            **seeds,
            "title": spec["title"],
            "recipe": shared.model_dump(mode="json"),
            "shared": spec["shared"],
            "variants": variants,
        }
        write_result(out, result)


if __name__ == "__main__":
    main()
