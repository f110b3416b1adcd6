"""Copies that were planted in a synthetic set."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import phantom_set

from kerasmed.audit.copy_search import (
    chance_to_notice,
    fresh_images,
    images_to_notice,
    independent_images,
    more_copies_than,
    search_copies,
)
from kerasmed.data.image_set import ImageSet
from kerasmed.errors import InputError


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet, ImageSet]:
    """Training, reserve and synthetic images, of which the first two synthetic ones are copies."""
    phantoms = phantom_set(per_class=40)
    train, reserve, synthetic = (phantoms.subset(np.arange(start, 80, 3)) for start in range(3))
    images = np.array(synthetic.images)
    images[:2] = train.images[[5, 7]][:, :, ::-1]
    return train, reserve, replace(synthetic, images=images)


def searched(sets, copy_filter=None) -> dict:
    return search_copies(*sets, {"reserve": np.arange(len(sets[1]))}, {}, copy_filter, seed=0)


def test_copies_are_found_whatever_the_filter_of_the_sampling_let_through(sets):
    record = {"calibration": {}, "drawn": 30, "rejected": 3}

    result = searched(sets, record)

    found = {(pair["synthetic"], pair["train"]) for pair in result["found"]}
    assert {(0, 5), (1, 7)} <= found
    assert len(found) <= 3
    assert result["found"][:2] == result["nearest_pairs"][:2]
    assert (result["filter"], result["images"]) == (record, len(sets[2]))
    assert result["identical"] == {"train": [0, 1], "reserve": []}  # also mirrored
    assert result["fresh"]["copies"] == 0
    assert {**searched(sets), "filter": record} == result


def test_more_copies_than_among_real_images_are_noticed():
    fresh = {"images": 200, "copies": 1, "design_effect": 1.0}

    assert more_copies_than(fresh, 1, 200) > 0.5
    assert more_copies_than(fresh, 8, 200) < 0.05


def test_copies_of_one_group_are_no_standard_for_a_set():
    is_copy, patients = np.arange(1000) < 20, np.repeat(np.arange(50), 20)

    single, grouped = fresh_images(is_copy, np.arange(1000)), fresh_images(is_copy, patients)

    assert (single["copies"], grouped["copies"]) == (20, 20)
    assert independent_images(single) == 1000
    assert 45 <= independent_images(grouped) <= 50
    assert more_copies_than(single, 40, 1000) < 0.01
    assert more_copies_than(grouped, 40, 1000) > 0.2


def test_chance_to_notice_copies_grows_with_their_number_and_the_sensitivity():
    fresh = {"images": 900, "copies": 0, "design_effect": 1.0}

    chances = [chance_to_notice(fresh, fraction, 1000, 0.8) for fraction in (0.001, 0.01, 0.05)]

    assert chances == sorted(chances)
    assert chances[0] == 0  # a single one is not more than chance
    assert chances[2] == pytest.approx(1)
    assert chance_to_notice(fresh, 0.01, 1000, 0.2) < chances[1]


def test_test_images_are_searched_like_synthetic_ones(sets):
    _, reserve, synthetic = sets
    fresh = searched(sets)["fresh"]["images"]
    with_copies = {"test": synthetic}  # of which two are copies

    groups = {"reserve": np.arange(len(reserve)), "test": np.arange(len(synthetic))}
    result = search_copies(*sets, groups, with_copies, None, seed=0)

    assert result["fresh"]["images"] == fresh + len(synthetic)
    assert result["fresh"]["copies"] == len(result["found"]) >= 2
    assert result["p_value"] > searched(sets)["p_value"]


@pytest.mark.parametrize("grow", [(True, False), (True, True)])
def test_so_many_images_are_just_enough(grow):
    fresh = {"images": 240, "copies": 0, "design_effect": 1.0}
    assert chance_to_notice(fresh, 0.01, 2000, 0.9) < 0.95

    real, drawn = images_to_notice(fresh, 0.01, 2000, 0.9, 0.95, grow)

    assert (
        chance_to_notice({"images": real, "copies": 0, "design_effect": 1.0}, 0.01, drawn, 0.9)
        >= 0.95
    )
    fewer = {"images": round(real / 1.1), "copies": 0, "design_effect": 1.0}
    of_drawn = round(drawn / 1.1) if grow[1] else drawn
    assert chance_to_notice(fewer, 0.01, of_drawn, 0.9) < 0.95


def test_synthetic_images_alone_are_not_enough_next_to_few_real_ones():
    fresh = {"images": 240, "copies": 0, "design_effect": 1.0}
    assert images_to_notice(fresh, 0.01, 1000, 1.0, 0.95, (False, True)) is None


def test_too_few_synthetic_images_are_refused(sets):
    with pytest.raises(InputError, match="at least 20 synthetic images, received 5"):
        searched((*sets[:2], sets[2].subset(np.arange(5))))
