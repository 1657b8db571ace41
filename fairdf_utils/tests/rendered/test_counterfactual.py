"""Counterfactual faces: nothing but what is named differs, and any detector can be scored on the files."""

from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from fairdf_utils.__main__ import main
from fairdf_utils.data.manifests import read_split
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS
from fairdf_utils.fairness.effects import paired_effects
from fairdf_utils.fairness.score_table import read_scores
from fairdf_utils.rendered import counterfactual, drawing, images, people


@pytest.fixture(scope="module")
def few():
    return read_split(images.MANIFESTS / "ffpp", "test").drop_duplicates(["group", "forgery"]).reset_index(drop=True)


def face(group, number, change=None):
    gender, race = group.split("-")
    return people.draw_face(people.named_generator(7, "face", number), gender, race, change)


def differing(a, b):
    return {name for name, value in asdict(a).items() if value != asdict(b)[name]}


@pytest.mark.parametrize("group", GROUPS)
def test_only_what_is_named_differs_in_a_face(group):
    gender, race = group.split("-")
    other = "female" if gender == "male" else "male"
    gendered = {"lip", "width", "jaw", "eye_width", "aperture", "lashes", "brow", "brow_arch", "nose", "lips"}
    for number in range(20):
        own = face(group, number)
        assert face(group, number, {"gender": gender, "features": race, "melanin": own.melanin}) == own
        assert differing(own, face(group, number, {"melanin": 0.5})) == {"melanin", "skin", "lip", "pores"}
        turned = face(group, number, {"gender": other})
        assert gendered <= differing(own, turned) <= gendered | {"length", "beard", "moustache"}
        assert (turned.length == -1.0) == (other == "male") and (turned.beard > 0) == (other == "male")
        for features in ("asian", "white", "black", "others"):
            seen = face(group, number, {"features": features})
            same = {"melanin", "width", "jaw", "eye_gap", "mouth", "hairline", "parting", "beard", "glasses", "pores"}
            assert not same & differing(own, seen)


def test_people_made_alike_are_drawn_from_the_same_ranges():
    """Skin, features and gender of one group: no trait tells any longer which group a person was of."""
    change = {"melanin": 0.0, "features": "white", "gender": "female"}
    looks = {group: [face(group, number, change) for number in range(400)] for group in GROUPS}
    for name in ("aperture", "nose", "lips", "tilt", "width", "brow", "volume", "length"):
        means = [np.mean([getattr(person, name) for person in persons]) for persons in looks.values()]
        spread = np.std([getattr(person, name) for person in looks["female-white"]])
        assert np.ptp(means) < 6 * spread / 20, name
    blues = [[person.skin[2] for person in persons] for persons in looks.values()]
    assert np.ptp([np.std(each) for each in blues]) < 0.2 * np.std(blues[0])


def test_a_change_to_what_is_there_gives_equal_bytes(few):
    """Every group, every forgery: changed to its own values, an image is the same file."""
    truth = images.ground_truth(few, bias=1.0)
    for row, known in zip(few.itertuples(index=False), truth.itertuples(), strict=True):
        own = {"gender": row.gender, "features": row.race, "exposure": known.melanin}
        own["capture"] = "poor" if known.poor else "good"
        if not row.label:  # of a fake, target and source get one melanin
            own["melanin"] = known.melanin
        assert images._jpeg(row, 64, 1.0, 0, own) == images._jpeg(row, 64, 1.0, 0)
    assert set(few["forgery"]) == set(FORGERIES)


def test_melanin_changes_the_skin_and_nothing_around_it(few):
    scene = people.draw_scene(np.random.default_rng(1), np.random.default_rng(2))
    grain = drawing.skin_grain(np.random.default_rng(0), 96)
    for group in GROUPS:
        light, dark = (face(group, 3, {"melanin": melanin}) for melanin in (0.0, 1.0))
        changed = np.abs(drawing.paint(light, scene, 96, grain) - drawing.paint(dark, scene, 96, grain)).max(0)
        grid = drawing.Grid(light, scene, 96)
        ears_and_neck = (np.abs(grid.head_u) < light.width + 0.12) & (grid.head_v > -0.3)
        assert changed[(grid.outline > 0.05) & ~ears_and_neck].max() < 1e-6
        assert changed[grid.ellipse(grid.u, grid.v, 0, 0, 0.2, 0.4) == 1].mean() > 0.2


def test_exposure_is_that_of_another_skin_and_capture_is_good_or_poor(few):
    row = next(few.itertuples(index=False))
    plain, _, gain = images.capture_conditions(row, 0.0, 64, 1.0, 0, "good")
    worse, poor, darker = images.capture_conditions(row, 1.0, 64, 1.0, 0, "poor")
    assert poor and darker == pytest.approx(gain * (1 - images.EXPOSURE_LOSS))
    assert worse.noise - plain.noise == pytest.approx(images.POOR_NOISE)
    unbiased = images.render_rows(few[:2], change={"exposure": 1.0}, bias=0.0)
    assert np.array_equal(unbiased, images.render_rows(few[:2], bias=0.0)), "the knob is off: no skin costs exposure"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"skin": 1.0}, "use melanin"), ({"melanin": 1.5}, "use 0 to 1"), ({"gender": "black"}, "use male, female")],
)
def test_an_impossible_change_is_refused(few, change, message):
    with pytest.raises(ValueError, match=message):
        images.render_rows(few[:1], change=change)


def test_command_writes_pairs_and_goes_on(tmp_path, few, monkeypatch):
    rows = few.iloc[[0, 9]]
    monkeypatch.setattr(counterfactual, "read_split", lambda *_: rows)
    call = ["synthetic", "--counterfactual", "--bias", "1", "--out", str(tmp_path)]
    assert main(call) == 0
    root = tmp_path / "counterfactual-64px-bias1-seed0"
    listed = read_split(root, "test", root)
    assert len(listed) == 2 * 15 == len(list(root.rglob("*.jpg")))
    assert listed.groupby("pair").size().to_dict() == dict.fromkeys(rows["img_path"], 15)
    for row in listed.itertuples():
        change = {row.attribute: float(row.value) if row.value[:1].isdigit() else row.value}
        change = {} if row.attribute == counterfactual.DRAWN else change
        expected = images.render_rows(rows[rows["img_path"] == row.pair], bias=1.0, change=change)[0]
        assert np.array_equal(np.asarray(Image.open(root / row.img_path)), expected), row.img_path

    listed.assign(score=np.arange(30) / 30).to_csv(tmp_path / "scores.csv")  # as any detector's table
    effects = paired_effects(read_scores(tmp_path / "scores.csv"))
    assert len(effects) == 2 * 9 and (effects["persons"] == 1).all()
    ladder = [row.score for row in read_scores(tmp_path / "scores.csv").query("attribute == 'melanin'").itertuples()]
    assert effects.loc[(0, "melanin", "1.0"), "estimate"] == pytest.approx(ladder[6] - ladder[0])

    written = {path: path.read_bytes() for path in root.rglob("*.jpg")}
    kept, lost = sorted(written)[:2]
    kept.write_bytes(b"kept")
    lost.unlink()
    (root / "test.csv").unlink()
    (root / "complete.json").rename(root / "started.json")  # as a killed call leaves it
    assert main(call) == 0
    assert kept.read_bytes() == b"kept" and lost.read_bytes() == written[lost] and (root / "test.csv").exists()
