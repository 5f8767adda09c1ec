"""Openers of the protocols that are more than pairs of images: YTF, IJB, MegaFace, TinyFace."""

from pathlib import Path

from facescale.data.spec import split_options
from facescale.evaluate.fold_rules import PAIR_RULES
from facescale.evaluate.protocols.ijb_lists import read_ijb
from facescale.evaluate.protocols.ijb_protocol import ONE_TO_N, RULES, Ijb, Setting
from facescale.evaluate.protocols.megaface import MEGAFACE_RULES, NOISES, MegaFace, read_megaface
from facescale.evaluate.protocols.options import Opening, chosen, opener
from facescale.evaluate.protocols.tinyface import TinyFace, read_tinyface
from facescale.evaluate.protocols.ytf import VideoVerification, read_ytf
from facescale.prepare.align import align


@opener
def open_ytf(path: str, how: Opening) -> VideoVerification:
    """YouTube Faces, videos as the mean of their frames, from the folder with splits.txt: ``ytf:FOLDER``.

    Options: ``root=FOLDER`` of the videos, ``rule=`` as for pairs (``ffc_video`` is F2C's).

    Raises:
        ValueError: the list is missing or damaged, or a video has no frame.
    """
    folder, options = split_options(path, ("root", "rule"))
    videos = read_ytf(Path(folder), Path(options["root"]) if "root" in options else None)
    rule = chosen(options, "rule", list(PAIR_RULES))
    return VideoVerification(how.name or "ytf", videos.limited(how.limit), *how.images, rule)


@opener
def open_tinyface(path: str, how: Opening) -> TinyFace:
    """TinyFace, closed-set rank 1, 5 and 20 among distractors: ``tinyface:FOLDER``.

    Raises:
        ValueError: a folder is missing or empty, or a name does not begin with an identity.
    """
    return TinyFace(how.name or "tinyface", read_tinyface(Path(path)).limited(how.limit), *how.images)


@opener
def open_ijb(path: str, how: Opening) -> Ijb:
    """IJB-B or IJB-C, 1:1 and 1:N, from the folder with meta/ and loose_crop/: ``ijb:FOLDER``.

    Options: ``features=FILE`` (.npy or .npz, in the order of the lists) in place of images,
    ``setting=N1D1F1``, ``rule=insightface``, ``all_points`` or ``ffc``, ``one_to_n=ijb_evals`` or ``ijb_1n``.

    Raises:
        ValueError: a list is missing or damaged, an unknown option.
    """
    folder, options = split_options(path, ("features", "setting", "rule", "one_to_n"))
    return Ijb(
        how.name or Path(folder).name,
        read_ijb(Path(folder)).limited(how.limit),
        align,
        *how.images,
        setting=Setting.parse(options.get("setting", "N1D1F1")),
        rule=chosen(options, "rule", list(RULES)),
        one_to_n=chosen(options, "one_to_n", list(ONE_TO_N)),
        features=Path(options["features"]) if "features" in options else None,
    )


@opener
def open_megaface(path: str, how: Opening) -> MegaFace:
    """MegaFace challenge 1, rank 1 and TAR among a million distractors: ``megaface:FOLDER``.

    Options: ``features=FOLDER`` reads the devkit's feature files in place of images, ``write=FOLDER`` writes
    them; ``rule=devkit`` or ``ffc``, ``noise=centre`` or ``remove``.

    Raises:
        ValueError: a list is missing or damaged, features both read and written, an unknown option.
    """
    folder, options = split_options(path, ("features", "write", "rule", "noise"))
    if {"features", "write"} <= options.keys():
        raise ValueError(f"'{path}' reads features and writes them; give one of features= and write=")
    places = {key: Path(options[key]) for key in ("features", "write") if key in options}
    return MegaFace(
        how.name or "megaface",
        read_megaface(Path(folder)).limited(how.limit),
        *how.images,
        chosen(options, "rule", MEGAFACE_RULES),
        chosen(options, "noise", NOISES),
        features=places.get("features"),
        write=places.get("write"),
    )
