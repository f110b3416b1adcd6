"""Whether the paths of files name patients, and the ``split.pattern`` that finds them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasmed.data.readers import stem_of

# What speaks for names of patients: so many images of each on average, so many patients of each
# class (a split has four roles), none with more than this fraction of the images, and this
# fraction of all images named.
_IMAGES_OF_EACH, _PATIENTS_OF_CLASS, _LARGEST, _NAMED = 1.5, 4, 0.2, 0.25
# Names that follow more forms than these are more likely random characters.
_MOST_FORMS = 8
_EXAMPLES = 3

_TOKENS = re.compile(r"[A-Za-z]+|[0-9]+|[^A-Za-z0-9]+")
# A day or a month, such as 20150619 or 2015-06, which is no patient.
_DATE = re.compile(r"(19|20)\d\d[-_. ]?(0[1-9]|1[0-2])([-_. ]?(0[1-9]|[12]\d|3[01]))?$")


@dataclass(frozen=True)
class PatientPattern:
    """A regular expression that finds patients in the paths of a set.

    Attributes:
        pattern: for ``split.pattern``. Its first group is the patient; for a file that names none,
            it is the name of the file.
        patients: number of different patients.
        named: number of files that name one.
        files: number of all files.
        in_several_classes: number of patients with images of several classes.
        examples: some patients, each with the paths of two of its files.
    """

    pattern: str
    patients: int
    named: int
    files: int
    in_several_classes: int
    examples: tuple[tuple[str, tuple[str, ...]], ...]


def find_patient_pattern(paths: Sequence[str], class_names: Sequence[str]) -> PatientPattern | None:
    """The pattern of the patients whom folders below the classes, or names of files, name.

    Names are compared by their form, such as letters, a number, "_", a number. The beginning of a
    form names patients if it repeats: each with several images, none with a large fraction of them,
    and several in each class. So a class is no patient, nor is a running number or a date.

    Args:
        paths: of the files, relative to the source, with "/" between folders.
        class_names: the class of each.

    Returns:
        None without such evidence.

    Example:
        >>> names = [f"ill/person{i // 2}_{i}.png" for i in range(20)]
        >>> found = find_patient_pattern(names, ["ill"] * 20)
        >>> found.pattern, found.patients
        ('(person\\\\d+)[^/]*$', 10)
        >>> found.examples[0]
        ('person0', ('ill/person0_0.png', 'ill/person0_1.png'))
    """
    for above, is_patient in _folders(paths):
        if _repeat(is_patient, class_names):
            pattern = "([^/]+)" + "/[^/]+" * above + "$"
            return _described(pattern, pattern, paths, class_names)
    forms = _forms_of_patients([stem_of(Path(path)) for path in paths], class_names)
    if not forms or len(forms) > _MOST_FORMS:
        return None
    patients = "|".join(forms)
    named = rf"(?:^|/)({patients})[^/]*$"
    if all(re.search(named, path) for path in paths):
        return _described(rf"({patients})[^/]*$", named, paths, class_names)
    return _described(rf"({patients}|[^/]+$)[^/]*$", named, paths, class_names)


def _folders(paths: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The names of the folders that all files have above them, the outermost first."""
    folders = [path.split("/")[:-1] for path in paths]
    for above in range(min(map(len, folders), default=0), 0, -1):
        yield above, [names[-above] for names in folders]


def _repeat(names: Sequence[str], class_names: Sequence[str]) -> bool:
    """Whether names look like those of patients, each with several images."""
    counts = Counter(names)
    return (
        len(counts) >= _PATIENTS_OF_CLASS * len(set(class_names))
        and len(names) >= _IMAGES_OF_EACH * len(counts)
        and max(counts.values()) <= _LARGEST * len(names)
    )


def _forms_of_patients(stems: list[str], class_names: Sequence[str]) -> list[str]:
    """Regular expressions of the beginnings of names that are patients, the longest first."""
    rows_of_form: dict[tuple[str, ...], list[int]] = {}
    tokens = [_TOKENS.findall(stem) for stem in stems]
    for row, of_name in enumerate(tokens):
        rows_of_form.setdefault(tuple(map(_kind, of_name)), []).append(row)
    forms = {
        _beginning([tokens[row] for row in rows], [class_names[row] for row in rows], len(stems))
        for rows in rows_of_form.values()
    }
    return sorted(filter(None, forms), key=lambda form: (-len(form), form))


def _kind(token: str) -> str:
    """Letters, a number, or the separator itself."""
    if not token[0].isascii():
        return token
    return "letters" if token[0].isalpha() else "number" if token[0].isdecimal() else token


def _beginning(names: list[list[str]], class_names: list[str], files: int) -> str | None:
    """The shortest beginning of names of one form that is a patient, as a regular expression."""
    kinds = list(map(_kind, names[0]))
    for end in range(1, len(kinds)):
        before, after = kinds[end - 1], kinds[end]
        if before not in ("letters", "number"):
            continue
        # Random characters too have letters next to digits, but not the same way in most names.
        if after in ("letters", "number") and len(names) < files / 2:
            continue
        beginnings = ["".join(name[:end]) for name in names]
        if all(map(_DATE.search, beginnings)):
            return None
        if _repeat(beginnings, class_names):
            return "".join(map(_expression, zip(*(name[:end] for name in names), strict=True)))
    return None


def _expression(column: tuple[str, ...]) -> str:
    """A regular expression for the tokens that names of one form have in one place."""
    if len(set(column)) > 1:
        return r"\d+" if _kind(column[0]) == "number" else "[A-Za-z]+"
    return re.sub(r"([\\.^$*+?{}\[\]|()])", r"\\\1", column[0])


def _described(
    pattern: str, named: str, paths: Sequence[str], class_names: Sequence[str]
) -> PatientPattern | None:
    """The pattern with what it finds, or None if that is too few files."""
    rows_of: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if (match := re.search(named, path)) is not None:
            rows_of.setdefault(match[1], []).append(row)
    found = sum(map(len, rows_of.values()))
    if found < _NAMED * len(paths):
        return None
    several = [patient for patient, rows in rows_of.items() if len(rows) > 1]
    examples = several[:: max(1, len(several) // _EXAMPLES)][:_EXAMPLES]
    classes_of = ({class_names[row] for row in rows} for rows in rows_of.values())
    return PatientPattern(
        pattern=pattern,
        patients=len(rows_of),
        named=found,
        files=len(paths),
        in_several_classes=sum(len(classes) > 1 for classes in classes_of),
        examples=tuple(
            (patient, tuple(paths[row] for row in rows_of[patient][:2])) for patient in examples
        ),
    )
