import re

import numpy as np
import pytest
import torch

from msclr.errors import InputError
from msclr.evaluation.report import draw_clip, embedding_plot, loss_curve, write_page
from msclr.layouts import Layout

HEADER = "step,epoch,loss,contrast_accuracy,lr,clips_per_second\n"
STICK = Layout(
    name="stick_5",
    joints=("hip", "head", "lhand", "rhand", "foot"),
    bones=(("head", "hip"), ("lhand", "head"), ("rhand", "head"), ("foot", "hip")),
    center="hip",
)
PAIR = Layout(name="pair_2", joints=("a", "b"), bones=(("b", "a"),), center="a")
LAYOUTS = {"stick_5": STICK, "pair_2": PAIR}
STANDING = np.array([[0, 0, 0], [0, 1, 0], [0.5, 0.8, 0], [-0.5, 0.8, 0], [0, -1, 0]])


def pixels(path):
    """(H, W, 3) float; fails unless the file is a whole PNG of a sensible size with ink on it."""
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    image = imread(path)[..., :3]
    assert 200 < image.shape[0] < 3000 and 300 < image.shape[1] < 3000
    assert image.std() > 0.01
    return image


def has_colour(image, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(image - wanted).max(axis=2) < 0.02).any())


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    rows = [f"{i * 10},{i // 20},{9 - i / 50},{i / 200},0.1,500" for i in range(150)]
    path.write_text(HEADER + "\n".join(rows) + "\n")
    return path


def test_loss_curve_is_drawn(log, tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    out = tmp_path / "new folder" / "loss.png"
    assert loss_curve(log, out) == out
    image = pixels(out)
    assert has_colour(image, "#2b6cb0") and has_colour(image, "#c05621")

    columns = np.loadtxt(log, delimiter=",", skiprows=1)
    columns[:, 3] *= 100  # percent
    columns = columns[1:]  # the first step is a spike
    for axes, column in zip(drawn[0].axes, (2, 3), strict=True):  # the left axis is the loss
        raw, smooth = axes.lines
        np.testing.assert_array_equal(raw.get_xydata(), columns[:, [0, column]])
        # A straight line stays as it is but for its ends.
        np.testing.assert_allclose(smooth.get_xydata()[5:-5], columns[5:-5, [0, column]])


def test_the_spike_of_the_first_step_does_not_squeeze_the_curve(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,0,900,0.0,0.1,5\n2,0,9,0.0,0.1,5\n3,0,8,0.0,0.1,5\n")
    loss_curve(path, tmp_path / "loss.png")
    assert drawn[0].axes[0].get_ylim()[1] < 10
    path.write_text(HEADER + "50,0,900,0.0,0.1,5\n100,0,9,0.0,0.1,5\n150,0,8,0.0,0.1,5\n")
    loss_curve(path, tmp_path / "loss.png")
    assert drawn[1].axes[0].get_ylim()[1] > 800


def test_loss_curve_of_one_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "0,0,9.0,0.0,0.1,500\n")
    pixels(loss_curve(path, tmp_path / "loss.png"))


def test_an_embedding_fills_its_axes(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    layouts = torch.arange(40) % 2
    embedding_plot(features, layouts, ["a", "b"], tmp_path / "a.png", what="layouts")
    (axes,) = drawn[0].axes
    points = np.concatenate([dots.get_offsets() for dots in axes.collections])
    for low, high, (left, right) in zip(
        points.min(axis=0), points.max(axis=0), (axes.get_xlim(), axes.get_ylim()), strict=True
    ):
        assert (high - low) / (right - left) > 0.9
    assert axes.get_aspect() == "auto" and axes.get_xlabel().endswith("2 layouts")


def test_smoothing_is_a_centred_mean():
    from msclr.evaluation.report import _smooth

    values = np.arange(200.0) ** 2
    smooth = _smooth(values)  # 200 values: two on either side
    assert smooth[50] == pytest.approx(values[48:53].mean())
    assert smooth[0] == pytest.approx(values[:3].mean())
    assert smooth[-1] == pytest.approx(values[-3:].mean())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such log"),
        ("", "lacks the column step"),
        (HEADER, "has no row yet"),
        ("step,loss\n1,2\n", "lacks the column contrast_accuracy"),
        (HEADER + "1,0,9.0,0.1,0.1,5\n2,0,oops,0.1,0.1,5\n", "log.csv:3: loss is 'oops'"),
        (HEADER + "1,0,9.0\n", "log.csv:2: contrast_accuracy is None"),
    ],
)
def test_bad_logs_are_refused(tmp_path, text, message):
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        loss_curve(path, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_embedding_plot_is_drawn_and_repeats(tmp_path):
    labels = torch.arange(40) % 4
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    features = (torch.eye(4, 8)[labels] + 0.1 * noise).requires_grad_()
    classes = ["wave", "sit", "stand", "kick"]
    first = embedding_plot(features, labels, classes, tmp_path / "a.png", title="Clips")
    again = embedding_plot(features, labels, classes, tmp_path / "b.png", title="Clips")
    image = pixels(first)
    assert has_colour(image, "#4c92c3")  # the first class, four fifths opaque on white
    assert first.read_bytes() == again.read_bytes()


def test_embedding_is_made_of_angles_of_at_most_1500_clips(tmp_path, monkeypatch):
    seen = []

    class FakeTSNE:
        def __init__(self, **options):
            pass

        def fit_transform(self, features):
            seen.append(features)
            return features[:, :2]

    monkeypatch.setattr("sklearn.manifold.TSNE", FakeTSNE)
    features = 5 * torch.randn(1600, 4, generator=torch.Generator().manual_seed(0))
    for seed in (0, 0, 1):
        embedding_plot(features, torch.zeros(1600).long(), ["all"], tmp_path / "a.png", seed=seed)
    assert np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[0], seen[2])
    assert seen[0].shape == (1500, 4)
    assert np.linalg.norm(seen[0], axis=1) == pytest.approx(np.ones(1500))
    assert len(np.unique(seen[0], axis=0)) == 1500


@pytest.mark.filterwarnings("error")
def test_embedding_of_a_collapsed_encoder(tmp_path):
    features, labels = torch.ones(30, 8), torch.zeros(30).long()
    pixels(embedding_plot(features, labels, ["all"], tmp_path / "a.png"))


def test_legend_names_the_classes_present_up_to_20(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    features = torch.eye(63)
    names = [f"class {number}" for number in range(25)]
    embedding_plot(features, torch.arange(63) % 20 + 3, names, tmp_path / "a.png")
    embedding_plot(features, torch.arange(63) % 21 + 3, names, tmp_path / "b.png")
    few, many = drawn
    assert [text.get_text() for text in few.legends[0].get_texts()] == names[3:23]
    assert many.legends == []
    colours = {tuple(dots.get_facecolor()[0]) for dots in many.axes[0].collections}
    assert len(colours) == 21


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.randn(2, 4), torch.zeros(2).long(), "3 clips or more"),
        (torch.randn(9, 1), torch.zeros(9).long(), "2 or more features"),
        (torch.randn(9, 4), torch.full((9,), 2), r"must lie in 0\.\.1"),
        (torch.randn(9, 4) / 0, torch.zeros(9).long(), "NaN or infinite"),
    ],
)
def test_bad_embeddings_are_refused(tmp_path, features, labels, message):
    with pytest.raises(InputError, match=message):
        embedding_plot(features, labels, ["a", "b"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def clip(bodies=1, frames=9):
    """(M, T, 5, 3): stick figures side by side that drift to the right; joint hip never at 0."""
    drift = np.linspace(0.1, 0.5, frames)[:, None, None] * [1, 0, 0]  # (T, 1, 3)
    return np.stack([STANDING + drift + [2.0 * body, 0, 0] for body in range(bodies)])


def test_clip_is_drawn_with_a_row_a_view(tmp_path):
    pair = torch.from_numpy(clip()[:, :, :2])
    one = pixels(draw_clip({"stick_5": clip()}, LAYOUTS, tmp_path / "one.png"))
    two = pixels(draw_clip({"stick_5": clip(), "pair_2": pair}, LAYOUTS, tmp_path / "two.png"))
    wide = pixels(draw_clip({"stick_5": clip()}, LAYOUTS, tmp_path / "wide.png", frames=7))
    assert two.shape[0] > 1.3 * one.shape[0] and two.shape[1] == one.shape[1]
    assert wide.shape[1] > 1.3 * one.shape[1]


def test_bodies_and_sides_have_colours_and_absent_bodies_none(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    pair = clip(2)
    pair[1, 4:] = 0  # the second body leaves
    draw_clip({"stick_5": pair}, LAYOUTS, tmp_path / "a.png", frames=9)
    assert [len(axes.lines) for axes in drawn[0].axes] == [8] * 4 + [4] * 5
    lines = drawn[0].axes[0].lines
    left, right = lines[1], lines[2]  # the bones of lhand and rhand
    assert left.get_xdata().max() > right.get_xdata().max()
    assert len({line.get_color() for line in lines}) == 6  # two bodies of three tints
    assert (left.get_color(), right.get_color()) == ("#63b3ed", "#1a4f8b")


@pytest.mark.parametrize(("up", "turn"), [("y", 1), ("-y", -1)])
def test_up_is_up_and_scales_are_equal(tmp_path, monkeypatch, up, turn):
    drawn = record_drawing(monkeypatch)
    draw_clip({"stick_5": clip() * [1, turn, 1]}, LAYOUTS, tmp_path / "a.png", up=up)
    for axes in drawn[0].axes:
        head = axes.lines[0].get_ydata()[0]
        foot = axes.lines[3].get_ydata()[0]
        assert head == 1 and foot == -1
        assert axes.get_aspect() == 1 and axes.get_ylim()[0] < foot < head < axes.get_ylim()[1]
    assert len({axes.get_xlim() for axes in drawn[0].axes}) == 1  # so that the drift shows
    assert drawn[0].axes[0].get_xlim()[0] < -0.5 < 1.0 < drawn[0].axes[0].get_xlim()[1]


def test_a_tall_body_fits_its_box(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    draw_clip({"stick_5": clip() * [0.01, 1, 1]}, LAYOUTS, tmp_path / "a.png")
    low, high = drawn[0].axes[0].get_ylim()
    assert low < -1 and high > 1


@pytest.mark.filterwarnings("error")
def test_each_view_has_its_own_up_and_is_seen_from_its_broad_side(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    turned = clip()[..., [2, 0, 1]]  # z is up, the arms point along y
    turned = np.concatenate([turned, np.full_like(turned, np.nan)])  # a body that was not seen
    turned[0, :, 4] = np.nan  # a foot that was not either
    layouts = {"stick_5": STICK, "turned": STICK}
    views = {"stick_5": clip(), "turned": turned}
    draw_clip(views, layouts, tmp_path / "a.png", frames=1, up={"turned": "z"})
    upper, lower = drawn[0].axes
    for one, other in zip(upper.lines[:3], lower.lines[:3], strict=True):
        np.testing.assert_allclose(one.get_xydata(), other.get_xydata())


def test_frames_are_evenly_spaced_and_at_most_all(tmp_path, monkeypatch):
    drawn = record_drawing(monkeypatch)
    draw_clip({"stick_5": clip()}, LAYOUTS, tmp_path / "a.png", frames=5)
    draw_clip({"stick_5": clip(frames=2)}, LAYOUTS, tmp_path / "b.png", frames=5)
    draw_clip({"stick_5": clip()}, LAYOUTS, tmp_path / "c.png", frames=4)
    titles = [[axes.get_title() for axes in figure.axes] for figure in drawn]
    assert titles == [
        ["frame 0", "frame 2", "frame 4", "frame 6", "frame 8"],
        ["frame 0", "frame 1"],
        ["frame 0", "frame 3", "frame 5", "frame 8"],
    ]


@pytest.mark.filterwarnings("error")
def test_empty_and_missing_joints_are_drawn_without_a_fuss(tmp_path):
    gap = clip()
    gap[0, 0, 2] = np.nan
    pixels(draw_clip({"stick_5": gap}, LAYOUTS, tmp_path / "a.png"))
    pixels(draw_clip({"stick_5": 0 * clip()}, LAYOUTS, tmp_path / "b.png"))
    pixels(draw_clip({"stick_5": np.nan * clip()}, LAYOUTS, tmp_path / "c.png"))


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        ({}, {}, "0 views"),
        ({"stick_5": clip()}, {"frames": 0}, "0 frames"),
        ({"other": clip()}, {}, "no layout for the view 'other'"),
        ({"stick_5": clip()[0]}, {}, r"wanted \(M, T, 5, 3\)"),
        ({"pair_2": clip()}, {}, r"wanted \(M, T, 2, 3\)"),
        ({"stick_5": clip()[:, :0]}, {}, r"wanted \(M, T, 5, 3\)"),
        ({"stick_5": clip(), "pair_2": np.ones((1, 4, 2, 3))}, {}, "the same number in all"),
        ({"stick_5": clip()}, {"up": "w"}, "up is 'w'"),
    ],
)
def test_bad_clips_are_refused(tmp_path, views, options, message):
    with pytest.raises(InputError, match=message):
        draw_clip(views, LAYOUTS, tmp_path / "a.png", **options)
    assert list(tmp_path.iterdir()) == []


def record_drawing(monkeypatch):
    """The figures that are saved from now on, in a list that grows."""
    from msclr.evaluation import report

    figures = []
    save = report._save
    monkeypatch.setattr(
        report, "_save", lambda figure, out: figures.append(figure) or save(figure, out)
    )
    return figures


def test_page_links_its_pictures_and_escapes_its_text(log, tmp_path):
    picture = loss_curve(log, tmp_path / "pictures" / "loss & more.png")
    page = write_page(
        tmp_path,
        "Run <1>",
        [
            ("Text", "a < b & c\n\n<script>alert(1)</script>"),
            ("Curve", picture),
            ("Curve", "Under the curve."),
            ("Table", [["layout", "<top-1>"], ["a&b", 87.654321], ["c", None], ["d", 3]]),
        ],
    )
    assert page == tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    (link,) = re.findall('src="([^"]*)"', text)
    assert link == "pictures/loss%20%26%20more.png"
    assert "<script" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<title>Run &lt;1&gt;</title>" in text and "<h1>Run &lt;1&gt;</h1>" in text
    assert text.count("<p>") == 3 and "<p>a &lt; b &amp; c</p>" in text
    assert re.findall("<h2>(.*?)</h2>", text) == ["Text", "Curve", "Table"]
    assert "<th>&lt;top-1&gt;</th>" in text and "<td>a&amp;b</td>" in text
    assert re.findall('<td class="number">(.*?)</td>', text) == ["87.65", "–", "3"]


def test_page_links_do_not_depend_on_the_working_folder(log, tmp_path, monkeypatch):
    loss_curve(log, tmp_path / "run" / "loss.png")
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    page = write_page("run", "Run", [("Curve", Path("run/loss.png"))])
    assert 'src="loss.png"' in page.read_text()


def test_bad_sections_are_refused_and_nothing_is_written(log, tmp_path):
    outside = loss_curve(log, tmp_path / "loss.png")
    run = tmp_path / "run"
    for content, message in (
        (run / "absent.png", "no such picture"),
        (outside, "is outside"),
        ([], "has rows of"),
        ([["a", "b"], [1]], r"has rows of \[2, 1\] cells"),
    ):
        with pytest.raises(InputError, match=message):
            write_page(run, "Run", [("Fine", "text"), ("Bad", content)])
    assert not run.exists()


def test_paths_may_begin_with_the_home_folder(log, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loss_curve("~/log.csv", "~/loss.png") == tmp_path / "loss.png"
    page = write_page("~/page", "Figures", [("What", "This is Grün.")])
    assert page == tmp_path / "page" / "report.html"
    assert "Grün" in page.read_text(encoding="utf-8")
