"""Video-level scores: the mean of the frames, in both fidelities, and honest about contradictions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdf_utils.fairness.metrics import fairness_metrics, overall_metrics
from fairdf_utils.fairness.score_table import ScoreTableError, column, log_odds, read_scores, video_level, write_scores

FRAMES = pd.DataFrame(
    {
        "dataset": ["ffpp", "ffpp", "ffpp", "dfd", "ffpp"],
        "img_path": ["b_1.png", "b_2.png", "b_3.png", "b_1.png", "a_1.png"],
        "video": ["b", "b", "b", "b", "a"],
        "label": [1, 1, 1, 0, 0],
        "group": ["male-white", "male-black", "male-black", "male-white", "female-asian"],
        "gender": ["male", "male", "male", "male", "female"],
        "race": ["white", "black", "black", "white", "asian"],
        "score": [0.9, 0.6, 0.3, 0.2, 0.1],
    }
)


def test_a_video_is_the_mean_of_its_frames():
    videos = video_level(FRAMES)
    assert videos["score"].tolist() == pytest.approx([0.6, 0.2, 0.1])
    assert videos["frames"].tolist() == [3, 1, 1]
    assert list(zip(videos["dataset"], videos["video"], strict=True)) == [("ffpp", "b"), ("dfd", "b"), ("ffpp", "a")]


def test_the_annotation_of_most_frames_holds():
    first = video_level(FRAMES).iloc[0]
    assert (first["group"], first["gender"], first["race"]) == ("male-black", "male", "black")
    assert first["img_path"] == "b_2.png", "the first frame that is annotated so"
    equal = video_level(FRAMES.iloc[:2]).iloc[0]
    assert equal["group"] == "male-white", "of equally many, the first"


@st.composite
def tables(draw):
    n = draw(st.integers(1, 30))
    video = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    logits = draw(st.lists(st.tuples(*[st.floats(-60, 60)] * 2), min_size=n, max_size=n))
    real, fake = np.array(logits, np.float32).T
    group = draw(st.lists(st.sampled_from(["male-white", "female-white"]), min_size=n, max_size=n))
    return pd.DataFrame(
        {
            "dataset": "ffpp",
            "video": [f"v{v}" for v in video],
            "label": [v % 2 for v in video],
            "group": group,
            "logit_real": real,
            "logit_fake": fake,
            "score": (1 / (1 + np.exp(np.float64(real) - fake))).astype(np.float32),
        },
        index=draw(st.permutations(range(n))),
    )


@settings(max_examples=60, deadline=None)
@given(tables())
def test_both_fidelities_are_means_over_frames(table):
    videos = video_level(table).set_index("video")
    groups = table.astype({"logit_fake": float, "logit_real": float, "score": float}).groupby("video", sort=False)
    assert videos.index.tolist() == list(groups.groups)
    assert videos["frames"].sum() == len(table)
    softmax = 1 / (1 + np.exp(videos["logit_real"] - videos["logit_fake"]))
    released = 1 / (1 + np.exp(-videos["logit_fake"]))
    for name, own in groups:
        assert videos["score"][name] == pytest.approx(own["score"].mean(), abs=1e-9)
        assert softmax[name] == pytest.approx(own["score"].mean(), abs=1e-9)
        assert released[name] == pytest.approx((1 / (1 + np.exp(-own["logit_fake"]))).mean(), abs=1e-9)


def test_videos_of_one_frame_keep_their_metrics():
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame({"video": range(n), "label": rng.integers(2, size=n), "logit_real": rng.normal(size=n)})
    table["logit_fake"] = rng.normal(table["label"], 1)
    table["score"] = 1 / (1 + np.exp(table["logit_real"] - table["logit_fake"]))
    table["group"] = rng.choice(["male-white", "male-black"], n)
    for fidelity in ("corrected", "official"):
        for metrics in (fairness_metrics, overall_metrics):
            frames, videos = (metrics(t, fidelity=fidelity) for t in (table, video_level(table)))
            np.testing.assert_allclose(videos, frames)


def test_a_video_with_two_labels_is_refused():
    with pytest.raises(ScoreTableError, match="Video 'b' holds reals and fakes"):
        video_level(FRAMES.drop(columns="dataset"))


def test_a_table_without_videos_is_refused():
    with pytest.raises(ScoreTableError, match="no column 'video'.*copy img_path"):
        video_level(FRAMES.drop(columns="video"))


def test_an_unknown_annotation_is_a_value_like_others():
    videos = video_level(FRAMES.assign(race=["white", None, None, None, "asian"]))
    assert videos["race"].isna().tolist() == [True, True, False] and videos["frames"].tolist() == [3, 1, 1]


def test_certain_scores_have_finite_logits_and_come_back():
    score = np.array([0.0, 1e-9, 0.5, 1.0])
    assert np.isfinite(log_odds(score)).all()
    np.testing.assert_allclose(1 / (1 + np.exp(-log_odds(score))), score, atol=2e-12)
    assert np.isfinite(log_odds(score.astype(np.float32))).all()


def test_a_table_is_written_under_the_name_asked_for(tmp_path):
    paths = write_scores(FRAMES, tmp_path / "new", "video_scores")
    assert [path.name for path in paths] == ["video_scores.parquet", "video_scores.csv"]
    for path in paths:
        pd.testing.assert_frame_equal(read_scores(path)[list(FRAMES)], FRAMES, check_dtype=False)


def test_groups_of_codes_and_of_gaps_are_joined(tmp_path):
    path = tmp_path / "given.csv"
    path.write_text("label,score,gender,race\n0,0.1,1,2\n1,0.9,0,\n1,0.8,,1\n")
    assert read_scores(path)["group"].fillna("missing").tolist() == ["1-2", "missing", "missing"]
    path.write_text("label,score,gender,race\n0,0.1,male,\n1,0.9,female,\n")
    assert read_scores(path)["group"].isna().all()
    pd.DataFrame({"label": [0, 1], "score": [0.1, 0.9], "skin": [1.0, None]}).to_parquet(tmp_path / "given.parquet")
    assert read_scores(tmp_path / "given.parquet", ["skin"])["skin"].tolist() == ["1", None]


def test_names_are_text_as_it_stands_in_the_file(tmp_path):
    path = tmp_path / "given.csv"
    path.write_text("label,score,race,video,method\n0,0.1,NA,0001,real\n1,0.9,NA ,1,Deepfakes\n1,0.8,,0e2,Deepfakes\n")
    table = read_scores(path)
    assert table["race"].tolist() == ["NA", "NA", None] and table["video"].tolist() == ["0001", "1", "0e2"]
    assert table["forgery"].tolist() == ["real", "Deepfakes", "Deepfakes"] and "method" not in table
    table.set_index("video").to_parquet(tmp_path / "given.parquet")
    assert read_scores(tmp_path / "given.parquet")["video"].tolist() == ["0001", "1", "0e2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "label,gender,Prediction\n0,male,0.1\n", "Rename 'Prediction' to 'score'"),
        ("a.csv", "label,score,gender\n0,-3.2,male\n", "apply the sigmoid if logits"),
        ("a.csv", "label\tscore\tgender\n0\t0.1\tmale\n", "separates its columns with tabs"),
        ("a.csv", "label,score,gender\n0,0.1,male,1,2\n0\n0,1,2,3,4,5,6,7\n", "no CSV table"),
        ("a.xlsx", "PK", "save it as .csv"),
        (
            "a.csv",
            "label,score,gender\n0,0.1,male,7\n1,0.2,male,\n",
            "line 2 has more cells than the header, which has 3",
        ),
        ("a.csv", "label,score,gender,score\n0,0.1,male,1\n", "'score' appears twice"),
        ("a.csv", "label,score,gender,dataset\n0,0.1,male,\n", "'dataset' is empty"),
        ("a.csv", "label,score,gender\n", "nothing to judge"),
        ("a.csv", "", "no CSV table"),
        ("a.csv.gz", "no archive", "no CSV table"),
        ("a.csv", "label,score,sex\n0,0.1,male\n", "It has: label, score, sex"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_remedy(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(ScoreTableError, match=said) as error:
        read_scores(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00label")
    with pytest.raises(ScoreTableError, match="no CSV table in UTF-8"):
        read_scores(tmp_path / "a.csv")


def test_columns_are_named_that_the_file_has_and_no_others(tmp_path):
    (tmp_path / "a.csv").write_text("label,score,gender\n0,0.1,male\n")
    with pytest.raises(ScoreTableError, match="it has: label, score, gender[.]"):
        column(read_scores(tmp_path / "a.csv"), "skin")
    parquet, _ = write_scores(read_scores(tmp_path / "a.csv"), tmp_path)
    with pytest.raises(ScoreTableError, match="video, logit_real"):
        column(read_scores(parquet), "skin")
