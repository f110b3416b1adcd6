"""What a result was made from, then and now."""

import json

import pytest

from kerasmed.errors import StageError
from kerasmed.fingerprint import Difference, Fingerprint

OLD = Fingerprint(
    {"seed": 0, "diffusion": {"widths": (8, 16), "patience": None}}, {"split.json": "a" * 64}
)


def _after(**changes) -> Fingerprint:
    values = {"settings": OLD.settings, "inputs": OLD.inputs, "version": OLD.version}
    return Fingerprint(**(values | changes))


def test_record_survives_json_and_matches_only_itself():
    record = json.loads(json.dumps(OLD.as_record()))

    assert OLD.matches(record)
    assert OLD.differences(record) == []
    assert _after().digest() == OLD.digest()
    for damaged in (None, [], "", {}, {**record, "more": 1}):
        assert not OLD.matches(damaged)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"settings": OLD.settings | {"seed": 1}}, ("seed", 0, 1)),
        (
            {"settings": OLD.settings | {"diffusion": {"widths": [8], "patience": None}}},
            ("diffusion.widths", [8, 16], [8]),
        ),
        ({"settings": OLD.settings | {"new": 1}}, ("new", None, 1)),
        ({"inputs": {"split.json": "b" * 64}}, ("split.json", "a" * 64, "b" * 64)),
        ({"inputs": {}}, ("split.json", "a" * 64, None)),
        ({"version": 2}, ("format", 1, 2)),
    ],
)
def test_difference_has_its_key_and_both_values(changes, difference):
    new = _after(**changes)

    assert new.differences(OLD.as_record()) == [Difference(*difference)]
    assert not new.matches(OLD.as_record())
    assert new.digest() != OLD.digest()


def test_message_names_key_values_and_remedies_and_shortens_hashes():
    with pytest.raises(StageError) as refused:
        _after(inputs={"split.json": "b" * 64}).check(OLD.as_record(), "The set", "rerun `x`")

    assert str(refused.value) == (
        f"The set: `split.json` was {'a' * 12} when this was made and is {'b' * 12} now. Restore "
        f"{'a' * 12}, choose another --out, or rerun `x`."
    )
    OLD.check(OLD.as_record(), "The set", "rerun `x`")
