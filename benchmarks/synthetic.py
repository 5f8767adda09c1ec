"""Synthetic faces: images/s on one core, against drawing similar faces with Pillow."""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from facescale.data.synthetic.faces import SyntheticFaces
from facescale.data.synthetic.people import Person, Photo, person, photo
from facescale.data.synthetic.render import aligned_pose

IMAGES_PER_ID = 20
SUPERSAMPLING = 2  # Pillow's shapes have hard edges: draw larger, then shrink


def pillow_face(who: Person, shot: Photo, rng: np.random.Generator) -> np.ndarray:
    """The parts of a face as ImageDraw shapes, then light, blur and noise the usual way."""
    pose, scale = aligned_pose(who, shot), SUPERSAMPLING
    coarse = rng.uniform(0, 255, (6, 6, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((112 * scale, 112 * scale), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)

    def ellipse(x: float, y: float, z: float, a: float, b: float, fill: tuple[int, int, int]) -> None:
        centre, zoom = pose.at(x, y, z) * scale, abs(pose.axis) * scale
        a, b = a * zoom, b * zoom
        draw.ellipse((centre.real - a, centre.imag - b, centre.real + a, centre.imag + b), fill=fill)

    hair, skin = (90, 60, 40), (220, 170, 140)
    ellipse(0, -12, -14, who.face_width + who.hair_volume, 60, hair)
    for side in (-1, 1):
        ellipse(side * (who.face_width + 1.5), -8, -16, 4.5, 9, skin)
    ellipse(0, 0, -4, who.face_width, 45, skin)
    for x, y in who.moles:
        ellipse(x, y, 10, 1.5, 1.5, (80, 50, 40))
    ellipse(0, who.nose_drop, 20, who.nose_width, 4.6, (190, 145, 120))
    for side in (-1, 1):
        ellipse(side * who.nose_width * 0.5, who.nose_drop + 2.8, 16, 1.8, 1.3, (70, 50, 40))
        ellipse(side * who.eye_gap, -20, 8, who.eye_width + 1.5, who.eye_height + 3.5, (180, 140, 115))
        ellipse(side * who.eye_gap, -20, 8, who.eye_width, who.eye_height, (240, 236, 234))
        ellipse(side * who.eye_gap + shot.gaze, -20, 8, 3.5, 3.5, (80, 120, 160))
        ellipse(side * who.eye_gap + shot.gaze, -20, 8, 1.5, 1.5, (8, 8, 8))
        ellipse(side * who.eye_gap, -20 - who.brow_height, 8, who.eye_width + 2, who.brow_weight, hair)
    ellipse(0, who.mouth_drop, 11, who.mouth_width, 2 * who.lip, (180, 90, 90))
    ellipse(0, who.mouth_drop, 11, who.mouth_width, 0.5 + shot.mouth_open / 2, (50, 15, 15))
    image = image.resize((112, 112), Image.Resampling.BOX)
    if shot.blur:
        image = image.filter(ImageFilter.GaussianBlur(0.7 * shot.blur))
    pixels = np.asarray(image, dtype=np.float32)
    grid = np.linspace(-1, 1, 112)
    light = shot.ambient + (1 - shot.ambient) * np.clip(
        1 + shot.light[0] * grid + shot.light[1] * grid[:, None], 0, 2
    )
    pixels = pixels * light[..., None] * shot.brightness * np.array(shot.tint)
    pixels += rng.normal(0, shot.noise, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def rate(paint: Callable[[int], object], images: int) -> float:
    """Images a second of processor time (other load does not count), best of three."""
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        for i in range(images):
            paint(i)
        best = max(best, images / (time.process_time() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    images = parser.parse_args().images
    faces, rng = SyntheticFaces(images, IMAGES_PER_ID), np.random.default_rng(0)

    def with_pillow(index: int) -> object:
        number, shot = divmod(index, IMAGES_PER_ID)
        return pillow_face(person(0, number), photo(0, number, shot, 1.0), rng)

    ours, pillow = rate(lambda i: faces[i], images), rate(with_pillow, images)
    print(f"{platform.processor() or platform.machine()}, one core, 112x112, {images} images")
    print(f"facescale SyntheticFaces   {ours:7.0f} images/s")
    print(f"Pillow ImageDraw           {pillow:7.0f} images/s (ellipses only: no jaw, hairline, lids, ...)")
    print(f"ratio                      {ours / pillow:7.2f}")


if __name__ == "__main__":
    main()
