"""Teachers that are given in Python."""

import pytest
import torch
from torch import nn

from distill.teachers.given import GivenTeacher

SHAPE = (2, (3, 3), 5)


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 5))


def test_teacher_sees_pixels_whatever_the_images_are_normalised_by():
    own, pixels = plain(), torch.rand(4, 2, 3, 3)
    mean, std = [0.2, 0.7], [0.5, 0.1]
    spread = torch.tensor(std).view(-1, 1, 1)
    normalised = (pixels - torch.tensor(mean).view(-1, 1, 1)) / spread
    for teacher in (own, lambda images: own(images)):
        given = GivenTeacher(teacher, *SHAPE)
        given.expect(mean, std)
        assert torch.allclose(given(normalised), own(pixels), atol=1e-5)


def test_own_module_is_neither_frozen_nor_changed():
    own = plain()
    given = GivenTeacher(own, *SHAPE)
    given.requires_grad_(False)
    given.load_state_dict({name: value + 1 for name, value in given.state_dict().items()})
    assert all(parameter.requires_grad for parameter in own.parameters())
    assert not torch.equal(given.teacher[1].weight, own[1].weight)


def test_state_of_a_function_refuses_another_one():
    first, second = plain(), plain()
    state = GivenTeacher(lambda images: first(images), *SHAPE).state_dict()
    GivenTeacher(lambda images: first(images), *SHAPE).load_state_dict(state)
    with pytest.raises(RuntimeError, match="another function"):
        GivenTeacher(lambda images: second(images), *SHAPE).load_state_dict(state)
