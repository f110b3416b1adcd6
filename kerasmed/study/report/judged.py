"""The page about a synthetic set that another program may have made."""

from pathlib import Path
from typing import Any

from kerasmed import __version__
from kerasmed.audit.tables import spaces_of
from kerasmed.data.image_set import ImageSet, Roles
from kerasmed.files import write_text
from kerasmed.study.report.figures import draw_histograms, draw_spectra, draw_strength
from kerasmed.study.report.fonts import fonts_for
from kerasmed.study.report.page import page_environment
from kerasmed.study.report.pictures import draw_grid, draw_means, draw_pairs, six_of
from kerasmed.text import printable


def render_judged(
    roles: Roles, synthetic: ImageSet, results: dict[str, Any], figures: Path, path: Path
) -> None:
    """Write the page.

    Args:
        roles: the real images.
        synthetic: the synthetic set.
        results: answers and figures, see ``Verdicts.to_dict``.
        figures: folder for the pictures, which the page contains.
        path: path of the page.
    """
    with fonts_for(map(printable, synthetic.class_names)):
        draw_grid(roles.train, figures / "real.png")
        draw_grid(synthetic, figures / "synthetic.png")
        draw_means(roles.train, synthetic, figures / "means.png")
        draw_spectra(results["appearance"], figures / "spectra.png")
        draw_strength(results["appearance"], figures / "strength.png")
        draw_histograms(results["appearance"], figures / "histograms.png")
        draw_pairs(results["privacy"], synthetic, roles.train, figures / "pairs.png")
    page = (
        page_environment()
        .get_template("judged.html.j2")
        .render(
            version=__version__,
            classes=synthetic.class_names,
            counts={
                **{name: real.counts() for name, real in roles},
                "synthetic": synthetic.counts(),
            },
            spaces=spaces_of(results["fidelity"]),
            figures=figures,
            six={"real": six_of(roles.train), "synthetic": six_of(synthetic)},
            **results,
        )
    )
    write_text(path, page)
