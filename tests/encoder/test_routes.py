"""Layouts that an encoder does not know: derived, attached, or both."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import msclr
from msclr import layouts
from msclr.data import open_store
from msclr.encoder.attach import attach, counterparts
from msclr.encoder.routes import choose_route
from msclr.encoder.sources import embed_store
from msclr.errors import InputError
from msclr.evaluation import evaluate_knn, evaluate_linear, open_run
from msclr.evaluation.protocols import features_of
from msclr.layouts import Layout, passage
from msclr.nn import STGCN
from tests.tiny import LAYOUTS, TRAIN, UNSEEN


@pytest.fixture(scope="session")
def clips(arguments):
    return arguments["views"][UNSEEN]


def test_a_derived_layout_has_the_features_that_evaluation_uses(encoder, folders, data, clips):
    f = features_of(open_run(folders["joint"]), UNSEEN, data, route="derive")
    wanted = torch.cat([f.train, f.val])
    got = encoder.embed(clips, UNSEEN, route="derive")
    assert got.equal(wanted) and got.std(dim=0).min() > 0
    assert encoder.embed(clips[2], UNSEEN, route="derive").equal(got[2:3])


def test_both_is_the_mean_of_derived_and_attached(encoder, clips):
    derived, attached, both = (
        encoder.embed(clips, UNSEEN, route=route) for route in ("derive", "attach", "both")
    )
    assert not derived.equal(attached)
    torch.testing.assert_close(both, (derived + attached) / 2, rtol=0, atol=0)


@pytest.mark.parametrize("route", ["derive", "attach", "both"])
@pytest.mark.parametrize("layout", [LAYOUTS[0], UNSEEN])
def test_a_clip_and_its_mirror_image_have_the_mean_of_their_features(
    layout, route, encoder, arguments
):
    """The images are made of what the sensor gave, before anything is prepared."""
    clips = arguments["views"][layout]
    partner = layouts.get(layout).flip.numpy()
    images = [clip[..., partner, :] * [-1, 1, 1] for clip in clips]
    attached = layout == UNSEEN and route != "derive"
    if attached:  # both kinds by one norm: that of the clips
        clips, images = [*clips, *images], [*images, *clips]
    plain, image = (encoder.embed(each, layout, route=route) for each in (clips, images))
    found = encoder.embed(clips, layout, route=route, mirror=True)
    assert (plain - image).abs().max() > 1e-3
    torch.testing.assert_close(found, (plain + image) / 2, rtol=0, atol=2e-5)
    same = encoder.embed(images, layout, route=route, mirror=True)
    torch.testing.assert_close(found, same, rtol=0, atol=2e-5)


def test_evaluation_has_the_mirrored_features_of_embed(encoder, folders, data, arguments):
    f = features_of(open_run(folders["bone"]), UNSEEN, data, mirror=True)
    embedded = msclr.load(folders["bone"]).embed(arguments["views"][UNSEEN], UNSEEN, mirror=True)
    assert torch.cat([f.train, f.val]).equal(embedded)
    assert not f.val.equal(features_of(open_run(folders["bone"]), UNSEEN, data).val)


def test_a_prepared_set_is_embedded_by_the_route_that_is_asked_for(encoder, data, arguments):
    prepared = open_store(data)
    for options in ({"route": "attach"}, {"route": "derive"}, {"route": "both", "mirror": True}):
        found = embed_store(encoder, prepared, UNSEEN, **options)[0]
        assert found.equal(encoder.embed(arguments["views"][UNSEEN], UNSEEN, **options)), options


def test_a_layout_without_sides_has_no_mirror_image(encoder):
    names = [f"j{number}" for number in range(17)]
    bones = [[name, names[0]] for name in names[1:]]
    snake = Layout("snake_17", names, bones, names[0])
    with pytest.raises(InputError, match="snake_17 has no left-right pairs of joints"):
        encoder.route_of(snake, "attach", mirror=True)


def test_what_is_attached_is_fitted_on_the_clips_of_the_call(encoder, clips):
    few = encoder.embed(clips[:5], UNSEEN, route="attach")
    encoder.embed(clips, UNSEEN, route="attach")
    assert encoder.embed(clips[:5], UNSEEN, route="attach").equal(few)  # nothing is left behind
    x, bodies = encoder.preparation.prepare(clips[:5], layouts.get(UNSEEN))
    rows = x[bodies].flatten(0, 1).flatten(1).double()  # (R*T, V*3)
    norm = encoder.model.input_norm[UNSEEN]
    torch.testing.assert_close(norm.running_mean, rows.mean(0).float())
    encoder.embed(clips[:5], UNSEEN, route="attach")
    torch.testing.assert_close(norm.running_mean, rows.mean(0).float())
    torch.testing.assert_close(norm.running_var, rows.var(0).float())


def test_evaluation_fits_it_on_the_training_clips(folders, data, clips):
    run = open_run(folders["joint"])
    f = features_of(run, UNSEEN, data, route="attach")
    encoder = msclr.load(folders["joint"])
    assert encoder.embed(clips[:TRAIN], UNSEEN, route="attach").equal(f.train)


def test_the_route_is_said_once_and_can_be_asked_for(folders, clips, caplog):
    encoder = msclr.load(folders["joint"])
    route = encoder.route_of(UNSEEN)
    assert UNSEEN in route.line and f"loss {route.passage.loss:.2f}" in str(route)
    assert route.passage.target.name in LAYOUTS
    with caplog.at_level(logging.WARNING):
        encoder.embed(clips[0], UNSEEN)
        encoder.embed(clips[1], UNSEEN)
    assert [r.message for r in caplog.records if UNSEEN in r.message] == [route.line]
    known = encoder.route_of(LAYOUTS[0])
    assert (known.kind, known.passage) == ("known", None)


def test_load_sets_the_route_and_embed_another(folders, clips):
    encoder = msclr.load(folders["joint"], route="attach")
    assert encoder.route_of(UNSEEN).kind == "attach"
    assert encoder.route_of(UNSEEN, "derive").kind == "derive"
    with pytest.raises(InputError, match="route is 'straight'; choose one of auto, derive"):
        encoder.embed(clips, UNSEEN, route="straight")


def test_results_say_the_route_and_do_not_overwrite_each_other(folders, data):
    run = open_run(folders["joint"])
    results = {
        route: evaluate_knn(run, UNSEEN, data, route=route)
        for route in ("auto", "derive", "attach")
    }
    assert results["attach"]["route"] == "attach" and results["derive"]["route"] == "derive"
    assert any("loss" in note for note in results["derive"]["notes"])
    kept = {path.name for path in (run.folder / "evaluation").glob(f"knn-{UNSEEN}-joint-*")}
    assert any("route_derive" in name for name in kept)
    assert any("route_attach" in name for name in kept)
    assert any("route" not in name for name in kept)
    assert evaluate_linear(run, LAYOUTS[0], data, epochs=2, route="attach")["route"] == "known"


def test_edge_importance_is_taken_over_link_by_link():
    kinect1, kinect2 = layouts.get("kinectv1_20"), layouts.get("kinectv2_25")
    model = STGCN([kinect2], 2, 8).eval()
    theirs = model.edge_importance["kinectv2_25"]
    for block in theirs:
        torch.nn.init.uniform_(block, 0.5, 1.5)
    attach(model, passage(kinect1, kinect2))
    elbow, shoulder = kinect1.joints.index("ElbowLeft"), kinect1.joints.index("ShoulderLeft")
    other = kinect2.joints.index("lelb"), kinect2.joints.index("lsho")
    for mine, their in zip(model.edge_importance["kinectv1_20"], theirs, strict=True):
        assert mine.shape == (3, 20, 20)
        for k in range(3):
            if model.adjacency_kinectv1_20[k, shoulder, elbow]:
                assert mine[k, shoulder, elbow] == their[k, other[1], other[0]]
        assert mine[0, elbow, elbow] == their[0, other[0], other[0]]
        linked = model.adjacency_kinectv1_20 != 0
        assert (mine[~linked] == 1).all()
    norm = model.input_norm["kinectv1_20"].weight.view(20, 3)
    assert norm[elbow].equal(model.input_norm["kinectv2_25"].weight.view(25, 3)[other[0]])


def test_every_joint_has_a_counterpart():
    for source in map(layouts.get, ("kinectv1_20", "uiprmd_vicon_39", "smplx_42")):
        like = counterparts(passage(source, layouts.get("kinectv2_25")))
        assert len(like) == source.num_joints
    like = counterparts(passage(layouts.get("kinectv1_20"), layouts.get("kinectv2_25")))
    names = layouts.get("kinectv2_25").joints
    of = {joint: names[w] for joint, w in zip(layouts.get("kinectv1_20").joints, like, strict=True)}
    assert (of["HandLeft"], of["KneeRight"], of["Head"]) == ("lhan", "rkne", "head")


def test_a_layout_of_ones_own_gets_landmarks_from_its_names_and_they_are_shown(encoder, caplog):
    kinect = layouts.get("kinectv1_20")
    mine = Layout("mine", kinect.joints, kinect.bones, kinect.center)
    clips = np.random.default_rng(0).normal(size=(3, 1, 8, 20, 3))
    with caplog.at_level(logging.WARNING):
        got = encoder.embed(list(clips), mine)
    assert got.shape == (3, encoder.dim)
    assert any("lhip = HipLeft" in record.message for record in caplog.records)


def test_one_whose_names_tell_nothing_is_refused(encoder):
    fly = Layout("fly", ["head", "wingL", "wingR"], [["wingL", "head"], ["wingR", "head"]], "head")
    with pytest.raises(InputError, match=r"layout fly has no \[landmarks\]"):
        encoder.embed(np.ones((8, 3, 3)), fly)


def test_the_known_layout_that_loses_least_is_taken():
    known = {name: layouts.get(name) for name in ("lsp_14", "smpl_24", "berkeley_mhad_43")}
    assert choose_route(known, layouts.get("kinectv1_20")).passage.target.name == "smpl_24"
