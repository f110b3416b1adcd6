"""Marks of synthetic images: written into every PNG, and recognised in images of any program.

A mark is an XMP packet with IPTC's digital source type, and text chunks for programs that read no
XMP. It says which program drew the image, in which set and as which one. It names no patient, no
path and no class.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kerasmed.files import written_aside

# The note on an image that carries a mark, see ``Picture``.
SYNTHETIC: Final = "marked as synthetic"

# https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCE_TYPE: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = "XML:com.adobe.xmp"
# Also "compositeWithTrainedAlgorithmicMedia".
_MARK = re.compile(rb"trainedAlgorithmicMedia", re.IGNORECASE)
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about=""
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 Iptc4xmpExt:DigitalSourceType={source_type}
 dc:identifier={identifier}
 xmp:CreatorTool={generator}/>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


class Mark(NamedTuple):
    """What a marked image says of itself.

    Attributes:
        generator: the program that drew it, with its version.
        set_id: identifier of its set.
        number: which image of the set it is.
    """

    generator: str
    set_id: str
    number: str


def write_marked_png(path: Path, pixels: np.ndarray, mark: Mark) -> None:
    """Write a PNG that carries a mark.

    Args:
        path: the file.
        pixels: uint8 (height, width, 3).
        mark: what it says of itself.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> from kerasmed.data.marks import Mark, mark_of, write_marked_png
        >>> mark = Mark("kerasmed 0.1.0", "5f2c", "0-000001")
        >>> write_marked_png(Path("drawn.png"), np.zeros((8, 8, 3), np.uint8), mark)
        >>> mark_of(Path("drawn.png")) == mark
        True
    """
    info = PngInfo()
    for name, text in fields_of(mark).items():
        if name == _XMP:
            info.add_itxt(name, text)
        else:
            info.add_text(name, text)
    with written_aside(path) as temporary:
        Image.fromarray(pixels).save(temporary, pnginfo=info)


def fields_of(mark: Mark) -> dict[str, str]:
    """The text fields of a PNG with this mark, by their names; the XMP packet is one of them."""
    values = {"source_type": SOURCE_TYPE, "generator": mark.generator}
    values["identifier"] = f"{mark.set_id}/{mark.number}"
    return {
        _XMP: _PACKET.format(**{name: quoteattr(value) for name, value in values.items()}),
        "Software": mark.generator,
        "DigitalSourceType": SOURCE_TYPE,
        "SyntheticSet": mark.set_id,
        "SyntheticIndex": mark.number,
    }


def mark_of(path: Path) -> Mark | None:
    """What a PNG by ``write_marked_png`` says of itself; None if it is not marked so."""
    with Image.open(path) as image:
        info = image.info
    if not is_marked(info) or "SyntheticSet" not in info:
        return None
    return Mark(info["Software"], info["SyntheticSet"], info["SyntheticIndex"])


def is_marked(info: Mapping[Any, Any]) -> bool:
    """Whether what Pillow found in a file, apart from its pixels, marks it as synthetic.

    Args:
        info: ``PIL.Image.Image.info``.
    """
    found = (info.get(name) for name in (_XMP, "xmp", "DigitalSourceType"))
    texts = (text.encode(errors="replace") if isinstance(text, str) else text for text in found)
    return any(_MARK.search(text) for text in texts if isinstance(text, bytes))
