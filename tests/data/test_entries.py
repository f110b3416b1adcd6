"""Labels of any kind, and the folders that stand for them."""

import os

import pytest

from kerasmed.data.entries import checked_label, folder_name, label_of_folder
from kerasmed.errors import DataError


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("benign", "benign"),
        ("two words_-+=,;'(1) [x]", "two words_-+=,;'(1) [x]"),
        ("肺炎 مرض é", "肺炎 مرض é"),
        (".5 mm", "%2E5 mm"),
        ("..", "%2E%2E"),
        ("1.5 mm", "1.5 mm"),
        ("end. ", "end.%20"),
        ("end.", "end%2E"),
        ("50%", "50%25"),
        ("a/b\\c:d*e?f\"g<h>i|j", "a%2Fb%5Cc%3Ad%2Ae%3Ff%22g%3Ch%3Ei%7Cj"),
        ("tab\tbell\a\x7f", "tab%09bell%07%7F"),
        ("CON", "%43ON"),
        ("com1.png", "%63om1.png"),
        ("Lpt9 .x", "%4Cpt9 .x"),
        ("contrast", "contrast"),
    ],
)  # fmt: skip
def test_a_folder_stands_for_each_label(label, folder):
    assert folder_name(label) == folder
    assert label_of_folder(folder) == label


def test_different_labels_have_different_folders():
    labels = [".a", "%2Ea", "%252Ea", "a/b", "a%2Fb", "CON", "%43ON", "a", "a.", "a "]

    assert len({folder_name(label) for label in labels}) == len(labels)
    assert [label_of_folder(folder_name(label)) for label in labels] == labels


@pytest.mark.parametrize("name", ["50%", "a%20b", "%41", "100%2", "%2e", "a%C3%A9"])
def test_a_folder_that_stands_for_no_label_is_its_own_label(name):
    assert label_of_folder(name) == name


def test_name_that_is_not_utf8_stays():
    name = os.fsdecode(b"caf\xe9/")

    assert label_of_folder(folder_name(name)) == name


@pytest.mark.parametrize("label", ["", "a\nb", "a\rb", "a\0b"])
def test_label_that_is_not_one_line_is_refused(label):
    with pytest.raises(DataError, match="expected a label of one line, received"):
        checked_label(label, "table.csv")


def test_label_that_is_too_long_for_a_folder_is_refused():
    assert checked_label("肺" * 50, "table.csv")
    with pytest.raises(DataError, match="at most 150 bytes as the name of a folder, received"):
        checked_label("肺" * 51, "table.csv")
    with pytest.raises(DataError, match="at most 150 bytes"):
        checked_label(":" * 51, "table.csv")
