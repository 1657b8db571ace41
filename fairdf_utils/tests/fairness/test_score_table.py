"""Video-level scores: the mean of the frames, in both fidelities, and honest about contradictions."""

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
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
    path.write_text("label,score,skin,video\n0,0.1,1.0,1.0\n1,0.9,,1.5\n")
    assert read_scores(path, ["skin"])[["skin", "video"]].to_numpy().tolist() == [["1", "1.0"], [None, "1.5"]]


def test_names_are_text_as_it_stands_in_the_file(tmp_path):
    path = tmp_path / "given.csv"
    path.write_text("label,score,race,video,method\n0,0.1,NA,0001,real\n1,0.9,NA ,1,Deepfakes\n1,0.8,,0e2,Deepfakes\n")
    table = read_scores(path)
    assert table["race"].tolist() == ["NA", "NA", None] and table["video"].tolist() == ["0001", "1", "0e2"]
    assert table["forgery"].tolist() == ["real", "Deepfakes", "Deepfakes"] and "method" not in table
    table.set_index("video").to_parquet(tmp_path / "given.parquet")
    assert read_scores(tmp_path / "given.parquet")["video"].tolist() == ["0001", "1", "0e2"]


HEADER = "label,score,gender"
PACKED = gzip.compress(b"label,score,gender\n" + bytes(range(48, 58)) * 300, mtime=0)
BAD = [  # name of a file, its content, what is said of it
    ("a.csv", "label,gender,Prediction\n0,male,0.1\n", "Rename 'Prediction' to 'score'"),
    ("a.csv", f"{HEADER}\n0,-3.2,male\n", "line 2: -3.2 is not allowed.*apply the sigmoid if logits"),
    ("a.csv", f"{HEADER}\n\n0,0.1,male\n0,45%,male\n", "'score', line 4: 45% is not allowed.*divide by 100"),
    ("a.csv", f'{HEADER}\n0,"0,5",male\n', "line 2: 0,5 is not allowed.*decimal points"),
    ("a.csv", f"{HEADER}\n0,0.1,male\n1,NaN,male\n", "line 3: NaN is not allowed"),
    ("a.csv", f"{HEADER}\n0,inf,male\n", "line 2: inf is not allowed"),
    ("a.csv", f"{HEADER}\n0,0.1,male\n1,,male\n", "'score' is empty in 1 row, first in line 3"),
    (
        "a.csv",
        f"{HEADER}\n0,7,male\n2,0.1,male\n3,8,male\n",
        "line 3: 2 is not allowed .and 1 more row.*line 2: 7 .*row",
    ),
    ("a.csv", f"{HEADER}\nyes,0.1,male\n", "line 2: yes is not allowed.*0 .real. or 1 .fake."),
    ("a.csv", f"{HEADER}\n2,0.1,male\n", "line 2: 2 is not allowed"),
    ("a.csv", f"{HEADER},logit_fake\n0,0.1,male,-inf\n", "'logit_fake', line 2: -inf"),
    ("a.csv", "label\tscore\tgender\n0\t0.1\tmale\n", "separates its columns with tabs"),
    ("a.csv", "label;score;gender\n0;0,1;male\n", "separates its columns with semicolons"),
    ("a.csv", "label|score|gender\n0|0,1|male\n", "separates its columns with vertical bars"),
    ("a.csv", f"sep=,\n{HEADER}\n0,0.1,male\n", "line 1 .'sep=,'. is no header"),
    ("a.csv", f"# made by me, today\n{HEADER}\n0,0.1,male\n", "line 1 .'# made by me, today'. is no header"),
    ("a.csv", f"{HEADER}\n0,0.1,male,1,2\n0\n0,1,2,3,4,5,6,7\n", "line 2 has 5 cells, the header has 3 .and 2 more"),
    ("a.csv", f"{HEADER}\n0,0.1,male,\n1,0.2,male,\n", "line 2 has 4 cells, the header has 3"),
    ("a.csv", f"{HEADER}\r\n\r\n0,0.1,male\r\n1,0.2\r\n", "line 4 has 2 cells, the header has 3"),
    ("a.csv", f'{HEADER}\n0,0.1,"male\n1,0.2,male\n1,0.3,male\n', "line 2: a quotation mark opens a cell"),
    ("a.csv", "label,score,gender,score\n0,0.1,male,1\n", "'score' appears twice"),
    ("a.csv", "label,score,gender, Score\n0,0.1,male,1\n", "'score' appears twice .capitals"),
    ("a.csv", "label,Score,SCORE,gender\n0,0.1,0.2,male\n", "'score' appears twice"),
    ("a.csv", f"{HEADER},dataset\n0,0.1,male,a\n0,0.1,male, \n", "'dataset' is empty in 1 row, first in line 3"),
    ("a.csv", f"{HEADER},video\n0,0.1,male,\n", "'video' is empty in 1 row, first in line 2"),
    ("a.csv", f"{HEADER}\n", "nothing to judge"),
    ("a.csv", "", "nothing to judge"),
    ("a.csv", "label,score,sex\n0,0.1,male\n", "none of the columns gender, race, group; .*It has: label, score, sex"),
    ("a.csv", b"label,score,gender\n0,0.1,male\n0,0.1,f\xe9minin\n", "line 3 is no text in UTF-8"),
    ("a.csv", b"\xff\xfe\x00label", "line 1 is no text in UTF-8"),
    ("a.csv", "Results of my model\n", "line 1 .'Results of my model'. is no header: the first line names the columns"),
    ("a.csv", "label score gender\n", "separates its columns with blanks"),
    ("a.xlsx", "", "save it as .csv"),
    ("a.zip", "PK", "save it as .csv"),
    ("a.csv.gz", PACKED[:-30], "packed file .gzip. is damaged or cut off"),
    ("a.csv.zst", b"\x28\xb5\x2f\xfdnothing", "packed file .zstd. is damaged"),
    ("a.parquet", b"PAR1 and no more", "parquet file is damaged or cut off"),
]
JARGON = r"Errno|Traceback|codec|pandas|pyarrow|tokeniz|parser|0x|nan\b|dtype|object"


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_what_is_wrong_with_a_file_is_said_with_its_place_and_remedy(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ScoreTableError, match=said) as error:
        read_scores(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert not re.search(JARGON, str(error.value).removeprefix(str(tmp_path))) and str(error.value).endswith(".")


PLAIN = "video,race,label,score\na,NA,0,0.25\n01,black,1,0.75\n"
GOOD = [  # name of a file and content, each the same table
    ("a.csv", "\ufeff" + PLAIN),
    ("a.csv", PLAIN.replace("\n", "\r\n")),
    ("a.csv", PLAIN.upper().replace("BLACK", "black").replace("A,NA", "a,NA")),
    ("A.CSV", PLAIN.replace(",", " , ").replace("01", " 01")),
    ("a.csv", PLAIN.replace("a,NA", '"a","NA"')),
    ("a.csv", PLAIN.replace("0,0.25", "real,0.25").replace("1,0.75", " FAKE,7.5e-1")),
    ("a.csv", PLAIN.replace("0,0.25", "False,0.25").replace("1,0.75", " TRUE,0.75")),
    ("a.csv", PLAIN.replace(",score", ",score,").replace("25\n", "25,0\n").replace("75\n", "75,1\n")),
    ("a.csv", PLAIN + "\n,,,\n"),
    ("text.csv.gz", PLAIN),
    ("packed.csv", gzip.compress(PLAIN.encode(), mtime=0)),
    ("a.csv.ZST", pyarrow.compress(PLAIN.encode(), "zstd", asbytes=True)),
    ("A.PARQUET", None),
    ("index.parquet", "video"),
]


@pytest.mark.parametrize(("name", "content"), GOOD)
def test_one_table_in_many_clothes(tmp_path, name, content):
    (tmp_path / "plain.csv").write_text(PLAIN)
    plain, path = read_scores(tmp_path / "plain.csv"), tmp_path / name
    if name.lower().endswith("parquet"):
        given = plain[["video", "race", "label", "score"]]
        (given.set_index(content) if content else given).to_parquet(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_scores(path)
    assert found[["video", "race", "label", "score"]].to_dict() == {
        **{"video": {0: "a", 1: "01"}, "race": {0: "NA", 1: "black"}},
        **{"label": {0: 0, 1: 1}, "score": {0: 0.25, 1: 0.75}},
    }


def test_what_is_judged_is_no_grouping_and_only_capitals_are_said(tmp_path):
    (tmp_path / "a.csv").write_text("label,score,Skin,race\n0,0.1,1,a\n")
    with pytest.raises(ScoreTableError, match="by: 'label' is what is judged"):
        read_scores(tmp_path / "a.csv", ["label"])
    assert read_scores(tmp_path / "a.csv", ["Skin"])["Skin"].tolist() == ["1"]
    with pytest.raises(ScoreTableError, match="no column 'skin'.*Rename 'Skin' to 'skin'"):
        column(read_scores(tmp_path / "a.csv", ["skin"]), "skin")


def test_a_file_whose_name_is_no_text_is_named_all_the_same(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    path.write_text("label,score,gender\n0,7,male\n")
    with pytest.raises(ScoreTableError, match=r"\\xff.csv: Column 'score', line 2") as error:
        read_scores(path)
    str(error.value).encode()


def test_columns_are_named_that_the_file_has_and_no_others(tmp_path):
    (tmp_path / "a.csv").write_text("label,score,gender\n0,0.1,male\n")
    with pytest.raises(ScoreTableError, match="it has: label, score, gender[.]"):
        column(read_scores(tmp_path / "a.csv"), "skin")
    parquet, _ = write_scores(read_scores(tmp_path / "a.csv"), tmp_path)
    with pytest.raises(ScoreTableError, match="video, logit_real"):
        column(read_scores(parquet), "skin")
