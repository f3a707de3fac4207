"""Members of a committee that start from torchvision's weights, in files of its own format."""

import h5py
import pytest
import torch
import torchvision.models

from distill.recipes.loading import load_recipe
from distill.sets.set_file import read_set
from distill.store.committee import read_committee
from distill.teachers import pretrained
from synth.networks import TorchvisionNetwork
from tests.distill.cases import TINY, outputs_of, write_recipe

SPEC = "torchvision:resnet18"
MEMBER = TINY.replace(
    'members = ["convnet2:width=8:norm=batch", "vgg11:width=4:norm=batch", "resnet18:width=4"]',
    f'members = ["{SPEC}"]',
)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """Torch's own folder of weights, empty."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def published(folder, classes=1000, model="resnet18"):
    """A file as torchvision would publish it, with weights that nobody trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.get_model(model, weights=None, num_classes=classes).state_dict()
    torch.save(state, folder / f"{model}.pth")
    return folder / f"{model}.pth", state


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("member"), MEMBER, "member")


@pytest.fixture(scope="module")
def tuned(member, tmp_path_factory, one_thread):
    """A run whose member had its head replaced and was trained on."""
    from distill.__main__ import run

    out = tmp_path_factory.mktemp("tuned")
    path, _ = published(out)
    words = ["--stage", "committee", "--set", f"committee.weights={path}", "--quiet"]
    words += ["--set", "committee.lr=0.001"]
    assert run(["run", str(member), "--out", str(out / "run"), *words]) == 0
    return out / "run", path


def model_state(run):
    """The state of the member's model under torchvision's names."""
    (found,), _, _ = read_committee(run / "committee.h5")
    return found, {
        name.removeprefix("model."): value
        for name, value in found.state.items()
        if name.startswith("model.")
    }


def save(state, path):
    torch.save(state, path)
    return f"committee.weights={path}"


def test_member_of_other_classes_is_trained_from_the_file_with_a_new_head(tuned):
    run, path = tuned
    found, state = model_state(run)
    assert (found.spec, found.epoch) == (SPEC, 10)
    assert state["fc.weight"].shape == (10, 512)
    before = torch.load(path, weights_only=True)["conv1.weight"]
    # Ten epochs of small steps move weights by less than their own size.
    assert 0 < float((state["conv1.weight"] - before).norm()) < float(before.norm())
    # Pixels that the data normalise are shown as the published weights expect them.
    assert not torch.equal(found.state["scale"], torch.ones(3, 1, 1))


def test_member_of_the_same_classes_is_measured_and_not_trained(tuned, member, command, tmp_path):
    found, state = model_state(tuned[0])
    change = save(state, tmp_path / "own.pth")
    out = tmp_path / "run"
    outcome = command("run", member, "--out", out, "--stage", "committee", "--set", change)
    assert outcome.code == 0, outcome.err
    again, same = model_state(out)
    assert all(torch.equal(same[name], value) for name, value in state.items())
    assert (again.accuracy, again.epoch) == (found.accuracy, 0)
    # Other bytes in the same file are another input: the stage runs again.
    before = outputs_of(out)["committee"]
    state["fc.bias"] = state["fc.bias"] + 0.01
    save(state, tmp_path / "own.pth")
    outcome = command("run", member, "--out", out, "--stage", "committee", "--set", change)
    assert outcome.code == 0, outcome.err
    assert outputs_of(out)["committee"] != before


def test_member_of_the_same_classes_in_another_order_is_refused(tuned, member, refused, tmp_path):
    _, state = model_state(tuned[0])
    turned = {
        **state,
        **{f"fc.{kind}": state[f"fc.{kind}"].roll(1, 0) for kind in ("weight", "bias")},
    }
    change = save(turned, tmp_path / "turned.pth")
    words = ("--out", tmp_path / "run", "--stage", "committee", "--quiet", "--set", change)
    line = refused(1, "run", member, *words)
    assert (
        "near the chance of 0.100; its weights may be of other classes, or of the same in" in line
    )


def test_such_a_member_votes(tuned, finished, command, tmp_path):
    from tests.distill.cases import copy_run

    out, recipe = copy_run(finished, tmp_path / "run"), write_recipe(tmp_path, MEMBER)
    _, state = model_state(tuned[0])
    before = read_set(out / "set.h5").votes.logits
    words = ("--stage", "committee", "--stage", "relabel", "--quiet")
    change = save(state, tmp_path / "own.pth")
    outcome = command("run", recipe, "--out", out, *words, "--set", change)
    assert outcome.code == 0, outcome.err
    assert not torch.equal(read_set(out / "set.h5").votes.logits, before)


def test_missing_weights_are_refused_and_never_fetched(member, refused, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_: pytest.fail("downloaded"))
    line = refused(1, "run", member, "--out", tmp_path / "out", "--stage", "committee")
    assert f"committee member {SPEC}: its weights {hub / 'resnet18-'}" in line
    assert "are missing; put the file there, name one as committee.weights, or add --downl" in line


def test_weights_are_fetched_where_that_is_asked_for(member, hub, command, tmp_path, monkeypatch):
    asked = []

    def fetch(url, path, digest, progress):
        asked.append((url, digest, progress))
        published(tmp_path)[0].rename(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    words = ("--stage", "committee", "--set", "committee.epochs=1", "--set", "committee.lr=1e-9")
    for _ in range(2):
        outcome = command("run", member, "--out", tmp_path / "out", *words, "--download")
        # Weights that nobody trained are near chance, which says that they were used.
        assert "near the chance" in outcome.err
    ((url, digest, progress),) = asked
    assert (url.rpartition("/")[2], digest, progress) == (f"resnet18-{digest}.pth", digest, False)
    assert [path.name for path in hub.iterdir()] == [f"resnet18-{digest}.pth"]


def test_weights_that_cannot_be_fetched_are_one_line(member, refused, tmp_path, monkeypatch):
    def fail(*arguments, **words):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    line = refused(1, "run", member, "--out", tmp_path / "out", "--download")
    assert "its weights cannot be fetched (no network); put them at" in line


def pickled(path):
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")


def text(path):
    path.write_text("weights\n")


def other_model(path):
    published(path.parent, model="shufflenet_v2_x0_5")[0].rename(path)


def a_list(path):
    torch.save([torch.zeros(3)], path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (pickled, "cannot be read as plain arrays"),
        (text, "cannot be read as plain arrays"),
        (other_model, "holds other weights ("),
        (a_list, "holds other weights (a list came, a state dict is needed)"),
    ],
)
def test_files_that_are_no_weights_of_the_model_are_refused(make, words, member, refused, tmp_path):
    make(tmp_path / "bad.pth")
    change = ("--set", f"committee.weights={tmp_path / 'bad.pth'}")
    words_given = ("--out", tmp_path / "out", "--stage", "committee", "--quiet", *change)
    assert words in refused(1, "run", member, *words_given)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("committee.members=torchvision:resnet19", "there is no model resnet19; choose one of"),
        ("committee.members=torchvision:depth=3", "unknown option depth"),
        ("committee.members=resnet18,mlp", "weights would be read for all 2 members; write them"),
        ("committee.members=mine.pt", "mine.pt, a file of weights, where networks are needed"),
    ],
)
def test_wrong_members_are_refused(change, words, member, refused, tmp_path):
    more = ("--set", "committee.weights=x.pth") if change.endswith("=resnet18,mlp") else ()
    out = ("--out", tmp_path / "out", "--set", change)
    assert words in refused(2, "run", member, *out, *more)


def test_unknown_model_is_refused_before_anything_is_fetched(member, refused, tmp_path):
    change = ("--set", "committee.members=torchvision:resnet19")
    line = refused(2, "run", member, "--out", tmp_path / "out", "--download", *change)
    assert "there is no model resnet19" in line


def test_each_member_may_name_its_own_file():
    keys = f'committee.recipes={{"{SPEC}" = {{weights = "a.pth", epochs = 3}}}}'
    table = load_recipe("digits", [f"committee.members={SPEC},convnet3:norm=batch", keys]).committee
    assert (table.training(SPEC).weights, table.weights) == ("a.pth", None)
    assert pretrained.weights_path(SPEC, "a.pth").name == "a.pth"


@pytest.mark.parametrize("model", ["densenet121", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_published_names_of_every_kind_are_taken(model, tmp_path):
    _, state = published(tmp_path, model=model)
    if model == "densenet121":
        # The names of its published file, which torchvision maps when it loads them.
        import re

        old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
        state = {old.sub(r"\1.\2.", name): value for name, value in state.items()}
        assert any(".norm.1." in name for name in state)
    network = TorchvisionNetwork(3, (32, 32), 7, model)
    head = network.state_dict()[f"model.{network.head_name}.bias"].clone()
    assert network.load_weights(state) is False
    assert torch.equal(network.state_dict()[f"model.{network.head_name}.bias"], head)
    whole = TorchvisionNetwork(3, (32, 32), 1000, model)
    assert whole.load_weights(state) is True
    with pytest.raises(ValueError, match="missing, unknown or of another shape"):
        network.load_weights(dict(list(state.items())[3:]))


def test_input_is_normalised_as_the_weights_expect(generator):
    network = TorchvisionNetwork(1, (8, 8), 3)
    pixels = torch.rand(2, 1, 8, 8, generator=generator)
    network.expect((0.4,), (0.2,))
    seen = []
    network.model.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.eval()((pixels - 0.4) / 0.2)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(seen[0], (pixels.expand(-1, 3, -1, -1) - mean) / std)
    with pytest.raises(ValueError, match="have 2 channels"):
        TorchvisionNetwork(2, (8, 8), 3)


def test_committee_file_holds_what_stands_before_the_model(tuned):
    with h5py.File(tuned[0] / "committee.h5") as file:
        names = set(file["members/0000"])
    assert {"scale", "shift"} <= names
