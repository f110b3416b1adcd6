"""Which images a CNN learns from, and when."""

import pytest
from classify.small_network import small_network
from conftest import phantom_set

from kerasmed.classify import network
from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.model import ImageClassifier
from kerasmed.classify.recipes import phases_of, recipes_of
from kerasmed.errors import ConfigError
from kerasmed.study.config import parse_config

SETS = {
    name: phantom_set(per_class=n) for name, n in (("train", 3), ("synthetic", 5), ("reserve", 2))
}


@pytest.mark.parametrize(
    ("regime", "images"),
    [
        ("real", [["train"]]), ("real_best", [["train"]]), ("synthetic", [["synthetic"]]),
        ("both", [["train", "synthetic"]]),
        ("pretrained", [["synthetic"], ["train"]]), ("real_twice", [["train"], ["train"]]),
    ],
)  # fmt: skip
def test_a_regime_says_which_images_come_when(regime, images):
    phases = phases_of(regime, ClassifierConfig(finetune_epochs=7), SETS)
    assert [[id(s) for s in phase.sets()] for phase in phases] == [
        [id(SETS[name]) for name in names] for names in images
    ]
    assert sum(phase.settings.finetune_epochs for phase in phases) == 7


def test_a_quarter_of_what_both_shows_is_synthetic(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "build_network", small_network)
    small = {"weights": "none", "input_size": 32, "batch_size": 8, "augment": "none"}
    model = ImageClassifier.from_preset("MobileNet", SETS["train"], **small)
    many = phantom_set(per_class=40)
    together, sources = model._together(SETS["train"], None, many)
    shown = sources.shown()
    assert shown[len(SETS["train"]) :].sum() / shown.sum() == pytest.approx(0.25)
    assert len(together) == len(shown) == 86


def test_the_ceiling_learns_from_train_and_reserve():
    (phase,) = phases_of("real_all", ClassifierConfig(), SETS)
    assert len(phase.images) == 10


@pytest.mark.parametrize(("fraction", "first"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_each_phase_has_an_epoch_at_least(fraction, first):
    settings = ClassifierConfig(finetune_epochs=4, first_phase=fraction)
    phases = phases_of("pretrained", settings, SETS)
    assert [phase.settings.finetune_epochs for phase in phases] == [first, 4 - first]


def test_second_phase_has_the_settings_of_the_first_unless_named():
    _, second = phases_of("pretrained", ClassifierConfig(), SETS)
    assert second.settings.finetune_learning_rate == 1e-4
    assert second.settings.finetune_fraction == 1.0


def test_two_phases_in_one_epoch_are_refused():
    classifiers = {"train_on": ["real", "pretrained"], "finetune_epochs": 1}
    values = {"name": "x", "data": {"phantoms": {}}, "classifiers": classifiers}
    with pytest.raises(ConfigError, match="pretrained need two epochs or more"):
        parse_config(values, "test")


def test_the_best_baseline_gets_everything_that_needs_no_synthetic_image():
    recipes = recipes_of(phases_of("real_best", ClassifierConfig(finetune_epochs=6), SETS))
    assert {
        name: [(p.settings.finetune_epochs, p.settings.mixing) for p in phases]
        for name, phases in recipes.items()
    } == {
        "as set": [(6, "none")], "mixup": [(6, "mixup")], "cutmix": [(6, "cutmix")],
        "half of the epochs": [(3, "none")], "twice the epochs": [(12, "none")],
        "two phases": [(3, "none"), (3, "none")],
    }  # fmt: skip
    assert all(p.sets() == [SETS["train"]] for phases in recipes.values() for p in phases)
