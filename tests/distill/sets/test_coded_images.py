"""How the images of a set are kept, and how many real ones fit."""

import pytest
import torch

from distill.recipes.loading import check_recipe
from distill.run.interrupt import Stop
from distill.run.scratch import scratch_context
from distill.sets.coded_images import (
    CODINGS,
    FACTORS,
    code_images,
    largest,
    most_per_class,
    usable_ways,
)
from distill.sets.coded_set import decode_coded
from tests.distill.cases import TINY


def context_of(tmp_path, size=8):
    import tomllib

    table = tomllib.loads(TINY)
    table["data"]["size"] = size
    return scratch_context(tmp_path, tmp_path, check_recipe(table, "tiny"), "cpu", True, Stop())


@pytest.mark.parametrize("each", [3.0, 17.5, 400.0])
@pytest.mark.parametrize("fixed", [0, 50])
@pytest.mark.parametrize("most", [0, 1, 5, 10_000])
@pytest.mark.parametrize("budget", [40, 700, 90_000])
def test_largest_count_is_that_of_a_search_one_by_one(each, fixed, most, budget):
    tried = []

    def size(count):
        tried.append(count)
        return int(fixed + each * count)

    found = largest(size, budget, most, first=8, tolerance=0.0)
    fitting = [count for count in range(1, most + 1) if int(fixed + each * count) <= budget]
    assert found == (fitting[-1] if fitting else 0)
    assert len(tried) <= 30
    near = largest(size, budget, most, first=8, tolerance=0.05)
    assert 0.95 * found - 1 <= near <= found


def test_every_coding_is_tried_with_formations_of_cells_that_show_something(tmp_path):
    assert usable_ways(context_of(tmp_path)) == [
        (spec, factor) for factor in FACTORS for spec in CODINGS
    ]
    small = context_of(tmp_path, size=7)
    assert {factor for _, factor in usable_ways(small)} == {1}
    # What is asked for is taken, unless the images do not allow it.
    assert usable_ways(small, ["rounded:depth=1", "frequency:block=3"], [3]) == [
        ("rounded:depth=1", 3)
    ]


@pytest.mark.parametrize("factor", [1, 2])
def test_students_see_what_a_receiver_decodes(factor, tmp_path):
    context = context_of(tmp_path)
    assert most_per_class(context, factor) == most_per_class(context, 1) // factor**2 > 0
    coded = code_images(context, "frequency:step=0.2", 1, factor)
    images, _ = context.random_real(factor**2, context.generator("a"))
    parameters = coded.start_real(images)
    payload = coded.pack(parameters)
    received = decode_coded(payload, context.preprocess, 10)
    torch.testing.assert_close(received, coded.stored(parameters))
    assert coded.seen(parameters).shape == (10 * factor**2, 1, 8, 8)
