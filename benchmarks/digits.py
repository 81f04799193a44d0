"""Pictures of digits drawn from fonts, as frames, and their words: data for a model that reads vectors.

    python benchmarks/digits.py FOLDER [--train N] [--dev N] [--test N] [--seed N]

A picture is 16 pixels high and as wide as its three to six digits, drawn in one of the DejaVu fonts that come
with Matplotlib, of any size from 11 to 15, spaced, shifted and shaded at random, with noise over it. A frame
is two columns of pixels from left to right, 32 numbers from about -1 (paper) to 1 (ink). The target says the
digits in words: "three one four".

FOLDER gets {train,dev,test}.npy, float32 [frames, 32], with {train,dev,test}.lengths.npy, and
{train,dev,test}.words; docs/vectors.md describes the format. The same seed gives the same files with the
same versions of Matplotlib and Pillow. No sequence of digits is in two of the three sets.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Oblique")
HEIGHT, COLUMNS = 16, 2  # pixels: of a picture, and of a frame
SIZES = range(11, 16)  # of fonts, in pixels
FEATURES = HEIGHT * COLUMNS
COUNTS = {"train": 20_000, "dev": 500, "test": 1_000}  # pictures


def load_fonts() -> list[ImageFont.FreeTypeFont]:
    """Returns every font in every size."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [ImageFont.truetype(folder / f"{name}.ttf", size) for name in FONTS for size in SIZES]


def draw(digits: str, fonts: list[ImageFont.FreeTypeFont], rng: np.random.Generator) -> np.ndarray:
    """Returns a picture of the digits as float32 [frames, FEATURES]."""
    font = fonts[rng.integers(len(fonts))]
    gaps = rng.integers(0, 4, len(digits) + 1)
    advances = [round(font.getlength(digit)) for digit in digits]
    width = int(gaps.sum() + sum(advances) + 2)
    width += -width % COLUMNS
    picture = Image.new("L", (width, HEIGHT))
    pen, x = ImageDraw.Draw(picture), 0
    for digit, gap, advance in zip(digits, gaps, advances, strict=False):
        x += int(gap)
        pen.text((x, HEIGHT // 2 + int(rng.integers(-1, 2))), digit, fill=255, font=font, anchor="lm")
        x += advance
    ink = np.asarray(picture, np.float32) / 255
    shaded = (2 * ink - 1) * rng.uniform(0.7, 1.0) + rng.normal(0, 0.15, ink.shape)
    columns = shaded.T.reshape(width // COLUMNS, FEATURES)  # two columns, each from top to bottom
    return columns.astype(np.float32)


def write(folder: Path, split: str, sequences: list[str], rng: np.random.Generator) -> None:
    """Draws the sequences and writes the three files of a split."""
    fonts = load_fonts()
    pictures = [draw(digits, fonts, rng) for digits in sequences]
    np.save(folder / f"{split}.npy", np.concatenate(pictures))
    np.save(folder / f"{split}.lengths.npy", np.array([len(picture) for picture in pictures]))
    lines = (" ".join(WORDS[int(digit)] for digit in digits) for digits in sequences)
    (folder / f"{split}.words").write_text("".join(f"{line}\n" for line in lines))


def make(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Writes so many pictures of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < sum(counts.values()):
        drawn["".join(map(str, rng.integers(0, 10, rng.integers(3, 7))))] = None
    sequences = iter(drawn)
    for split, count in counts.items():
        write(folder, split, [next(sequences) for _ in range(count)], rng)


def main() -> None:
    """Writes the data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the files go")
    for split, count in COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=count, metavar="N", help=f"pictures ({count:,})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is drawn (0)")
    args = parser.parse_args()
    make(args.folder, {split: getattr(args, split) for split in COUNTS}, args.seed)


if __name__ == "__main__":
    main()
