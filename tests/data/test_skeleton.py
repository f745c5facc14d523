"""The readers of ``.skeleton`` files, each by itself: what they give and what they refuse."""

from __future__ import annotations

import pickle
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from msclr.data.skeleton import parse_skeleton, plain, read, read_skeleton, read_skeletons
from msclr.errors import InputError
from tests.data import skeleton_files as files

COMPILED = pytest.param("compiled", marks=pytest.mark.skipif(not read.native, reason="not built"))


@pytest.fixture(autouse=True, params=["python", COMPILED])
def reader(request, monkeypatch):
    if request.param == "python":
        monkeypatch.setattr(read, "native", None)


def parse(text: str, **options):
    return parse_skeleton(text.encode(), "clip", **options)


def refusal(text: str, **options) -> str:
    with pytest.raises(InputError) as caught:
        parse(text, **options)
    return str(caught.value)


def hand_written(joint: str = "{0}.5 -{0}.25 3 1{0} 2{0} 3{0} 4{0} 1 0 0 0 2") -> str:
    """Two frames, the first with body 7, the second with 9 and then 7."""
    joints = "".join(joint.format(i) + "\n" for i in range(25))
    body = "{} 0 1 1 1 1 0 0.1 -0.2 2\n25\n" + joints
    return "2\n1\n" + body.format(7) + "2\n" + body.format(9) + body.format(7)


def test_a_file_written_by_hand():
    clip = parse(hand_written(), pixels=True)
    assert (clip.body_ids.dtype, clip.body_ids.tolist()) == (np.uint64, [7, 9])
    assert (clip.present.dtype, clip.present.tolist()) == (bool, [[True, True], [False, True]])
    assert (clip.xyz.dtype, clip.xyz.shape) == (np.float32, (2, 2, 25, 3))
    assert clip.xyz[0, 1, 12].tolist() == [12.5, -12.25, 3]
    assert (clip.tracking.dtype, clip.tracking.shape) == (np.uint8, (2, 2, 25))
    assert (clip.depth.dtype, clip.depth.shape) == (np.float32, (2, 2, 25, 2))
    assert clip.depth[1, 1, 3].tolist() == [13, 23]
    assert clip.color[1, 1, 3].tolist() == [33, 43]
    for array, there in ((clip.xyz, 3), (clip.tracking, 2), (clip.depth, 10), (clip.color, 30)):
        assert not array[1, 0].any() and array[1, 1].max() >= there


def test_pixels_only_where_asked_for():
    clip = parse(hand_written())
    assert clip.depth is None and clip.color is None
    refused = hand_written("0 0 0 what 0 0 0 1 0 0 0 2")
    assert parse(refused).present.any()
    assert refusal(refused, pixels=True) == (
        "clip:5: 'what'; wanted a number for depthX (frame 1 of 2)"
    )


def test_arrays_can_be_written_to():
    clip = parse(hand_written())
    clip.xyz[:] = 1
    assert clip.xyz.flags.c_contiguous and clip.xyz.all()


def test_coordinates_are_those_of_the_generator():
    xyz = files.moving_body(4, seed=3)
    clip = parse(files.file_text(4, [files.body(xyz, 5)]))
    np.testing.assert_allclose(clip.xyz[0], xyz, rtol=1e-6, atol=1e-7)  # %.7g


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("empty frames", {files.FIRST_ID: "01110110"}),
        (
            "coming and going",
            {files.FIRST_ID + 7: "111100111110", files.FIRST_ID + 3: "000011111111"},
        ),
        ("two ids", {5: "1111100000", 9: "0000001111"}),
        ("many bodies", {files.FIRST_ID + i: "11111" for i in (0, 1, 2, 4)}),
        ("no bodies", {}),
        ("no frames", {}),
    ],
)
def test_who_is_there(name, present):
    clip = parse(files.WHOLE_FILES[name]())
    assert clip.body_ids.tolist() == list(present)
    rows = ["".join("01"[there] for there in row) for row in clip.present.tolist()]
    assert rows == list(present.values())
    assert not clip.xyz[~clip.present].any() and clip.xyz[clip.present].any(axis=(1, 2)).all()


def test_ids_past_64_bits_are_text():
    clip = parse(files.long_ids())
    assert clip.body_ids.tolist() == [str(i) for i in (10**19, 2**64 - 1, 2**64, 10**20 - 1)]
    assert parse(files.file_text(1, [files.body(files.moving_body(1, 0), 2**64 - 1)])).body_ids == [
        2**64 - 1
    ]


def test_an_id_of_any_length():
    one = files.file_text(1, [files.body(files.moving_body(1, 0), "1" * 5000)])
    assert parse(one).body_ids.tolist() == ["1" * 5000]


def test_leading_zeros_of_an_id_count_for_nothing():
    one = files.file_text(2, [files.body(files.moving_body(2, 0), "000")])
    assert parse(one.replace("000 ", "0 ", 1)).body_ids.tolist() == [0]


@pytest.mark.parametrize("form", files.FORMS)
def test_how_a_file_is_written_down_changes_nothing(form):
    text = files.coming_and_going()
    expected, got = parse(text), parse(files.FORMS[form](text))
    assert got.body_ids.tolist() == expected.body_ids.tolist()
    for name in ("present", "xyz", "tracking"):
        assert getattr(got, name).tobytes() == getattr(expected, name).tobytes()


@pytest.mark.parametrize("text", files.NUMBERS, ids=lambda text: ascii(text)[:30])
def test_a_number_is_what_float_makes_of_it(text):
    clip = parse(hand_written(f"{text} 1 {text} {text} 0 0 {text} 1 0 0 0 1"), pixels=True)
    with np.errstate(over="ignore"):
        expected = np.array(float(text)).astype(np.float32).tobytes()
    got = clip.xyz[0, 0, :, 0], clip.xyz[0, 0, :, 2], clip.depth[0, 0, :, 0], clip.color[0, 0, :, 1]
    assert all(array.tobytes() == 25 * expected for array in got)


@pytest.mark.parametrize("text", files.NO_NUMBERS, ids=ascii)
def test_no_number_is_refused(text):
    for place, name in ((0, "x"), (2, "z")):
        fields = ["1.5", "2.5", "3.5", *"00001000", "2"]
        fields[place] = text
        message = refusal(hand_written(" ".join(fields)))
        assert message.startswith("clip:5: '")
        assert message.endswith(f"'; wanted a number for {name} (frame 1 of 2)")


def line(number: int, replacement: str | None) -> str:
    """The hand-written file with another line there, or none."""
    lines = hand_written().split("\n")
    lines[number - 1 : number] = [] if replacement is None else [replacement]
    return "\n".join(lines)


IN_FRAME_1 = [
    (2, "many", "'many'; wanted the number of bodies"),
    (3, "7 0", "2 fields; wanted the 10 fields of a body"),
    (3, "-7 0 0 0 0 0 0 0 0 0", "'-7'; wanted a body id, a whole number"),
    (4, "20", "20 joints; wanted the 25 of Kinect v2"),
    (4, "0", "0 joints; wanted the 25 of Kinect v2"),
    (4, "9" * 99, f"{10**18} joints; wanted the 25 of Kinect v2"),
    (4, "", "a blank line; wanted the number of joints"),
    (5, "1 2 3", "3 fields; wanted the 12 fields of a joint"),
    (5, "1 " * 13, "13 fields; wanted the 12 fields of a joint"),
    (5, "0 " * 11 + "256", "'256'; wanted a whole number up to 255 for the tracking state"),
    (5, "x" * 50 + " 0" * 11, f"'{40 * 'x'}...'; wanted a number for x"),
]


@pytest.mark.parametrize(("number", "text", "message"), IN_FRAME_1)
def test_what_is_wrong_with_a_line(number, text, message):
    assert refusal(line(number, text)) == f"clip:{number}: {message} (frame 1 of 2)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file ends; wanted the number of frames"),
        ("\n", "1: a blank line; wanted the number of frames"),
        ("1e3\n", "1: '1e3'; wanted the number of frames"),
        ("-1\n", "1: '-1'; wanted the number of frames"),
        ("1 2\n", "1: 2 fields; wanted the number of frames"),
        ("1\n", "2: the file ends; wanted the number of bodies (frame 1 of 1)"),
        (f"{10**30}", f"2: the file ends; wanted the number of bodies (frame 1 of {10**18})"),
        (line(9, None), "29: 1 field; wanted the 12 fields of a joint (frame 1 of 2)"),
        (
            line(58, "009" + " 0" * 9),
            "58: body '9' again; wanted each body once a frame (frame 2 of 2)",
        ),
        (
            hand_written() + "\n \nmore of it",
            "87: 'more'; wanted the end of the file after 2 frames",
        ),
    ],
)
def test_what_is_wrong_with_a_file(text, message):
    assert refusal(text) == f"clip:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ufeff", "1: the file ends; wanted the number of frames"),
        ("\ufeffx", "1: 'x'; wanted the number of frames"),
        ("\ufeff1\n", "2: the file ends; wanted the number of bodies (frame 1 of 1)"),
        ("\ufeff" + line(2, "many"), "2: 'many'; wanted the number of bodies (frame 1 of 2)"),
        ("\ufeff\ufeff1", "1: '???1'; wanted the number of frames"),
        ("0\n\ufeff", "2: '???'; wanted the end of the file after 0 frames"),
    ],
)
def test_lines_after_a_byte_order_mark_keep_their_numbers(text, message):
    assert refusal(text) == f"clip:{message}"


def test_a_file_cut_anywhere_is_refused():
    text = files.one_person(2)
    for cut in range(len(text) - 1):  # the last line feed may be missing
        assert refusal(text[:cut]).startswith("clip:")


def test_absurd_counts_allocate_nothing():
    text = hand_written()
    tracemalloc.start()
    for changed in ("1000000000" + text[1:], text.replace("2\n1\n7 ", "2\n1000000000\n7 ")):
        refusal(changed)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_arrays_far_larger_than_the_file_are_refused():
    """Five ids, each there once, and very many frames without anybody."""
    bodies = [files.body(files.moving_body(1, i), i, start=i) for i in range(5)]
    listed = files.file_text(5, bodies)
    frames = 2**18 // 5
    assert parse(f"{frames}" + listed[1:] + "0\n" * (frames - 5)).present.sum() == 5
    assert refusal(f"{frames + 1}" + listed[1:] + "0\n" * (frames - 4)) == (
        f"clip:1: 5 body ids over {frames + 1} frames, 5 bodies in all; "
        "wanted fewer ids, in more frames each"
    )


def test_files(tmp_path):
    path = tmp_path / "clip.skeleton"
    path.write_text(files.one_person())
    expected = parse(files.one_person())
    for given in (path, str(path)):
        assert read_skeleton(given).xyz.tobytes() == expected.xyz.tobytes()
    path.write_text("")
    with pytest.raises(InputError, match=r"clip.skeleton:1: the file ends"):
        read_skeleton(path)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "clip.skeleton").write_text(files.one_person())
    assert read_skeleton("~/clip.skeleton").present.all()
    (clip,) = read_skeletons(["~/clip.skeleton"])
    assert clip.present.all()


def test_the_working_folder_may_change_before_the_first_clip(tmp_path, monkeypatch):
    paths = files.write_tree(tmp_path, files.clip_names(2), frames=2)
    monkeypatch.chdir(tmp_path)
    reading = read_skeletons([path.name for path in paths] + ["none"], keep_going=True)
    monkeypatch.chdir("/")
    *clips, missing = reading
    assert [clip.present.sum() for clip in clips] == [2, 2]
    assert str(missing) == "none: No such file or directory; wanted a .skeleton file"


def test_a_file_that_cannot_be_opened(tmp_path):
    missing = tmp_path / "none.skeleton"
    with pytest.raises(InputError) as caught:
        read_skeleton(missing)
    assert str(caught.value) == f"{missing}: No such file or directory; wanted a .skeleton file"
    with pytest.raises(InputError, match=r": Is a directory; wanted a .skeleton file"):
        read_skeleton(tmp_path)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_many_files_come_in_their_order(tmp_path, threads):
    paths = files.write_tree(tmp_path, files.clip_names(30), frames=(2, 6))
    alone = [read_skeleton(path) for path in paths]
    for expected, got in zip(alone, read_skeletons(paths, threads=threads), strict=True):
        assert got.xyz.tobytes() == expected.xyz.tobytes()


def test_a_broken_file_among_many(tmp_path):
    paths = files.write_tree(tmp_path, files.clip_names(6), frames=2)
    paths[3].write_text("1\n")
    clips = list(read_skeletons(paths, keep_going=True))
    assert [isinstance(clip, InputError) for clip in clips] == [i == 3 for i in range(6)]
    assert str(clips[3]).startswith(f"{paths[3]}:2: the file ends")
    reading = read_skeletons(paths)
    assert [next(reading).present.sum() for _ in range(3)] == [2, 2, 2]
    with pytest.raises(InputError, match="the file ends"):
        next(reading)


def test_only_a_few_files_are_read_ahead(tmp_path):
    (path,) = files.write_tree(tmp_path, files.clip_names(1), frames=2)
    asked = 0

    def paths():
        nonlocal asked
        while True:
            asked += 1
            yield path

    reading = read_skeletons(paths(), threads=2)
    for _ in range(10):
        next(reading)
    assert asked <= 16 * (2 * 2 + 1)
    reading.close()
    assert threading.active_count() < 10


def test_the_reader_named_by_the_fixture_is_used(monkeypatch):
    calls = []
    monkeypatch.setattr(plain, "parse", lambda *args: calls.append(args))
    parse("0")
    assert len(calls) == (read.native is None)


def test_the_generator_follows_from_its_seed(tmp_path):
    names = files.clip_names(5)
    first, again, other = (
        [
            path.read_bytes()
            for path in files.write_tree(tmp_path / folder, names, 3, seed, ghosts=0.5)
        ]
        for folder, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other
    assert [Path(p).stem for p in sorted((tmp_path / "a").iterdir())] == sorted(names)


@pytest.mark.parametrize("parse", [parse_skeleton, plain.parse])
def test_an_error_carries_its_line_and_reason(parse):
    with pytest.raises(InputError, match="^a: b.txt:3: 'x'; wanted") as caught:
        parse(b"2\n0\nx\n", "a: b.txt")
    assert caught.value.line == 3
    assert str(caught.value) == f"a: b.txt:3: {caught.value.reason}"
    with pytest.raises(InputError, match="^nowhere: No such file") as caught:
        read_skeleton("nowhere")
    assert caught.value.line == 0 and caught.value.reason.startswith("No such file")
    again = pickle.loads(pickle.dumps(caught.value))  # as between processes
    assert (str(again), again.line, again.reason) == (
        str(caught.value), caught.value.line, caught.value.reason,
    )  # fmt: skip
