"""Edit lists: images and identities dropped, moved and merged without repacking."""

import os

import pytest

from facescale.data import open_reader
from facescale.data.readers.edits import Edits, edited, read_edits, write_edits

HEADER = "action,name,into\n"


@pytest.fixture
def edit(make_folder, tmp_path):
    """Opens ann (2 images), bob (3) and cy (1) as a list of edits leaves them."""
    folder = make_folder()

    def opened(*lines: str, min_images: int = 1):
        (tmp_path / "edits.csv").write_text(HEADER + "".join(f"{line}\n" for line in lines))
        return open_reader(folder, edits=[tmp_path / "edits.csv"], min_images=min_images)

    return opened


def what(reader) -> list[tuple[str, str]]:
    return [(reader.key(i), reader.names[reader[i][1]]) for i in range(len(reader))]


ANN = [("ann/0.jpg", "ann"), ("ann/1.jpg", "ann")]
BOB = [(f"bob/{n}.jpg", "bob") for n in range(3)]
CY = [("cy/0.jpg", "cy")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ANN + BOB + CY),
        (["drop_image,bob/1.jpg,"], [*ANN, BOB[0], BOB[2], *CY]),
        (["drop_image,bob/1.jpg"], [*ANN, BOB[0], BOB[2], *CY]),
        (["drop_image,cy/0.jpg,"], ANN + BOB),
        (["drop_identity,bob,"], ANN + CY),
        (["merge_identity,cy,ann"], [*ANN, *BOB, ("cy/0.jpg", "ann")]),
        (["move_image,bob/0.jpg,cy"], [*ANN, ("bob/0.jpg", "cy"), *BOB[1:], *CY]),
        (["merge_identity,cy,bob", "merge_identity,bob,ann"], ANN + [(key, "ann") for key, _ in BOB + CY]),
        (["merge_identity,cy,bob", "drop_identity,bob,"], ANN),
        (
            ["move_image,ann/0.jpg,cy", "merge_identity,cy,bob"],
            [("ann/0.jpg", "bob"), ANN[1], *BOB, ("cy/0.jpg", "bob")],
        ),
        (["drop_identity,bob,", "move_image,bob/2.jpg,cy"], [*ANN, ("bob/2.jpg", "cy"), *CY]),
    ],
)
def test_a_set_becomes_what_the_lines_say(edit, lines: list[str], expected: list[tuple[str, str]]):
    assert what(edit(*lines)) == expected


def test_small_identities_are_left_out_after_the_edits(edit):
    assert edit("merge_identity,cy,ann", min_images=3).num_ids == 2
    assert edit("drop_image,ann/0.jpg,", min_images=2).num_ids == 1


def test_joined_sources_are_edited_by_their_labels(make_folder, tmp_path):
    a, b = make_folder(), make_folder(name="more")
    write_edits(tmp_path / "e.csv", Edits({f"{a}/ann/0.jpg": None}, {f"{b}/cy": f"{a}/cy"}))
    reader = open_reader([a, b], edits=[tmp_path / "e.csv"])
    assert (len(reader), reader.num_ids) == (11, 5)
    assert reader.names[reader[10][1]] == f"{a}/cy"
    assert reader.sources.tolist() == [0] * 5 + [1] * 6


def test_names_of_any_bytes_make_the_round_trip(tmp_path):
    names = ["=1+2", "'=x", 'a "b", c', "two\nlines", os.fsdecode(b"J\xfcrgen"), " lead", "ö"]
    edits = Edits({name: None for name in names}, {name: "@into" for name in names})
    write_edits(tmp_path / "e.csv", edits)
    assert read_edits([tmp_path / "e.csv"]) == edits
    assert ",'=1+2," in (tmp_path / "e.csv").read_text(errors="surrogateescape"), (
        "no formula for spreadsheets"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "must begin with the line action,name,into"),
        ("drop_image,x,\n", "must begin with the line action,name,into"),
        (
            HEADER + "drop_images,x,\n",
            r"line 2 of '.*' has the action 'drop_images' \(did you mean 'drop_image'\?\)",
        ),
        (HEADER + "drop_image,,\n", "line 2 of '.*' must be drop_image,NAME,$"),
        (HEADER + "drop_image,x,y\n", "must be drop_image,NAME,$"),
        (HEADER + "merge_identity,x\n", "must be merge_identity,NAME,INTO"),
        (HEADER + "move_image,x,y,z\n", "must be move_image,NAME,INTO"),
        (HEADER + "drop_identity,x,\nmerge_identity,x,y\n", "line 3 of '.*' says of 'x' something else than"),
        (HEADER + '"x"y,x,\n', "line 2 of '.*' is not a CSV"),
    ],
)
def test_a_list_that_cannot_be_is_answered_in_one_sentence(tmp_path, text: str, sentence: str):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_edits([tmp_path / "e.csv"])


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        (Edits({"ann/7.jpg": None}), "name 1 images that the data does not have, such as 'ann/7.jpg'"),
        (
            Edits({}, {"zoe": None, "yan": None}),
            "name 2 identities that the data does not have, such as 'zoe'",
        ),
        (Edits({"ann/0.jpg": "zoe"}), "name 1 identities that the data does not have, such as 'zoe'"),
        (
            Edits({}, {"ann": "bob", "bob": "cy", "cy": "ann"}),
            r"merge 'ann' into itself \(ann -> bob -> cy -> ann\)",
        ),
        (Edits({}, {"ann": None, "bob": "ann", "cy": "ann"}), "the edit lists drop every image"),
    ],
)
def test_edits_that_do_not_fit_the_data_are_refused(make_folder, edits: Edits, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        edited(open_reader(make_folder()), edits)


def test_no_edits_leave_the_reader_as_it_is(make_reader):
    reader = make_reader([0, 1])
    assert edited(reader, Edits()) is reader
