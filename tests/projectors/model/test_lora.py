import pytest
import torch

import projectors
from projectors.model.tower import digest_of


def adapted(tower, targets, seed=0):
    return projectors.attach_adapters(
        tower.clip.visual,
        dict.fromkeys(targets, 4),
        alpha=8,
        generator=torch.Generator().manual_seed(seed),
    )


def stir(module):
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def pictures(tower):
    return torch.rand(2, 3, *tower.image_size, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.fixture(params=["tower", "resnet"])
def any_tower(request):
    return request.getfixturevalue(request.param)


def test_targets_of_a_vision_transformer_are_its_attention_and_its_mlp(tower):
    targets = projectors.find_targets(tower.clip.visual)
    assert targets == sorted(
        f"transformer.resblocks.{block}.{layer}"
        for block in range(2)
        for layer in ("attn", "mlp.c_fc", "mlp.c_proj")
    )


def test_targets_of_a_modified_resnet_are_the_convolutions_of_its_residual_layers(resnet):
    targets = projectors.find_targets(resnet.clip.visual)
    assert len(targets) == 16
    assert all(name.startswith("layer") for name in targets)


def test_targets_of_a_timm_tower_all_act():
    from open_clip.timm_model import TimmModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        visual = TimmModel("test_vit", embed_dim=16, image_size=160).eval()
    generator = torch.Generator().manual_seed(0)
    ranks = dict.fromkeys(projectors.find_targets(visual), 2)
    module = projectors.attach_adapters(visual, ranks, alpha=4, generator=generator)
    projectors.check_adapters(module, torch.rand(2, 3, 160, 160, generator=generator))


def test_found_targets_pass_the_check(any_tower):
    module = adapted(any_tower, projectors.find_targets(any_tower.clip.visual))
    projectors.check_adapters(module, pictures(any_tower))


def test_fresh_adapters_change_nothing_and_leave_the_tower_alone(any_tower):
    before = any_tower.digest
    module = adapted(any_tower, projectors.find_targets(any_tower.clip.visual))
    with torch.no_grad():
        expected = any_tower.clip.visual(pictures(any_tower))
        torch.testing.assert_close(module(pictures(any_tower)), expected)
    assert digest_of(any_tower.clip) == before


def test_merged_adapters_give_the_same_features(any_tower):
    module = adapted(any_tower, projectors.find_targets(any_tower.clip.visual))
    stir(module)
    merged = projectors.merge_adapters(module)
    with torch.no_grad():
        expected = module(pictures(any_tower))
        torch.testing.assert_close(merged(pictures(any_tower)), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(expected, any_tower.clip.visual(pictures(any_tower)), atol=1e-3)
    assert not any("lora" in name for name, _ in merged.named_modules())


def test_the_check_catches_an_output_projection_that_is_never_called(tower):
    module = adapted(tower, ["transformer.resblocks.0.attn.out_proj"])
    with pytest.raises(projectors.ProjectorError, match="2 of 2 adapter tensors do not act"):
        projectors.check_adapters(module, pictures(tower))


def test_the_check_catches_one_dead_adapter_among_living_ones(tower):
    targets = ["transformer.resblocks.0.attn.out_proj", "transformer.resblocks.1.mlp.c_fc"]
    with pytest.raises(projectors.ProjectorError, match="2 of 4 adapter tensors do not act"):
        projectors.check_adapters(adapted(tower, targets), pictures(tower))


def test_the_check_catches_an_attention_pool(resnet):
    module = adapted(resnet, ["attnpool.q_proj", "attnpool.c_proj"])
    with pytest.raises(projectors.ProjectorError, match="4 of 4 adapter tensors do not act"):
        projectors.check_adapters(module, pictures(resnet))


def test_the_check_catches_a_residual_branch_that_is_multiplied_by_zero(resnet):
    module = adapted(resnet, ["layer1.0.conv1"])
    module.get_submodule("base_model.model.layer1.0.bn3").weight.data.zero_()
    with pytest.raises(projectors.ProjectorError, match="multiplies it by zero"):
        projectors.check_adapters(module, pictures(resnet))


def test_the_check_catches_a_layer_that_changes_its_weight_on_the_way():
    class Standardised(torch.nn.Linear):
        def forward(self, features):
            return torch.nn.functional.linear(features, self.weight / self.weight.std(), self.bias)

    visual = torch.nn.Sequential(torch.nn.Flatten(), Standardised(12, 4))
    generator = torch.Generator().manual_seed(0)
    module = projectors.attach_adapters(visual, {"1": 1}, alpha=1, generator=generator)
    with pytest.raises(projectors.ProjectorError, match="merging the adapters changes"):
        projectors.check_adapters(module, torch.rand(2, 3, 2, 2, generator=generator))


def test_the_check_leaves_the_adapters_as_they_are(tower):
    module = adapted(tower, projectors.find_targets(tower.clip.visual))
    before = digest_of(module)
    projectors.check_adapters(module, pictures(tower))
    assert digest_of(module) == before


def test_the_same_seed_draws_the_same_adapters_without_the_global_generator(tower):
    targets = projectors.find_targets(tower.clip.visual)
    before = torch.random.get_rng_state()
    first = digest_of(adapted(tower, targets, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert digest_of(adapted(tower, targets, seed=1)) == first
    assert digest_of(adapted(tower, targets, seed=2)) != first


def test_frozen_attention_weights_keep_their_bytes_through_many_forward_passes(tower):
    module = adapted(tower, projectors.find_targets(tower.clip.visual))
    stir(module)
    before = digest_of(module)
    for _ in range(50):
        module(pictures(tower)).sum().backward()
    assert digest_of(module) == before


@pytest.mark.parametrize(
    ("targets", "rank", "message"),
    [
        (["transformer.resblocks.9.attn"], 4, "has no layer 'transformer.resblocks.9.attn'"),
        ([], 4, "none given"),
        (["transformer.resblocks.0.mlp.c_fc"], 0, "c_fc is 0"),
        (["ln_post"], 4, "PEFT refuses"),
    ],
)
def test_targets_that_cannot_carry_an_adapter_are_refused(tower, targets, rank, message):
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(projectors.ProjectorError, match=message):
        projectors.attach_adapters(
            tower.clip.visual, dict.fromkeys(targets, rank), alpha=4, generator=generator
        )


def test_an_encoder_without_layers_for_adapters_is_refused():
    with pytest.raises(projectors.ProjectorError, match="no layer that takes an adapter"):
        projectors.find_targets(torch.nn.Sequential(torch.nn.ReLU()))


def test_every_kind_of_layer_has_its_own_rank(tower):
    visual = tower.clip.visual
    targets = projectors.find_targets(visual)
    ranks = projectors.target_ranks(visual, targets, 2, {"attention": 5, "conv": 1})
    assert set(ranks.values()) == {2, 5}
    assert all((rank == 5) == name.endswith("attn") for name, rank in ranks.items())
    generator = torch.Generator().manual_seed(0)
    module = projectors.attach_adapters(visual, ranks, alpha=4, generator=generator)
    found = {
        name.split(".lora_A")[0].removeprefix("base_model.model."): len(parameter)
        for name, parameter in module.named_parameters()
        if "lora_A" in name
    }
    for name, rank in ranks.items():
        own = [value for layer, value in found.items() if layer.startswith(name)]
        assert own
        assert set(own) == {rank}
    projectors.check_adapters(module, pictures(tower))


def test_a_rank_of_zero_leaves_a_kind_alone(tower, resnet):
    targets = projectors.find_targets(tower.clip.visual)
    ranks = projectors.target_ranks(tower.clip.visual, targets, 2, {"mlp": 0})
    assert ranks == {name: 2 for name in targets if name.endswith("attn")}
    convolutions = projectors.find_targets(resnet.clip.visual)
    assert projectors.target_ranks(resnet.clip.visual, convolutions, 2, {"conv": 0}) == {}


def test_ranks_of_unknown_kinds_and_below_zero_are_refused():
    with pytest.raises(projectors.ProjectorError, match="attention, mlp, conv"):
        projectors.AdapterSettings(ranks={"attn": 3})
    with pytest.raises(projectors.ProjectorError, match="rank of mlp is -1"):
        projectors.AdapterSettings(ranks={"mlp": -1})
