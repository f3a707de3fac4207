"""Members whose weights come from a file: of any network, and programs of torch.export."""

import zipfile

import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

import distill
from distill.names import allowed_code
from distill.recipes.build import build_network
from distill.recipes.loading import load_recipe
from distill.store.committee import read_committee
from distill.teachers.inspection import has_seen
from distill.teachers.pretrained import Renormalised
from tests.distill.cases import write_recipe

RECIPE = """
[data]
source = "digits"
subset = 400

[committee]
members = ["{member}"]
epochs = 2

[select]
ipc = 1
method = "random"

[relabel]
epochs = 1
augmentation = "none"

[evaluate]
students = ["mlp"]
"""
RAW = load_digits()
PIXELS = torch.tensor(RAW.images / 16, dtype=torch.float32).unsqueeze(1)
CLASSES = torch.tensor(RAW.target)


@pytest.fixture(scope="module")
def taught():
    """A network of the package, trained elsewhere on pixels that were normalised by 0.5, 0.25."""
    network = build_network("mlp:width=32", 1, (8, 8), 10, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network((PIXELS - 0.5) / 0.25), CLASSES)
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture
def run(tmp_path, command):
    def call(member, *words):
        path = write_recipe(tmp_path, RECIPE.format(member=member), "own")
        out = tmp_path / "run"
        return command("run", path, "--out", out, "--stage", "committee", *words, "-q"), out

    return call


def weights_of(file):
    return ("--set", f"committee.weights={file}", "--set", "committee.mean=[0.5]",
            "--set", "committee.std=[0.25]")  # fmt: skip


@pytest.mark.parametrize("kind", ["safetensors", "pt", "checkpoint"])
def test_any_network_takes_its_weights_from_a_file_and_is_not_trained(taught, run, tmp_path, kind):
    state = taught.state_dict()
    file = tmp_path / f"mine.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(state, file)
    else:
        nested = {"epoch": 3, "state_dict": {f"module.{name}": v for name, v in state.items()}}
        torch.save(state if kind == "pt" else nested, file)
    done, out = run("mlp:width=32", *weights_of(file))
    assert done.code == 0, done.err
    (member,), _, _ = read_committee(out / "committee.h5")
    assert (member.epoch, member.accuracy > 0.9) == (0, True)
    for name, value in state.items():
        assert torch.equal(member.state[f"network.{name}"], value)


def test_member_sees_images_as_its_weights_did(taught):
    member = Renormalised(taught, [0.5], [0.25], 1)
    member.expect((0.3,), (0.4,))
    shown = member((PIXELS[:5] - 0.3) / 0.4)
    torch.testing.assert_close(shown, taught((PIXELS[:5] - 0.5) / 0.25), atol=1e-4, rtol=1e-4)


def test_other_weights_and_half_a_normalisation_are_refused(taught, tmp_path, refused):
    torch.save(taught.state_dict(), tmp_path / "mine.pt")
    path = write_recipe(tmp_path, RECIPE.format(member="mlp:width=16"), "own")
    words = ("run", path, "--out", tmp_path / "run", "--stage", "committee", "-q")
    line = refused(1, *words, "--set", f"committee.weights={tmp_path / 'mine.pt'}")
    assert "holds other weights (Error(s) in loading" in line
    line = refused(1, *words, "--set", f"committee.weights={tmp_path / 'no.pt'}")
    assert "are missing; put the file there" in line
    line = refused(2, *words, "--set", "committee.mean=[0.5]")
    assert "mean and std go together" in line


@pytest.fixture(scope="module")
def program(taught, tmp_path_factory):
    """The same teacher as a program that takes pixels."""

    class Pixels(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = taught

        def forward(self, pixels):
            return self.network((pixels - 0.5) / 0.25)

    shapes = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(Pixels(), (PIXELS[:2],), dynamic_shapes=shapes)
    path = tmp_path_factory.mktemp("program") / "teacher.pt2"
    torch.export.save(exported, path)
    return path


def test_a_program_is_a_teacher_only_where_the_command_allows_its_file(program, run, tmp_path):
    done, out = run(f"torch-export:{program}")
    assert done.code == 2
    assert f"add --allow-code {program}" in done.err
    assert not out.exists()
    done, out = run(f"torch-export:{program}", "--allow-code", str(program))
    assert done.code == 0, done.err
    (member,), _, _ = read_committee(out / "committee.h5")
    assert (member.epoch, member.accuracy > 0.9) == (0, True)
    again = write_recipe(tmp_path, RECIPE.format(member=f"torch-export:{program}"), "own")
    with allowed_code([str(program)]):
        assert load_recipe(str(again)).committee.members == [f"torch-export:{program}"]
    # A program comes with its weights, so it can be no student.
    done, _ = run("mlp", "--set", f"evaluate.students=torch-export:{program}")
    assert "is a teacher with weights of its own" in done.err


def test_a_program_that_takes_one_batch_alone_is_refused(taught, run, tmp_path, program):
    torch.export.save(torch.export.export(taught, (PIXELS[:2],)), tmp_path / "fixed.pt2")
    file = tmp_path / "fixed.pt2"
    done, _ = run(f"torch-export:{file}", "--allow-code", str(file))
    assert done.code == 2
    assert "with a dynamic batch dimension" in done.err
    done, _ = run(f"torch-export:{tmp_path / 'no.pt2'}", "--allow-code", str(tmp_path / "no.pt2"))
    assert "is not there; name a file of torch.export.save" in done.err


def test_another_program_votes_for_no_committee(program, run, command, tmp_path):
    file = tmp_path / "teacher.pt2"
    file.write_bytes(program.read_bytes())
    done, out = run(f"torch-export:{file}", "--allow-code", str(file))
    assert done.code == 0, done.err

    words = ("run", tmp_path / "own.toml", "--out", out, "--allow-code", file, "-q", "--stage")
    assert command(*words, "select").code == 0
    file.write_bytes(program.read_bytes() + b"x")
    done = command(*words, "relabel")
    assert done.code == 1
    assert f"the file of member torch-export:{file} is another than it was" in done.err
    file.write_bytes(program.read_bytes())
    assert command(*words, "relabel").code == 0
    # Nor does it label the views of a set that its weights were encoded into.
    small, few = tmp_path / "small.h5", ("--students", "mlp", "--seeds", "1", "--epochs", "1", "-q")
    spec, allowed = "teacher:bits=4", ("--allow-code", file)
    assert command("encode", out, "--codec", spec, "--out", small, "-q", *allowed).code == 0
    asked = ("evaluate", small, "--labels", spec, *few, *allowed)
    assert command(*asked).code == 0
    file.write_bytes(program.read_bytes() + b"x")
    done = command(*asked)
    assert done.code == 1
    assert f"do not fit (the file of torch-export:{file} is another than it was)" in done.err


def test_a_damaged_program_is_one_line_that_says_why(program, run, tmp_path):
    file = tmp_path / "damaged.pt2"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            raw = whole.read(name)
            archive.writestr(name, b"{" if name.endswith("model.json") else raw)
    done, _ = run(f"torch-export:{file}", "--allow-code", str(file))
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert "cannot be loaded (JSONDecodeError" in done.err
    file.write_bytes(program.read_bytes()[:-100])
    done, _ = run(f"torch-export:{file}", "--allow-code", str(file))
    assert done.err.count("\n") == 1
    assert "warnings above" not in done.err


def test_a_loaded_program_teaches_in_python(program):
    teacher = torch.export.load(program).module()
    recipe = {
        "data": {},
        "select": {"ipc": 1, "method": "random"},
        "relabel": {"epochs": 1, "augmentation": "none", "temperature": 1.0},
    }
    made = distill.distill((PIXELS, CLASSES), recipe, teachers=teacher, progress=lambda event: None)
    wanted = teacher(made.set.preprocess.inverse(made.images)).softmax(dim=1)
    assert torch.allclose(made.labels, wanted, atol=0.02)


MATCHED = RECIPE.replace(
    '[select]\nipc = 1\nmethod = "random"',
    "[experts]\ncount = 1\nepochs = 2\n[match]\nipc = 1\niterations = 1\nmax_start_epoch = 0",
)


def test_a_teacher_near_chance_is_refused_before_the_first_stage(tmp_path, refused):
    state = build_network("mlp:width=32", 1, (8, 8), 10, 3).state_dict()
    save_file(state, tmp_path / "fresh.safetensors")
    path = write_recipe(tmp_path, MATCHED.format(member="mlp:width=32"), "own")
    words = ("run", path, "--out", tmp_path / "run", "-q")
    line = refused(1, *words, "--set", f"committee.weights={tmp_path / 'fresh.safetensors'}")
    assert "near the chance of 0.100; its weights may be of other classes" in line
    assert not (tmp_path / "run" / "experts.h5").exists()


def test_a_teacher_that_saw_the_held_out_images_is_named_before_the_first_stage(tmp_path, command):
    """It knows the validation images by heart, and guesses at all others."""
    from distill.recipes.build import build_data

    path = write_recipe(tmp_path, RECIPE.format(member="mlp"), "own")
    held = build_data(load_recipe(str(path)).data).validation
    network = build_network("mlp:width=512", 1, (8, 8), 10, 0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    noise = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        optimizer.zero_grad()
        shown = torch.cat([held.images, PIXELS[:300].flip(3) * noise[:300]])
        wanted = torch.cat([held.labels, (CLASSES[:300] + 1) % 10])
        nn.functional.cross_entropy(network((shown - 0.5) / 0.25), wanted).backward()
        optimizer.step()
    save_file(network.state_dict(), tmp_path / "seen.safetensors")
    path = write_recipe(tmp_path, RECIPE.format(member="mlp:width=512"), "own")
    words = ("run", path, "--out", tmp_path / "run", "--stage", "committee")
    done = command(*words, *weights_of(tmp_path / "seen.safetensors"))
    assert done.code == 0, done.err
    assert "so it was probably trained on the held-out ones; the vote would trust it" in done.err


@pytest.mark.parametrize(
    ("held_out", "tested", "counts", "seen"),
    [
        (0.79, 0.54, (500, 1000), True),
        (0.79, 0.76, (500, 1000), False),
        (1.0, 0.8, (20, 40), False),
        (0.5, 0.9, (500, 1000), False),
        (0.93, 0.89, (50000, 10000), False),
    ],
)
def test_only_a_gap_beyond_chance_is_a_sign(held_out, tested, counts, seen):
    assert has_seen(held_out, tested, *counts) is seen
