"""Streams of random numbers: one a purpose and item, none shared, none drawn elsewhere."""

import re
from pathlib import Path

import numpy as np
import pytest

import kerasmed
from kerasmed.random_streams import Purpose, derived_seed, random_stream

PACKAGE = Path(kerasmed.__file__).parent


def numbers(*arguments) -> bytes:
    return random_stream(*arguments).integers(2**63, size=4).tobytes()


def test_a_stream_repeats():
    assert numbers(7, Purpose.MASKS, 3) == numbers(7, Purpose.MASKS, 3)


def test_no_two_purposes_seeds_or_items_share_a_stream():
    # NumPy takes [7, 3] and [7, 3, 0] for one seed; here a 0 is an item like any other.
    keys = [(), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (1,), (0, 1), (1, 0), (2**31 - 1,)]
    streams = [
        numbers(seed, purpose, *key) for seed in (0, 1, 36) for purpose in Purpose for key in keys
    ]
    assert len(set(streams)) == len(streams) == 3 * len(Purpose) * len(keys)
    assert np.random.default_rng([7, 3]).random() == np.random.default_rng([7, 3, 0]).random()


def test_derived_seeds_differ_and_suit_keras():
    seeds = [derived_seed(0, purpose) for purpose in Purpose]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def _source() -> dict[str, str]:
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "random_streams.py")
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in paths}


@pytest.mark.parametrize("purpose", Purpose, ids=lambda purpose: purpose.name)
def test_each_purpose_is_used_in_one_place(purpose):
    uses = {
        name: len(re.findall(rf"Purpose\.{purpose.name}\b", text))
        for name, text in _source().items()
    }
    assert sum(uses.values()) == 1, {name: count for name, count in uses.items() if count}


def test_nothing_else_makes_a_generator():
    makes_generator = re.compile(
        r"default_rng|SeedSequence|RandomState|np\.random\.(seed|rand|choice|perm)"
    )
    examples = re.compile(r"^ *>>>.*$", re.MULTILINE)
    code = {name: examples.sub("", text) for name, text in _source().items()}
    assert not [name for name, text in code.items() if makes_generator.search(text)]
