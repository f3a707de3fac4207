"""Two sets as one: every image, label and byte is accounted for, or its loss is said."""

from dataclasses import replace

import pytest
import torch

from distill.data import Preprocess
from distill.errors import RecipeError, WorkError
from distill.sets.coded_set import pack_labels, unpack_labels
from distill.sets.compress import code_set
from distill.sets.merge import merge_sets
from distill.sets.merged_source import Given
from distill.sets.set_file import read_set, write_set
from synth.coding import unpack_images
from synth.whitening import Whitening
from tests.distill.sets.cases import make_set, make_votes


def named(*names, ipc=2, seed=1, **manifest):
    """A set of such classes, its images and labels drawn from a seed."""
    content = make_set(classes=len(names), ipc=ipc)
    generator = torch.Generator().manual_seed(seed)
    return replace(
        content,
        images=torch.randn(content.images.shape, generator=generator),
        learned=torch.randn(content.learned.shape, generator=generator),
        manifest={**content.manifest, "class_names": list(names), **manifest},
    )


def merged(first, second, **options):
    return merge_sets(Given(first, "a.h5"), Given(second, "b.h5"), **options)


def test_images_of_both_are_kept_byte_for_byte_and_labels_are_renumbered(tmp_path):
    first, second = named("cat", "dog"), named("dog", "owl", seed=2)
    content, _ = merged(first, second)
    write_set(tmp_path / "c.h5", content)
    found = read_set(tmp_path / "c.h5")
    assert found.manifest["class_names"] == ["cat", "dog", "owl"]
    assert found.hard.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert torch.equal(found.images[:4], first.images)
    assert torch.equal(found.images[4:], second.images)


def test_learned_labels_get_columns_of_very_low_probability():
    first, second = named("cat", "dog"), named("dog", "owl", seed=2)
    content, _ = merged(first, second)
    assert torch.equal(content.learned[:4, :2], first.learned)
    assert torch.equal(content.learned[4:, 1:], second.learned)
    probabilities = content.learned.softmax(dim=1)
    assert float(probabilities[:4, 2].max()) < 1e-8
    assert float(probabilities[4:, 0].max()) < 1e-8
    torch.testing.assert_close(probabilities[:4, :2], first.learned.softmax(dim=1))


def test_a_class_of_another_place_keeps_its_labels():
    """B lists the classes of A in another order."""
    first, second = named("cat", "dog", "owl"), named("owl", "cat", seed=2)
    content, _ = merged(first, second)
    rows = content.images[content.hard == 0]
    assert torch.equal(rows, torch.cat([first.images[:2], second.images[2:]]))
    place = int((content.images == second.images[0]).flatten(1).all(dim=1).nonzero())
    assert int(content.hard[place]) == 2
    assert torch.equal(content.learned[place, [2, 0]], second.learned[0])


@pytest.mark.parametrize(
    ("first", "second"),
    [(("cat", "dog"), ("crane", "crane")), (("crane", "crane"), ("dog", "crane"))],
)
def test_classes_that_a_name_does_not_tell_apart_are_refused(first, second):
    """ImageNet has two cranes."""
    with pytest.raises(WorkError, match=r"class crane of b\.h5 cannot be told by its name"):
        merged(named(*first), named(*second, seed=2))


def test_a_name_that_comes_twice_in_the_first_set_alone_is_kept():
    content, _ = merged(named("crane", "crane"), named("dog", "owl", seed=2))
    assert content.manifest["class_names"] == ["crane", "crane", "dog", "owl"]
    assert content.hard.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_where_one_set_has_no_learned_labels_its_classes_stand_in():
    first, second = named("cat", "dog"), replace(named("owl", "eel"), learned=None)
    content, notes = merged(first, second)
    assert torch.equal(content.learned[4:].softmax(dim=1).argmax(dim=1), content.hard[4:])
    assert float(content.learned[4:].softmax(dim=1).max(dim=1).values.min()) > 1 - 1e-7
    assert any("no learned labels" in note for note in notes)
    without = [replace(part, learned=None) for part in (first, second)]
    assert merged(*without)[0].learned is None


def test_provenance_names_every_set_also_after_a_second_merge():
    first, second = named("cat", "dog"), named("owl", "eel", seed=7)
    once, _ = merged(first, second)
    twice, _ = merge_sets(Given(once, "ab.h5"), Given(named("bee", "fox"), "c.h5"))
    parts = twice.manifest["source"]["merged"]
    assert [part["file"] for part in parts] == ["a.h5", "b.h5", "c.h5"]
    assert [part["images"] for part in parts] == [4, 4, 4]
    assert parts[1]["digest"] == second.manifest["source"]["digest"]
    assert parts[1]["recipe"] == "x"


@pytest.mark.parametrize("earlier", [5, "abc", [1], [{"file": "a.h5"}], [{"images": 1}]])
def test_provenance_that_makes_no_sense_gets_one_line(earlier):
    source = {"name": "digits", "digest": "1", "merged": earlier}
    with pytest.raises(WorkError, match="does not say what it was merged from"):
        merged(named("cat", "dog", source=source), named("cat", "dog"))


def test_data_of_the_first_stay_where_its_classes_are_all():
    first, second = named("cat", "dog"), named("dog", "cat", source={"name": "b", "digest": "2"})
    content, notes = merged(first, second)
    assert content.manifest["source"]["digest"] == "1"
    assert any("must not be among" in note for note in notes)
    same, notes = merged(first, named("cat", "dog", seed=4))
    assert same.manifest["source"]["digest"] == "1"
    assert notes == ()
    wider, notes = merged(first, named("cat", "owl"))
    assert wider.manifest["source"]["digest"] == ""
    assert any("--data" in note for note in notes)


@pytest.mark.parametrize(
    "spec",
    ["rounded:depth=2", "palette:colours=4", "tones:tones=3", "frequency:step=0.4", "pixels"],
)
def test_images_coded_alike_stay_coded_and_decode_to_the_same_pixels(spec, tmp_path):
    first, second = (code_set(named(*names, seed=s), spec) for names, s in (("ab", 1), ("bc", 2)))
    content, notes = merged(first, second)
    write_set(tmp_path / "c.h5", content)
    found = read_set(tmp_path / "c.h5")
    assert found.coded is not None
    before = torch.cat([unpack_images(part.coded)[0] for part in (first, second)])
    assert torch.equal(unpack_images(found.coded)[0], before)
    assert not any("pixels" in note for note in notes)


def test_images_that_are_coded_differently_are_kept_as_pixels_with_a_word():
    first, second = code_set(named("a", "b"), "rounded:depth=2"), named("c", "d", seed=2)
    for other in (second, code_set(second, "rounded:depth=3"), code_set(second, "frequency")):
        content, notes = merged(first, other)
        assert content.coded is None
        assert torch.equal(content.images, torch.cat([first.images, other.images]))
        assert any("`distill compress`" in note for note in notes)


def test_coded_labels_stay_in_their_codec():
    parts = []
    for part in (named("a", "b"), named("c", "d", seed=2)):
        payload = pack_labels(part.learned, 10**6)
        parts.append(replace(part, learned=unpack_labels(payload), coded_labels=payload))
    content, _ = merged(*parts)
    assert content.coded_labels is not None
    assert torch.equal(unpack_labels(content.coded_labels), content.learned)
    torch.testing.assert_close(content.learned[:4, :2], parts[0].learned, atol=1e-2, rtol=0)
    mixed, notes = merged(parts[0], named("c", "d"))
    assert mixed.coded_labels is None
    assert torch.equal(mixed.learned[:4, :2], parts[0].learned)
    assert any("float32" in note for note in notes)


def test_labels_of_views_are_left_out_with_a_word():
    first = replace(named("a", "b"), votes=make_votes(n=4, classes=2), measured={"students": {}})
    content, notes = merged(first, named("c", "d"))
    assert (content.votes, content.encoded, content.measured) == (None, {}, None)
    assert any("labels of views" in note for note in notes)


def test_images_normalised_otherwise_show_the_same_pixels():
    first, second = named("a", "b"), named("c", "d", seed=2)
    other = Preprocess((0.2,), (0.5,))
    pixels = second.preprocess.inverse(second.images)
    moved = replace(
        second,
        images=other(pixels),
        manifest={**second.manifest, "preprocess": other.to_dict()},
    )
    content, notes = merged(first, moved)
    assert torch.equal(content.images[:4], first.images)
    torch.testing.assert_close(content.preprocess.inverse(content.images[4:]), pixels)
    assert any("brought to the normalisation of a.h5" in note for note in notes)
    coded = merged(code_set(first, "rounded:depth=2"), code_set(moved, "rounded:depth=2"))[0]
    pixels = content.preprocess.inverse(content.images).clamp(0, 1)
    torch.testing.assert_close(unpack_images(coded.coded)[0], (pixels * 3).round() / 3)


def test_refined_images_and_formation_are_kept():
    first = replace(named("a", "b", factor=2), images=torch.randn(4, 1, 8, 8))
    first = replace(first, refined=first.images + 1, learned=torch.randn(16, 2))
    second = replace(named("b", "c", factor=2), images=torch.randn(4, 1, 8, 8), learned=None)
    content, _ = merged(first, second)
    assert torch.equal(content.images[:4], first.images + 1)
    assert content.refined is None
    assert content.learned.shape == (32, 3)
    assert torch.equal(content.learned[:16, :2], first.learned)


def whitened(content, mean):
    matrix = 2 * torch.eye(20)
    whitening = Whitening(torch.full((20,), mean), matrix, matrix.inverse(), (1, 4, 5))
    manifest = {**content.manifest, "preprocess": "zca"}
    return replace(content, manifest=manifest, whitening=whitening)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda part: replace(part, images=torch.randn(4, 1, 5, 5)), r"images of \(1, 4, 5\)"),
        (lambda part: replace(part, images=torch.randn(4, 3, 4, 5)), r"and \(3, 4, 5\)"),
        (lambda part: whitened(part, 0.5), "one is whitened"),
        (
            lambda part: replace(part, manifest={**part.manifest, "factor": 2}),
            "formation factors 1 and 2",
        ),
    ],
)
def test_sets_that_are_unlike_are_refused(change, words):
    with pytest.raises(WorkError, match=words):
        merged(named("a", "b"), change(named("c", "d")))


def test_whitened_sets_merge_if_their_matrices_are_the_same():
    first, second = whitened(named("a", "b"), 0.5), whitened(named("c", "d", seed=2), 0.5)
    content, _ = merged(first, second)
    assert torch.equal(content.images, torch.cat([first.images, second.images]))
    with pytest.raises(WorkError, match="matrices of different data"):
        merged(first, whitened(named("c", "d"), 0.4))


OTHER = {"name": "folder:b", "digest": "2"}


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (("cat", "dog"), ("Cat", "owl"), ["cat", "dog", "owl"]),
        (("fire truck", "dog"), ("fire_truck", "Dog!"), ["fire truck", "dog"]),
        (("cat", "dog"), ("dog", "cat"), ["cat", "dog"]),
    ],
)
def test_names_are_matched_without_case_and_punctuation_and_it_is_said(first, second, names):
    content, notes = merged(named(*first), named(*second, source=OTHER))
    assert content.manifest["class_names"] == names
    changed = [name for name in second if name not in first and name.lower() not in ("owl",)]
    assert sum("is taken as" in note for note in notes) == len(changed)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("0", "1"), ("0", "1"), "numbers of different data do not tell"),
        (("cat", "dog"), ("0", "1"), "numbers of different data do not tell"),
        (("cat", "dog"), ("00001-cat", "owl"), "class '00001-cat' may be 'cat'"),
        (("cat", "dog"), ("n02123045 tabby, cat", "cat, tom"), "may be 'cat'"),
        (("cat", "Cat!"), ("CAT", "owl"), "class 'CAT' may be 'cat'"),
        (("cat", "dog"), ("cat", "Cat"), "class 'Cat' may be 'cat'"),
    ],
)
def test_names_that_do_not_tell_are_refused(first, second, words):
    with pytest.raises(WorkError, match="--map NAME=NAME") as caught:
        merged(named(*first), named(*second, source=OTHER))
    assert words in str(caught.value)


def test_numbers_of_one_source_are_names():
    first, second = named("0", "1"), named("1", "2", source={"name": "digits", "digest": "2"})
    assert merged(first, second)[0].manifest["class_names"] == ["0", "1", "2"]


def test_a_map_says_what_names_do_not():
    first, second = named("cat", "dog"), named("0", "1", source=OTHER)
    content, _ = merged(first, second, given={"0": "dog", "1": "owl"})
    assert content.manifest["class_names"] == ["cat", "dog", "owl"]
    assert content.hard.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    with pytest.raises(WorkError, match="would become one"):
        merged(first, second, given={"0": "dog", "1": "dog"})
    with pytest.raises(RecipeError, match="class '7', which"):
        merged(first, second, given={"7": "dog"})


def test_code_of_the_first_is_not_taken_for_refined_images():
    first = code_set(named("a", "b"), "rounded:depth=2")
    first = replace(first, refined=first.images + 1)
    content, _ = merged(first, code_set(named("c", "d"), "rounded:depth=2"))
    assert content.coded is None
    assert torch.equal(content.images[:4], first.images + 1)
