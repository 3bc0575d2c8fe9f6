from __future__ import annotations

import torch

from pointmix.nn.mixers.group import GroupCluster


def test_groups_do_not_mix_and_the_reference_form_agrees():
    x = torch.randn(3 * 4, 8, dtype=torch.float64)
    mixer = GroupCluster(8, head_dim=2, neighbors=4).double()
    reference = GroupCluster(8, head_dim=2, neighbors=4, reference=True).double()
    reference.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(x), reference(x))
    torch.testing.assert_close(mixer(x)[4:8], mixer(x[4:8]))


def test_folded_overwrites_only_without_gradients():
    x = torch.randn(3 * 4, 8)
    mixer = GroupCluster(8, head_dim=2, neighbors=4)
    before, out = x.clone(), mixer(x)
    torch.testing.assert_close(mixer.folded()(x), out)
    assert torch.equal(x, before)
    with torch.no_grad():
        torch.testing.assert_close(mixer.folded()(x), out)
    torch.testing.assert_close(x, out.detach())


def test_start_of_the_weights():
    mixer = GroupCluster(64, head_dim=16, neighbors=4)
    assert mixer.alpha.item() == 1 and mixer.beta.item() == 0
    assert 0.9 / 8 < mixer.query.weight.abs().max() <= 1 / 8
