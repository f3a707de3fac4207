import pytest
import torch

import projectors
from tests.projectors.cases import DIGITS, GRAY


def test_a_projector_gives_probabilities(stirred, images):
    probabilities = stirred()(images)
    assert probabilities.shape == (6, 10)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(6))
    assert bool((probabilities >= 0).all())


def test_images_are_brought_to_the_space_of_the_tower(stirred):
    pixels = torch.full((1, 1, 5, 7), 0.25)
    prepared = stirred().prepare((pixels - 0.3) / 0.4)
    torch.testing.assert_close(prepared, torch.full((1, 3, 16, 16), (0.25 - 0.5) / 0.5))


def test_colour_images_keep_their_channels(tower):
    space = projectors.Preprocessing((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))
    settings = projectors.AdapterSettings(rank=0)
    projector = projectors.build_projector(tower, DIGITS, space, adapter=settings)
    pixels = torch.tensor([0.2, 0.4, 0.8]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    normalised = (pixels - projector.preparation.input_mean) / projector.preparation.input_std
    torch.testing.assert_close(projector.prepare(normalised), (pixels - 0.5) / 0.5)


def test_gradients_reach_the_images(stirred, images):
    images.requires_grad_(True)
    stirred()(images)[:, 0].sum().backward()
    assert bool(images.grad.abs().flatten(1).sum(dim=1).gt(0).all())


def test_every_tensor_of_a_projector_moves_with_it(stirred, images):
    # The meta device stands for any other: a tensor left behind raises an error.
    projector = stirred().to("meta")
    assert projector(images.to("meta")).device.type == "meta"


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 8, 8)])
def test_images_of_another_shape_are_refused(stirred, shape):
    with pytest.raises(projectors.ProjectorError, match="this projector takes"):
        stirred()(torch.zeros(shape))


def test_batch_norm_statistics_of_the_tower_never_move(resnet, stirred, images):
    projector = stirred(on=resnet, init="random").train()
    before = {n: b.clone() for n, b in projector.visual.named_buffers() if "running" in n}
    projector(images).sum().backward()
    assert projector.training
    assert not projector.visual.training
    assert before
    for name, buffer in projector.visual.named_buffers():
        if name in before:
            assert torch.equal(buffer, before[name])


def test_several_projectors_can_share_a_tower(tower, stirred, images):
    plain = projectors.build_projector(
        tower, DIGITS, GRAY, adapter=projectors.AdapterSettings(rank=0)
    )
    before = plain(images)
    stirred(rank=4)(images)
    assert torch.equal(plain(images), before)


def test_a_head_starts_from_the_mean_over_its_templates(tower):
    templates = ("a {}", "the digit {}")
    directions = projectors.text_directions(tower, ["one", "two"], templates)
    first = projectors.encode_text(tower, ["a two", "the digit two"]).sum(dim=0)
    torch.testing.assert_close(directions[1], first / first.norm())


def test_a_text_head_answers_as_the_words_do_without_what_they_share(tower):
    templates = ("a {}", "the digit {}")
    head = projectors.build_head(tower, DIGITS, projectors.HeadSettings(templates))
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    words = projectors.text_directions(tower, DIGITS, templates)
    cosines = torch.nn.functional.normalize(features, dim=-1) @ words.T
    scale = tower.clip.logit_scale.detach().exp()
    wanted = (scale * cosines).softmax(dim=-1)
    torch.testing.assert_close(head(features).softmax(dim=-1), wanted)
    assert float(head(features).detach().mean(dim=1).abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("trained", "count"), [("nothing", 0), ("scale", 11), ("all", 11 + 10 * 64)]
)
def test_a_head_takes_gradients_only_where_it_is_fitted(tower, trained, count):
    head = projectors.build_head(tower, DIGITS, projectors.HeadSettings(trained=trained))
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == count


def test_the_logits_of_a_head_are_scaled_cosines_and_biases():
    head = projectors.Head(torch.eye(2), 10.0, projectors.HeadSettings())
    head.bias.data[1] = 1.0
    logits = head(torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(logits, torch.tensor([[6.0, 9.0]]))


def test_a_random_head_is_drawn_from_its_seed(tower):
    def weight(seed):
        settings = projectors.HeadSettings(init="random", seed=seed)
        return projectors.build_head(tower, DIGITS, settings).weight

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_targets_that_do_nothing_are_refused_when_a_projector_is_built(tower):
    settings = projectors.AdapterSettings(targets=("transformer.resblocks.0.attn.out_proj",))
    with pytest.raises(projectors.ProjectorError, match="do not act"):
        projectors.build_projector(tower, DIGITS, GRAY, adapter=settings)


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], ["a", ""]])
def test_class_names_must_differ(tower, classes):
    with pytest.raises(projectors.ProjectorError, match="class names"):
        projectors.build_projector(tower, classes, GRAY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: projectors.HeadSettings(init="texts"), "one of text, random"),
        (lambda: projectors.HeadSettings(trained="none"), "one of nothing, scale, low-rank, all"),
        (lambda: projectors.HeadSettings(templates=("a photo",)), "needs exactly one"),
        (lambda: projectors.HeadSettings(templates=()), "no templates"),
        (lambda: projectors.Preprocessing((0.5, 0.5), (1.0, 1.0)), "1 or 3 channels"),
        (lambda: projectors.Preprocessing((0.5,), (0.0,)), "above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(projectors.ProjectorError, match=message):
        make()


def test_a_low_rank_head_starts_where_the_words_are_and_moves_in_few_numbers(tower):
    settings = projectors.HeadSettings(trained="low-rank", rank=3)
    head = projectors.build_head(tower, DIGITS, settings)
    assert torch.equal(head.directions(), head.weight)
    fitted = {name: p.shape for name, p in head.named_parameters() if p.requires_grad}
    assert fitted == {"log_scale": (), "bias": (10,), "down": (3, 64), "up": (10, 3)}
    head.up.data.fill_(0.1)
    assert torch.linalg.matrix_rank(head.directions() - head.weight) == 1
    with pytest.raises(projectors.ProjectorError, match="at least 1"):
        projectors.HeadSettings(rank=0)
