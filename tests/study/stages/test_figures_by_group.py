"""The figures of a study are over the groups of its split."""

from functools import wraps
from inspect import signature

import numpy as np
import pytest

from kerasmed.audit import privacy, spaces
from kerasmed.study.config import parse_config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import evaluate
from kerasmed.study.stages.audit import audit_synthetic
from kerasmed.study.stages.evaluate import evaluate_classifiers


@pytest.fixture
def handed_in(monkeypatch):
    """``handed_in(module, function, argument)``: values of an argument, call by call."""

    def spy(module, function: str, argument: str) -> list:
        original, values = getattr(module, function), []

        @wraps(original)
        def spied(*args, **options):
            values.append(signature(original).bind(*args, **options).arguments.get(argument))
            return original(*args, **options)

        monkeypatch.setattr(module, function, spied)
        return values

    return spy


@pytest.fixture
def study(run_copy):
    run = RunFolder(run_copy)
    config = parse_config(run.record()["config"], "test")
    _, split, groups = load_grouped_split(config, run)
    return config, run, {role: groups[split[role]] for role in ("train", "reserve", "test")}


def test_accuracies_and_differences_are_over_groups(study, handed_in):
    config, run, groups = study
    metrics = handed_in(evaluate, "classification_metrics", "groups")
    compared = handed_in(evaluate, "compare_regimes", "groups")

    evaluate_classifiers(config, run)
    assert metrics
    assert compared
    for given in metrics + compared:
        np.testing.assert_array_equal(given, groups["test"])


def test_fidelity_and_privacy_are_over_groups(study, handed_in):
    config, run, groups = study
    fidelity = handed_in(spaces, "fidelity_by_class", "groups")
    copying = handed_in(privacy, "memorisation", "groups")
    searched = handed_in(privacy, "search_copies", "groups")
    members = handed_in(privacy, "membership_inference", "member_groups")
    others = handed_in(privacy, "membership_inference", "other_groups")

    audit_synthetic(config, run)
    assert fidelity
    for given in fidelity:
        np.testing.assert_array_equal(given["train"], groups["train"])
        np.testing.assert_array_equal(given["reserve"], groups["reserve"])
    assert (len(copying), len(searched)) == (2, 1)
    for given in [*copying, searched[0]["reserve"]]:
        np.testing.assert_array_equal(given, groups["reserve"])
    np.testing.assert_array_equal(searched[0]["test"], groups["test"])
    assert set(members[0]) <= set(groups["train"])
    assert set(others[0]) <= set(groups["reserve"])
