"""Make every file of benchmarks/results again, by the commands that the files themselves name.

    python benchmarks/run_all.py --list                 # what there is, and what it takes
    python benchmarks/run_all.py                        # make what the code has changed since
    python benchmarks/run_all.py --only digits --dry-run
    python benchmarks/run_all.py --since v0.2           # files of commits from there on are kept

A file is kept if its commit had the packages as they are now. An interrupted call goes on where it
stopped: runs are in `runs/`, and `runs/run_all.json` holds the commit they were begun at, what is
unfinished and the seconds that it took so far. Each finished file gets `made_in_seconds`.

ENTRIES says only what a result file cannot: the commands of files that are not there yet, what has
to be run before, and in which order. The file of a run or a sweep is written by `record.py` from
the folder after `--out`, and its plot or picture too; other commands write their own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from code_state import RESULTS, ROOT, commit, is_after, same_code
from markdown_table import table
from measured import machine_of, seconds_of

STATE = Path("runs") / "run_all.json"


@dataclass(frozen=True)
class Entry:
    """How a result file is made.

    Attributes:
        name: of the file, without `.json`.
        commands: in place of those that the file names.
        before: commands that make what those read; finished runs are not run again.
        after: results whose runs those read.
    """

    name: str
    commands: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


# Images of CIFAR-10 that were matched with hard labels, one and ten per class.
_MATCHED = "runs/ablations/cifar10-ipc{}-matching/exact-gradient,-hard-labels"
_NETWORKS = (
    "resnet18:width=8,resnet18:width=8:norm=group,convnet3:width=32,convnet3:width=32:norm=batch"
)

# Ten matched images per class with networks that were trained for 20 and for 4 epochs.
TEACHERS = tuple(
    f"distill run fashion-mnist-ipc10-network --out runs/{name}-epochs "
    f"--reuse runs/fashion-mnist-ipc10-network --set committee.epochs={epochs} --stage experts "
    "--stage committee --stage match --stage relabel --stage encode"
    for name, epochs in (("twenty", 20), ("four", 4))
)

# Networks of several widths and epochs, and ten real images per class beside each.
_SELECTED = (
    "distill run fashion-mnist-30kb-network --out runs/width-{0}-{1}-epochs "
    "--set committee.members=convnet3:width={0} --set committee.epochs={1} "
    "--set committee.weight_bits=4 --set committee.precision=float32 "
    "--set evaluate.precision=float32 --set evaluate.equal_bytes=false --set select.ipc=10 "
    "--stage committee --stage select --stage relabel --stage encode"
)
WEAK_TEACHERS = tuple(
    _SELECTED.format(width, epochs) for width, epochs in ((4, 2), (8, 2), (8, 6), (32, 20))
)

ENTRIES = (
    Entry("digits"),
    Entry("digits-2kb"),
    Entry("plan"),
    Entry("workers", after=("digits",)),
    Entry("pipeline-digits"),
    Entry("pipeline-fashion-mnist-ipc1"),
    Entry(
        "refinement-distilled",
        commands=(
            "python benchmarks/refinement.py refinement-distilled runs/distilled 180,250,400",
        ),
        before=(
            "distill run digits-exact --stage experts --stage match --set data.validation=0.4 "
            "--out runs/distilled",
        ),
    ),
    Entry(
        "refinement-real",
        before=(
            "distill select digits-herding --set data.validation=0.4 --set select.method=random "
            "--set select.ipc=42 --set select.features=pixels --out runs/real",
        ),
    ),
    Entry(
        "rank-digits",
        commands=(
            "python benchmarks/objective_rank.py rank-digits runs/rank --every 20 "
            "--students convnet3:width=32,resnet18:width=8",
        ),
        before=("distill run digits-exact --stage experts --stage match --out runs/rank",),
    ),
    Entry("gradient"),
    Entry("gradient-width-128"),
    Entry("gradient-cuda"),
    Entry("training-time"),
    Entry("training-accuracy"),
    Entry("experts-buffer"),
    Entry("fashion-mnist-ipc10"),
    Entry("fashion-mnist-ipc50", after=("fashion-mnist-ipc10",)),
    Entry("fashion-mnist-quick"),
    Entry("fashion-mnist-ipc1-matching"),
    Entry("digits-parts"),
    # Reads the pictures in cifar10-jpeg/train/CLASS and cifar10-jpeg/test/CLASS.
    Entry("cifar10-ipc1-matching"),
    Entry("cifar10-ipc10-matching"),
    *(
        Entry(
            f"networks-cifar10-{on}",
            commands=(
                f"python benchmarks/student_ways.py networks-cifar10-{on} {_MATCHED.format(1)} "
                f"--labels hard --on {on} --students {_NETWORKS} --seeds 4 --way '' "
                "--way lr=0.003 --way epochs=1000",
            ),
            after=("cifar10-ipc1-matching",),
        )
        for on in ("set", "random")
    ),
    *(
        Entry(f"{name}-{on}", after=("cifar10-ipc10-matching",))
        for name in ("networks-cifar10-ipc10", "resnet-ways-cifar10")
        for on in ("set", "random")
    ),
    Entry("fashion-mnist-committee"),
    Entry("projector-fashion-mnist"),
    Entry("projector-glyphs-1000"),
    Entry(
        "fashion-mnist-labels",
        before=("distill run fashion-mnist-labels --out runs/fashion-mnist-labels",),
    ),
    Entry("glyphs-labels", before=("distill run glyphs-ipc10 --out runs/glyphs-ipc10",)),
    Entry("fashion-mnist-ipc1"),
    Entry("fashion-mnist-ipc10-network"),
    Entry("fashion-mnist-ipc10-network-bytes", after=("fashion-mnist-ipc10-network",)),
    Entry("fashion-mnist-ipc10-network-bytes-resnet", after=("fashion-mnist-ipc10-network",)),
    Entry("fashion-mnist-16kb-network", after=("fashion-mnist-ipc10-network",)),
    Entry("fashion-mnist-21kb-network", after=("fashion-mnist-16kb-network",)),
    Entry("fashion-mnist-21kb-network-resnet", after=("fashion-mnist-16kb-network",)),
    Entry("fashion-mnist-ipc10-network-projector", after=("fashion-mnist-ipc10-network",)),
    *(
        Entry(name, before=TEACHERS, after=("fashion-mnist-ipc10-network",))
        for name in (
            "votes-by-teachers-set",
            "votes-by-teachers-random",
            "votes-by-ways",
            "hard-labels-set",
            "hard-labels-random",
        )
    ),
    *(
        Entry(name, before=WEAK_TEACHERS)
        for name in ("votes-by-weak-teachers", "hard-labels-random-5")
    ),
    Entry("fashion-mnist-ipc50-network"),
    Entry(
        "fashion-mnist-ipc50-network-projector",
        after=("fashion-mnist-ipc50-network", "fashion-mnist-ipc10-network-projector"),
    ),
    Entry("fashion-mnist-ipc50-network-resnet", after=("fashion-mnist-ipc50-network",)),
    Entry("fashion-mnist-30kb"),
    Entry("fashion-mnist-30kb-resnet", after=("fashion-mnist-30kb",)),
    Entry("coded-labels", after=("fashion-mnist-30kb",)),
    Entry("fashion-mnist-30kb-network"),
    Entry("network-ways", after=("fashion-mnist-30kb-network",)),
    Entry("fashion-mnist-30kb-network-resnet", after=("fashion-mnist-30kb-network",)),
    Entry(
        "network-ways-313kb",
        before=(
            "distill run fashion-mnist-30kb-network --out runs/tones-313kb "
            "--set committee.members=convnet3:width=32 --set committee.weight_bits=4 "
            "--set committee.precision=float32 --set evaluate.precision=float32 "
            "--set evaluate.equal_bytes=false --set select.budget_bytes=313700 "
            "--set select.ipc=2000 --stage committee --stage select --stage relabel --stage encode",
        ),
    ),
)


def result_of(entry: Entry) -> dict[str, Any]:
    """The file of an entry, empty if it is not there."""
    path = RESULTS / f"{entry.name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def commands_of(entry: Entry) -> tuple[str, ...]:
    """The commands that make a result, of the entry or else of its file."""
    if entry.commands:
        return entry.commands
    result = result_of(entry)
    parts = result.get("made", {"": result}).values()
    return tuple(dict.fromkeys(part["command"] for part in parts if "command" in part))


def steps_of(entry: Entry) -> Iterator[list[str]]:
    """All that is run for a result, in order: what it reads, its commands, what records it."""
    readable = {other.name: other for other in ENTRIES}
    yield from (shlex.split(command) for command in entry.before)
    for name in entry.after:
        yield from (shlex.split(command) for command in commands_of(readable[name]))
    for command in commands_of(entry):
        words = shlex.split(command)
        yield words
        if words[0] == "distill":
            folder = words[words.index("--out") + 1]
            record = ["python", "benchmarks/record.py", folder, entry.name, "--command", command]
            pictured = (RESULTS / f"{entry.name}.png").is_file()
            yield [*record, "--picture"] if pictured else record


def lacks_gpu(entry: Entry) -> bool:
    """Whether one of its commands asks for CUDA, and there is none."""
    if not any("--device cuda" in shlex.join(words) for words in steps_of(entry)):
        return False
    import torch  # takes seconds, which a list without such entries need not wait for

    return not torch.cuda.is_available()


def is_kept(of: str, since: str | None) -> bool:
    """Whether what was made at a commit counts as made now."""
    after = since is not None and not of.endswith("+") and is_after(of, since)
    return after or same_code(of)


def state_of(entry: Entry, since: str | None, unfinished: dict[str, float]) -> str:
    """`made`, `begun`, `needs a GPU` or `to make`."""
    if entry.name in unfinished:
        return "begun"
    result = result_of(entry)
    commits = {part.get("commit", "+") for part in result.get("made", {"": result}).values()}
    if result and all(is_kept(of, since) for of in commits):
        return "made"
    return "needs a GPU" if lacks_gpu(entry) else "to make"


def listing(states: dict[Entry, str]) -> list[str]:
    """The table of entries with what they took, and the sum of what is left, as lines."""
    rows, left, unknown = [], 0.0, 0
    for entry, state in states.items():
        seconds = seconds_of(result_of(entry))
        if state != "made":
            left += seconds or 0.0
            unknown += seconds is None
        by = {words[1] for words in steps_of(entry) if words[0] == "python"}
        words = "–" if seconds is None else f"{seconds / 60:,.1f}"
        rows.append([entry.name, state, words, machine_of(result_of(entry)), ", ".join(sorted(by))])
    heads = ["result", "state", "minutes", "measured on", "recorded by"]
    count = sum(state != "made" for state in states.values())
    hours = f"{left / 3600:.1f} hours as measured"
    total = f"{count} to make: {hours}, and {unknown} whose file does not say."
    return [*table(heads, rows, words=2), "", total]


def saved_state(since: str | None) -> dict[str, float]:
    """Seconds so far of what an interrupted call left unfinished.

    Raises:
        SystemExit: if `runs/` is not of this code: what stands there would be recorded as of it.
    """
    path = ROOT / STATE
    if not path.is_file():
        if path.parent.is_dir() and any(path.parent.iterdir()):
            sys.exit(f"{path.parent} holds runs that this script did not begin; move it away")
        return {}
    state = json.loads(path.read_text(encoding="utf-8"))
    if not is_kept(state["commit"], since):
        sys.exit(
            f"{path.parent} was begun at commit {state['commit'][:9]}, and the code has changed "
            "since; move it away, or say --since with that commit to go on with it"
        )
    return {name: float(seconds) for name, seconds in state["seconds"].items()}


def make(entry: Entry, unfinished: dict[str, float]) -> bool:
    """Run and record an entry; returns whether that succeeded."""
    programs = {"python": [sys.executable], "distill": [sys.executable, "-m", "distill"]}
    before, start = unfinished.get(entry.name, 0.0), time.monotonic()
    for words in steps_of(entry):
        print("$", shlex.join(words), flush=True)
        done = subprocess.run([*programs[words[0]], *words[1:]], cwd=ROOT, check=False)
        unfinished[entry.name] = before + time.monotonic() - start
        save_state(unfinished)
        if done.returncode:
            print(f"{entry.name}: exit status {done.returncode}; the others go on", flush=True)
            return False
    result = result_of(entry) | {"made_in_seconds": round(unfinished.pop(entry.name), 1)}
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (RESULTS / f"{entry.name}.json").write_text(text + "\n", encoding="utf-8")
    save_state(unfinished)
    return True


def save_state(unfinished: dict[str, float]) -> None:
    """Write down what is unfinished; the commit is that at which `runs/` was begun."""
    path = ROOT / STATE
    begun = json.loads(path.read_text(encoding="utf-8"))["commit"] if path.is_file() else commit()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"commit": begun, "seconds": unfinished}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is not made, or say what that is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="show the table and make nothing")
    parser.add_argument("--dry-run", action="store_true", help="show the commands only")
    parser.add_argument("--since", metavar="COMMIT", help="keep files made at or after this commit")
    names = [entry.name for entry in ENTRIES]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="make these")
    options = parser.parse_args(arguments)
    shown = options.list or options.dry_run
    if not shown and commit().endswith("+"):
        sys.exit(
            "the packages differ from their commit, which results could not name; commit first"
        )
    unfinished = {} if shown and not (ROOT / STATE).is_file() else saved_state(options.since)
    chosen = [entry for entry in ENTRIES if options.only is None or entry.name in options.only]
    states = {entry: state_of(entry, options.since, unfinished) for entry in chosen}
    if options.list:
        print("\n".join(listing(states)))
        return
    failed = []
    for entry in (entry for entry, state in states.items() if state in ("begun", "to make")):
        if options.dry_run:
            print("\n".join(shlex.join(words) for words in steps_of(entry)))
        elif not make(entry, unfinished):
            failed.append(entry.name)
    if failed:
        sys.exit(f"not made: {', '.join(failed)}; the same command goes on")


if __name__ == "__main__":
    main()
