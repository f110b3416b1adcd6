"""Pictures of the report that consist of images."""

import base64
import io

import numpy as np
import pytest
from conftest import phantom_set
from PIL import Image

from kerasmed.study.report.pictures import six_of


@pytest.mark.parametrize("family", ["ct", "smear"])
def test_six_images_are_different_and_of_all_classes_in_turn(family):
    images = phantom_set(family, per_class=5)
    chosen = six_of(images)

    assert {name for name, _ in chosen} == set(images.class_names)
    assert len({uri for _, uri in chosen}) == 6
    name, uri = chosen[1]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    of_class = images.images[images.labels == images.class_names.index(name)]
    assert any(np.array_equal(pixels, image) for image in of_class)


def test_a_class_of_one_image_is_shown_again():
    images = phantom_set("ct", per_class=1)
    assert [name for name, _ in six_of(images)] == 3 * list(images.class_names)
