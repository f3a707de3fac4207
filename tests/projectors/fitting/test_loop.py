import pytest
import torch

import projectors
from projectors.model.tower import digest_of
from tests.projectors.cases import DIGITS, GRAY


@pytest.fixture
def fresh(tower):
    def build(rank=8, seed=0, trained="all"):
        return projectors.build_projector(
            tower,
            DIGITS,
            GRAY,
            adapter=projectors.AdapterSettings(rank=rank, alpha=2 * rank, seed=seed),
            head=projectors.HeadSettings(templates=("digit {}",), trained=trained),
        )

    return build


@pytest.fixture(scope="session")
def teacher(digits):
    """A linear classifier of the digits: images -> logits."""
    images, hard = digits
    ones = torch.ones(len(images), 1)
    features = torch.cat([images.flatten(1), ones], dim=1)
    targets = torch.nn.functional.one_hot(hard, 10).float() * 6 - 1
    weight = torch.linalg.lstsq(features[:1200], targets[:1200], driver="gelsd").solution
    return lambda seen: torch.cat([seen.flatten(1), ones[: len(seen)]], dim=1) @ weight


def fit(projector, images, teacher, hard, view=None, seed=0, **settings):
    state = fit_state(projector, seed, **settings)
    return list(projectors.fit_projector(state, images, teacher, hard, view=view))


def fit_state(projector, seed=0, **settings):
    chosen = projectors.FitSettings(**settings)
    return projectors.FitState(projector, chosen, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_fitting_lowers_the_loss_and_raises_the_agreement(fresh, digits, teacher, loss):
    images, hard = digits
    held_out, labels = images[1200:], hard[1200:]
    wanted = teacher(held_out).softmax(dim=-1)
    projector = fresh()
    before = projectors.measure_fidelity(projector, held_out, wanted, labels)
    steps = fit(
        projector,
        images[:1200],
        teacher,
        hard[:1200],
        steps=90,
        batch_size=64,
        lr=1e-2,
        loss=loss,
        temperature=2.0,
    )
    after = projectors.measure_fidelity(projector, held_out, wanted, labels)
    first, last = (sum(step.loss for step in part) for part in (steps[:10], steps[-10:]))
    assert last < 0.5 * first
    assert after.agreement > 0.7 > 0.3 > before.agreement
    assert after.accuracy > 0.7
    assert after.kl < before.kl


def test_fitting_leaves_the_tower_alone(fresh, tower, digits, teacher):
    images, hard = digits
    projector = fresh()
    fit(projector, images, teacher, hard, steps=3, batch_size=16)
    assert digest_of(tower.clip) == tower.digest
    frozen = {n: p for n, p in projector.visual.named_parameters() if "lora" not in n}
    original = dict(tower.clip.visual.named_parameters())
    assert len(frozen) == len(original)
    for name, parameter in frozen.items():
        plain = name.removeprefix("base_model.model.").replace("base_layer.", "")
        assert torch.equal(parameter, original[plain])


def test_the_same_generator_gives_the_same_fit(fresh, digits, teacher):
    images, hard = digits
    runs = [fresh(rank=2) for _ in range(3)]
    for projector, seed in zip(runs, (0, 0, 1), strict=True):
        fit(projector, images, teacher, hard, seed=seed, steps=3, batch_size=16)
    assert digest_of(runs[0]) == digest_of(runs[1]) != digest_of(runs[2])


def test_the_teacher_labels_the_view_that_the_projector_sees(fresh, digits):
    images, hard = digits
    seen = []

    def view(batch, generator):
        return batch + torch.rand(1, generator=generator)

    def record(batch):
        seen.append(batch)
        return torch.zeros(len(batch), 10)

    fit(fresh(rank=0), images[:8], record, hard[:8], view=view, steps=2, batch_size=8)
    offsets = [float(batch.mean() - images[:8].mean()) for batch in seen]
    assert len(offsets) == 2
    assert 0 < offsets[0] != offsets[1] > 0


def test_the_learning_rate_falls_along_a_cosine(fresh, digits, teacher):
    images, hard = digits
    steps = fit(fresh(rank=0), images, teacher, hard, steps=4, batch_size=8, lr=0.1)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert [step.lr for step in steps] == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)


def test_the_losses_are_those_of_their_formulas():
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    wanted = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    hard = torch.tensor([0, 1])

    def loss(**settings):
        chosen = projectors.FitSettings(**settings)
        return float(projectors.projector_loss(logits, wanted, hard, chosen))

    entropy = float(torch.nn.functional.cross_entropy(logits, hard))
    # The rows differ by (-1, 0) and (0, 2); less their means by (-1/2, 1/2) and (-1, 1).
    assert loss(ce_weight=0.0) == pytest.approx(2.5 / 4)
    assert loss(ce_weight=0.5) == pytest.approx(2.5 / 4 + 0.5 * entropy)
    p, q = (wanted / 2).softmax(dim=1), (logits / 2).softmax(dim=1)
    expected = float((p * (p / q).log()).sum(dim=1).mean()) * 4
    assert loss(loss="kl", temperature=2.0, ce_weight=0.0) == pytest.approx(expected, rel=1e-5)


def test_a_projector_is_its_own_perfect_student(stirred, images):
    projector = stirred()
    with torch.no_grad():
        wanted = projector(images)
    fidelity = projectors.measure_fidelity(
        projector, images, wanted, wanted.argmax(dim=1), batch_size=4
    )
    assert fidelity.kl == pytest.approx(0.0, abs=1e-6)
    assert (fidelity.agreement, fidelity.accuracy) == (1.0, 1.0)


def test_a_one_hot_teacher_has_a_finite_divergence(stirred, images):
    wanted = torch.nn.functional.one_hot(torch.arange(6), 10).float()
    fidelity = projectors.measure_fidelity(stirred(), images, wanted, torch.arange(6))
    assert 0 < fidelity.kl < 100


def test_a_fit_that_diverges_names_the_step(fresh, digits):
    images, hard = digits
    with pytest.raises(projectors.DivergedError, match="at step 0; lower lr") as caught:
        fit(
            fresh(rank=0),
            images,
            lambda seen: seen.new_full((8, 10), torch.inf),
            hard,
            batch_size=8,
        )
    assert caught.value.step == 0


def test_data_that_do_not_agree_are_refused(fresh, digits, teacher):
    images, hard = digits
    refused = pytest.raises(projectors.ProjectorError, match="nothing to fit")
    with refused:
        fit(fresh(rank=0, trained="nothing"), images, teacher, hard)
    projector = fresh(rank=0)
    for bad_images, bad_teacher, bad_hard, message in (
        (images, teacher, hard[:5], "one per image"),
        (images, teacher, hard + 1, "10 classes"),
        (images, lambda seen: torch.zeros(len(seen), 3), hard, "same classes"),
    ):
        with pytest.raises(projectors.ProjectorError, match=message):
            fit(projector, bad_images, bad_teacher, bad_hard)
    logits = teacher(images)
    for teacher_rows, message in ((logits, "softmax"), (logits[:3], "one row per image")):
        with pytest.raises(projectors.ProjectorError, match=message):
            projectors.measure_fidelity(projector, images, teacher_rows, hard)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"loss": "l2"}, "mse, kl"), ({"steps": 0}, "above 0"), ({"ce_weight": -1.0}, "below 0")],
)
def test_settings_of_a_fit_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(projectors.ProjectorError, match=message):
        projectors.FitSettings(**settings)


def test_a_fit_that_was_interrupted_ends_on_the_same_bits(fresh, digits, teacher):
    images, hard = digits

    def view(batch, generator):
        return batch + torch.rand(1, generator=generator)

    settings = {"steps": 7, "batch_size": 400}
    whole = fit_state(fresh(rank=2), **settings)
    steps = list(projectors.fit_projector(whole, images, teacher, hard, view=view))
    broken = fit_state(fresh(rank=2), **settings)
    fitting = projectors.fit_projector(broken, images, teacher, hard, view=view)
    # Five steps: more than one pass, so that the place in the second one matters.
    first = [next(fitting) for _ in range(5)]
    kept = broken.tensors()
    next(fitting)
    again = fit_state(fresh(rank=2, seed=3), seed=9, **settings)
    again.restore(kept)
    rest = list(projectors.fit_projector(again, images, teacher, hard, view=view))
    assert [*first, *rest] == steps
    for name, value in whole.weights().items():
        assert torch.equal(value, again.weights()[name])


def test_the_best_check_is_kept_and_patience_ends_a_fit():
    rule = projectors.EarlyStopping("agreement", patience=2)
    best = projectors.BestCheck()
    ends = []
    for step, agreement in enumerate([0.5, 0.7, 0.6, 0.7], start=1):
        fidelity = projectors.Fidelity(kl=1.0, agreement=agreement, accuracy=0.0)
        best = best.after(rule, step, fidelity, {"w": torch.tensor(float(step))})
        ends.append(best.ends(rule))
    assert ends == [False, False, False, True]
    assert (best.step, float(best.weights["w"]), best.stale) == (2, 2.0, 2)
    assert not best.ends(projectors.EarlyStopping("agreement"))


def test_a_smaller_divergence_is_better():
    near, far = (projectors.Fidelity(kl, 0.5, 0.5) for kl in (0.1, 0.2))
    rule = projectors.EarlyStopping("kl")
    assert projectors.BestCheck().after(rule, 1, far, {}).after(rule, 2, near, {}).step == 2
    assert projectors.BestCheck().after(rule, 1, near, {}).after(rule, 2, far, {}).step == 1
    with pytest.raises(projectors.ProjectorError, match="kl, agreement, accuracy"):
        projectors.EarlyStopping("loss")


def test_the_distance_of_logits_does_not_see_a_number_added_to_all_of_an_image():
    generator = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 6, 4, generator=generator)
    shift = 40 * torch.randn(6, 1, generator=generator)
    hard = torch.zeros(6, dtype=torch.long)
    settings = projectors.FitSettings(ce_weight=0.0)
    found = projectors.projector_loss(logits, wanted + shift, hard, settings)
    torch.testing.assert_close(found, projectors.projector_loss(logits, wanted, hard, settings))


def test_nearest_class_mean_of_pixels_is_a_bound_that_needs_no_network(generator):
    centres = torch.randn(3, 1, 40, 6, generator=generator)
    hard = torch.arange(12) % 3
    images = centres[hard] + 0.01 * torch.randn(12, 1, 40, 6, generator=generator)
    held, voted = centres[[0, 1, 2, 0]], torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 1]), 4)
    # Nobody is nearest to the fourth class, which has no images.
    agreement = projectors.nearest_mean_agreement(images, hard, held, voted.float(), batch_size=5)
    assert agreement == 0.75
    with pytest.raises(projectors.ProjectorError, match="got 12 images with 11 classes"):
        projectors.nearest_mean_agreement(images, hard[1:], held, voted.float())
