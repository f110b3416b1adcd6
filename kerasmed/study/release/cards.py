"""Cards of a release: a data sheet, a scorecard and a checklist for people, others for programs."""

from pathlib import Path
from typing import Any

from kerasmed.files import sha256_of, write_json, write_text
from kerasmed.study.release.templates import rendered

# The template of each card in Markdown. README.md is what Hugging Face shows of a data set.
MARKDOWN = {
    "DATASHEET.md": "datasheet.md.j2",
    "README.md": "huggingface.md.j2",
    "SCORECARD.md": "scorecard.md.j2",
    "CLAIM.md": "claim.md.j2",
}
CROISSANT = "croissant.json"
_BLANK = "to be stated by those who release it"

_TERMS = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write_cards(facts: dict[str, Any], image_format: str, folder: Path) -> None:
    """Write every card of a release.

    Args:
        facts: see ``facts_of``; also ``models``, names of the CNNs that are in the folder.
        image_format: "png" or "dicom".
        folder: the release, with its images and ``labels.csv``.
    """
    values = facts | {"image_format": image_format}
    for name, template in MARKDOWN.items():
        write_text(folder / name, rendered(template, values))
    write_json(folder / CROISSANT, croissant(values, folder / "labels.csv"))


def croissant(facts: dict[str, Any], labels: Path) -> dict[str, Any]:
    """The set in Croissant 1.0 (JSON-LD), with its responsible-AI fields.

    Args:
        facts: see ``write_cards``.
        labels: the file ``labels.csv``.

    Source: http://mlcommons.org/croissant/1.0 and http://mlcommons.org/croissant/RAI/1.0
    """
    suffix, kind = {"png": ("png", "image/png"), "dicom": ("dcm", "application/dicom")}[
        facts["image_format"]
    ]
    published = facts["published"]
    answers = {verdict["question"]: verdict for verdict in facts["verdicts"]}
    total = sum(facts["counts"].values())

    def answer(question: str) -> str:
        verdict = answers[question]
        return f"{question.capitalize()}: {verdict['light']}. {verdict['answer']}"

    def field(name: str, column: str, what: str) -> dict[str, Any]:
        source = {"fileObject": {"@id": "labels.csv"}, "extract": {"column": column}}
        return {
            "@type": "cr:Field", "@id": f"images/{name}", "name": name, "description": what,
            "dataType": "sc:Text", "source": source,
        }  # fmt: skip

    made = (
        "Every image was drawn by a class-conditional diffusion model"
        f"{' and enlarged by an upscaler' if facts['upscaling'] else ''} (kerasmed "
        f"{facts['version']})."
        if facts["training"]
        else "Another program made the images, and kerasmed judged them."
    )
    return {
        "@context": _TERMS,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": facts["name"],
        "description": f"{total} synthetic images of {len(facts['counts'])} classes. {made}",
        "identifier": facts["set_id"],
        "version": "1.0.0",
        "datePublished": facts["provenance"]["finished"]["audit"][:10],
        "license": facts["licence"] or (published.licence if published else _BLANK),
        "citeAs": f"{facts['by'] or _BLANK}; synthetic images {facts['set_id']}, kerasmed",
        "creator": {"@type": "Organization", "name": facts["by"] or _BLANK},
        "url": _BLANK,
        "isLiveDataset": False,
        "keywords": ["synthetic", "medical imaging", "image classification"],
        "rai:dataCollection": made,
        "rai:dataCollectionType": ["Others"],
        "rai:dataPreprocessingProtocol": [
            f"Squares of {facts['size']} x {facts['size']} pixels, 8 bits a channel."
        ],
        "rai:dataAnnotationProtocol": "The label of an image is the class it was drawn for.",
        "rai:dataBiases": [
            f"Class {name}: {words}." for name, words in facts["variety"].items()
        ],
        "rai:dataLimitations": [
            answer("faithful"), answer("useful"), "Not for diagnosis. Rare findings may lack.",
        ],
        "rai:personalSensitiveInformation": [
            "No image is of a person. The model learned from real medical images. "
            + answer("private")
        ],
        "rai:dataUseCases": ["Training of image classifiers, as far as the answers above allow."],
        "distribution": [
            {
                "@type": "cr:FileObject", "@id": "labels.csv", "name": "labels.csv",
                "description": "The class of each image.", "contentUrl": "labels.csv",
                "encodingFormat": "text/csv", "sha256": sha256_of(labels),
            },
            {
                "@type": "cr:FileSet", "@id": "image-files", "name": "image-files",
                "description": "The images, in a folder for each class.",
                "encodingFormat": kind, "includes": f"images/*/*.{suffix}",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet", "@id": "images", "name": "images",
                "description": "One record for each image.",
                "key": {"@id": "images/file"},
                "field": [
                    field("file", "file", "Path of the image."),
                    field("label", "label", "Its class."),
                ],
            }
        ],
    }  # fmt: skip
