import os
import re
from pathlib import Path

import pytest

from facescale.prepare.scan import (
    LINK,
    NO_FOLDER,
    NO_MATCH,
    NOT_IN_CSV,
    NOT_ON_DISK,
    SPECIAL,
    SYSTEM,
    Scan,
    Source,
    scan,
)


def pairs(found: Scan) -> list[tuple[str, str]]:
    return [(source.key, source.identity) for source in found.sources]


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def test_the_folder_of_a_photo_is_its_identity_and_all_else_is_named(make_folder, tmp_path) -> None:
    files = ["ann/b.JPG", "ann/a.txt", "team/bob/1", "loose.jpg", ".DS_Store", "ann/._a.jpg", "@eaDir/x.jpg"]
    root = make_folder(dict.fromkeys(files, b"x"))
    (root / "ann" / "link.jpg").symlink_to(root / "loose.jpg")
    os.mkfifo(root / "ann" / "pipe.jpg")
    found = scan(root)
    assert found.sources == [
        Source("ann/a.txt", "ann"),  # content decides later what it is
        Source("ann/b.JPG", "ann"),
        Source("team/bob/1", "team/bob"),
    ]
    assert found.passed_over == {
        ".DS_Store": SYSTEM,
        "@eaDir": SYSTEM,
        "ann/._a.jpg": SYSTEM,
        "ann/link.jpg": LINK,
        "ann/pipe.jpg": SPECIAL,
        "loose.jpg": NO_FOLDER,
    }


def test_a_pattern_names_the_identities_of_flat_files_and_of_albums(make_folder) -> None:
    root = make_folder(dict.fromkeys(["ann_1.jpg", "bob_x_2.jpg", "readme"], b"x"))
    found = scan(root, pattern="(.+)_[0-9]+")
    assert pairs(found) == [("ann_1.jpg", "ann"), ("bob_x_2.jpg", "bob_x")]
    assert found.passed_over == {"readme": NO_MATCH}
    root = make_folder(dict.fromkeys(["ann/2020/1.jpg", "ann/2.jpg"], b"x"), "albums")
    assert pairs(scan(root, pattern="([^/]+)/")) == [("ann/2.jpg", "ann"), ("ann/2020/1.jpg", "ann")]


def test_a_csv_names_the_identities(make_folder, tmp_path) -> None:
    root = make_folder(dict.fromkeys(["1.jpg", "x/2.jpg", "3.jpg"], b"x"))
    labels = csv_file(tmp_path, 'identity,path\n"Doe, Ann",./1.jpg\nbob,x/2.jpg\nbob,../secret.jpg\n')
    found = scan(root, labels=labels)
    assert pairs(found) == [("1.jpg", "Doe, Ann"), ("x/2.jpg", "bob")]
    assert found.passed_over == {"3.jpg": NOT_IN_CSV, "../secret.jpg": NOT_ON_DISK}


def test_a_folder_of_photos_and_folders_is_ambiguous_but_other_files_do_not_matter(
    make_folder, make_reader
) -> None:
    photo = make_reader([0]).images[0]
    root = make_folder({"team/notes.txt": b"x", "team/bob/1.jpg": photo})
    assert ("team/bob/1.jpg", "team/bob") in pairs(scan(root))
    (root / "team" / "photo").write_bytes(photo)
    with pytest.raises(
        ValueError, match=re.escape("for the first folder of a path, pass --identity '([^/]+)/'")
    ):
        scan(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,identity\n1.jpg,a\n", "has no column 'path'; its first line must name path and identity"),
        ("path,identitty\n1.jpg,a\n", r"has no column 'identity' \(did you mean 'identitty'\?\)"),
        ("", "it has: nothing"),
        ("path,identity\n1.jpg,\n", "line 2: '1.jpg' has no identity; fill it in"),
        ("path,identity\n1.jpg,a\n1.jpg,b\n", "line 3: '1.jpg' is 'b' and 'a'; keep one"),
    ],
)
def test_a_wrong_csv_is_refused(make_folder, tmp_path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan(make_folder({"1.jpg": b"x"}), labels=csv_file(tmp_path, text))


def test_what_cannot_be_scanned_is_refused(make_folder, tmp_path) -> None:
    root = make_folder({"1.jpg": b"x"})
    with pytest.raises(ValueError, match="does not exist; give the folder that holds the photos"):
        scan(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a file; give the folder"):
        scan(root / "1.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        scan(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"belongs to an identity \(outside of identity folders\)"):
        scan(root)
    with pytest.raises(ValueError, match="is not a regular expression"):
        scan(root, pattern="(")
    with pytest.raises(ValueError, match="has no group; put the identity in parentheses"):
        scan(root, pattern="a+")
    with pytest.raises(ValueError, match="both a pattern and a CSV"):
        scan(root, pattern="(a)", labels=tmp_path / "x.csv")
    with pytest.raises(ValueError, match="cannot read the CSV"):
        scan(root, labels=tmp_path / "x.csv")
