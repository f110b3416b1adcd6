"""Says what the figures were measured on."""

from kerasmed.runtime import load_keras, machine, versions

# Before any benchmark imports Keras, so that TensorFlow's notices stay off the table.
load_keras()


def pytest_report_header() -> list[str]:
    return [
        ", ".join(f"{key} {value}" for key, value in machine().items()),
        ", ".join(f"{key} {value}" for key, value in versions().items()),
    ]
