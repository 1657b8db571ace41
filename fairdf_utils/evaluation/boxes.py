"""Pictures with what was found in them: boxes, verdicts, and captions that travel with the picture."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fairdf_utils.figures.style import FAKE, REAL

SMALLEST, LARGEST = 320, 1280  # pixels, longer side of an annotated picture
TEXT = 16  # pixels
MARGIN = 6  # pixels, around text


def annotate(image: np.ndarray, boxes: list, labels: list[str], height: int | None = None, note: str = ""):
    """A picture with a labelled box around every face.

    Parameters
    ----------
    image : uint8 (H, W, 3)
    boxes : left, top, right, bottom in pixels of the image; may reach outside
    labels : beginning with "real" or "fake", which decides the colour
    height : of the result, pixels; by default its longer side is that of the image, brought into 320..1280
    note : text in the lower left corner

    Returns
    -------
    PIL image; text and lines have the same size in every picture
    """
    longer = max(image.shape[:2])
    scale = height / image.shape[0] if height else np.clip(longer, SMALLEST, LARGEST) / longer
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for box, label in zip(boxes, labels, strict=True):
        colour, ink = (FAKE, "white") if label.startswith("fake") else (REAL, "black")
        edges = np.clip(np.multiply(box, scale).round(), 0, np.array(size * 2) - 1).tolist()
        draw.rectangle(edges, outline="white", width=5)  # seen on dark clothes as well
        draw.rectangle(edges, outline=colour, width=3)
        _tag(draw, edges[0], edges[1] - TEXT - 2 * MARGIN, label, colour, ink)
    if note:
        _tag(draw, 0, size[1] - TEXT - 2 * MARGIN, note, "white", "black")
    return picture


def _tag(draw, left: float, top: float, text: str, fill: str, ink: str) -> None:
    """Text on a ground of its own, moved into the picture where it would reach outside."""
    font = ImageFont.load_default(TEXT)
    width, height = font.getlength(text) + 2 * MARGIN, TEXT + 2 * MARGIN
    left, top = max(0, min(left, draw.im.size[0] - width)), max(0, top)
    draw.rectangle((left, top, left + width, top + height), fill=fill)
    draw.text((left + MARGIN, top + MARGIN), text, fill=ink, font=font)


def side_by_side(pictures: list[Image.Image], captions: list[str]) -> Image.Image:
    """Pictures in a row, with lines of text below that are wrapped to fit."""
    width = max(SMALLEST, sum(p.width for p in pictures) + MARGIN * (len(pictures) - 1))
    font = ImageFont.load_default(TEXT)
    lines = [line for caption in captions for line in _wrapped(caption, width - 2 * MARGIN, font)]
    above = max(p.height for p in pictures)
    sheet = Image.new("RGB", (width, above + len(lines) * (TEXT + MARGIN) + 2 * MARGIN), "white")
    x = 0
    for picture in pictures:
        sheet.paste(picture, (x, 0))
        x += picture.width + MARGIN
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN, above + MARGIN + number * (TEXT + MARGIN)), line, fill="black", font=font)
    return sheet


def _wrapped(text: str, width: int, font) -> list[str]:
    """The text's words in lines that are no wider than `width` pixels, if each word is not."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]
