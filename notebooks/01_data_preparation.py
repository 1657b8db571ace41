# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1. Data preparation: from videos to manifests
#
# | | |
# |---|---|
# | **Needs** | a corpus obtained from its owners, and its annotations; without them, small corpora are rendered |
# | **Produces** | crops, ledger and manifests in `prepared`; tables in `01_data_preparation/`; the rendered benchmark |
# | **Time on 2 CPU cores** | about 40 seconds; once, a minute and a half more to film the small corpora and render |
# | **Time on one GPU** | the same: decoding, detecting and rendering use the CPU |
#
# A detector of deepfakes answers "real" or "fake". It is unfair when its mistakes fall on some people more than on
# others: when, say, genuine videos of one group are called fake three times as often as those of another. To see such
# a thing, the data must say more than real or fake. It must say, for every image,
#
# - **the label**, because a false alarm can only happen on a real image and a miss only on a fake;
# - **the group** of the person shown, because a rate for each group is what is compared;
# - **the video**, because thirty frames of one video are not thirty independent observations;
# - **the identities**, the person shown and the person the forged face came from, because a detector that has met a
#   person in training may recognise the person instead of the forgery.
#
# Part I goes from the videos of a corpus to such data: find the videos, decode, detect, align and crop the faces, join
# the demographic annotations, split without an identity on two sides, check, and train one epoch on the result. Your
# own corpus goes the same way, by the parameters below. FaceForensics++, DFD, Celeb-DF and DFDC are handed out by
# their owners only, so by default small corpora are rendered, laid out as theirs are, with faults planted in them. Part
# II looks at the embedded benchmark, images of rendered faces with a known bias, on which chapters 2 to 5 run.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
corpus_root: str = ""  # folder of one corpus as its owners lay it out; "" renders small corpora
layout: str = "ffpp"  # of corpus_root: ffpp, dfd, celebdf, dfdc, or folder (real/ and fake/)
compression: str = "c23"  # of the videos of ffpp and dfd: raw, c23 or c40
annotations: list = []  # CSV files of demographic annotations of that corpus, relative to notebooks/
mapping: str = ""  # of dfdc: CSV file from annotation ids to file names
split_by: str = "identity"  # or the folder of FF++'s split lists, or the path of Celeb-DF's test list
prepared: str = "../runs/data/prepared"  # gets crops, ledgers and manifests of your corpora
frames: int = 6  # of each video, evenly spaced; the usual recipe takes 30
crop_size: int = 128  # side of a face crop, pixels; the usual recipe takes 256
margin: float = 1.3  # side of a crop in sides of the face
workers: int = -1  # processes that read videos; -1 takes all cores
manifests: str = "../data_manifests/synthetic"  # for Part II; one sub-folder a data set, ffpp among them
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
image_size: int = 64  # pixels
bias: float = 0.5  # bias knob of the embedded benchmark, 0..1
seed: int = 0  # of the split

# %%
import contextlib
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.corpora import annotations as annotation_files
from fairdf_utils.corpora import extraction as faces
from fairdf_utils.corpora import faces as alignment
from fairdf_utils.corpora import layouts as corpora
from fairdf_utils.corpora import splits
from fairdf_utils.corpora import videos as video
from fairdf_utils.data import checks as manifest_checks
from fairdf_utils.data import manifests as manifest_files
from fairdf_utils.data.batches import check_images, decode
from fairdf_utils.data.manifests import SPLIT_FILES, find_leaks, group_table, read_manifest, read_split
from fairdf_utils.data.vocabulary import DATASETS, FORGERIES, GROUPS, SIX_GROUPS
from fairdf_utils.fairness import metrics as fairness
from fairdf_utils.fairness import sample_size as power
from fairdf_utils.figures import data as plots_faces
from fairdf_utils.figures import fairness as plots_fairness
from fairdf_utils.figures import splits as plots_splits
from fairdf_utils.figures import style as plot_style
from fairdf_utils.figures import training as plots
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.stored import choose_device
from fairdf_utils.rendered import drawing as renderer
from fairdf_utils.rendered import forgeries as forgery
from fairdf_utils.rendered import images as synthetic
from fairdf_utils.rendered.people import draw_face, draw_scene
from fairdf_utils.rendered.videos import generate_videos
from fairdf_utils.training.loop import Training

run = Run(run_dir, "01_data_preparation")
style = {**sns.axes_style("whitegrid"), **plot_style.STYLE}  # of the figures drawn here
rendered = not corpus_root
if rendered:
    corpora_root, layout = generate_videos(f"{data_dir}/video_corpora"), "ffpp"
    corpus_root, annotations = str(corpora_root / layout), [str(corpora_root / "annotations" / "A-FF++.csv")]
    prepared = f"{data_dir}/prepared_rendered/{layout}-{frames}x{crop_size}px"  # never among your own
    planted = pd.read_csv(corpora_root / "planted.csv")
else:
    planted = pd.DataFrame(columns=["file", "video", "flaw", "expected"])

# %% [markdown]
# # Part I: your corpus
#
# ## 1.1 What a name says
#
# **Why.** None of the four corpora comes with a table of its videos. Label, forgery and persons are in folders and
# file names, in four different ways. In FaceForensics++ (`ffpp`) the fake `000_012.mp4` of the folder `Deepfakes` shows
# the person of the real video `000` with the face of `012`: it belongs to two identities. By hand:

# %%
# NBVAL_CHECK_OUTPUT
path = "manipulated_sequences/Deepfakes/c23/videos/000_012.mp4"
folder, name = path.split("/")[1], Path(path).stem
by_hand = {"video": f"{folder}/{name}", "label": 1, "forgery": folder}
by_hand |= dict(zip(("identity", "source_identity"), name.split("_"), strict=True))
by_hand

# %%
show(corpora.find_videos)

# %%
videos = corpora.find_videos(corpus_root, layout, compression)
if rendered and layout == "ffpp":
    found = videos.set_index("path").loc[path]
    assert all(found[column] == value for column, value in by_hand.items())
assert videos["path"].is_unique and set(videos["label"]) <= {0, 1}
videos.groupby(["label", "forgery"]).agg(videos=("video", "size"), identities=("identity", "nunique"))

# %% [markdown]
# **What you should see.** Every forgery of your copy, and no more videos than you have. A list such as DFDC's
# `metadata.json` may name any path; one that leads out of the root is refused before a file is opened. Alarming would
# be a method that is missing: the folder of another compression, or half a download.
#
# ## 1.2 Which frames
#
# **Why.** Neighbouring frames are near copies, so a few frames spread over the video say as much as all of them. With
# $N$ frames, and $n$ asked for, the video is cut into $n$ equal parts and each gives its middle:
#
# $$ f_k = \left\lfloor \frac{(2k + 1)\, N}{2n} \right\rfloor, \qquad k = 0, \dots, n - 1. $$

# %%
# NBVAL_CHECK_OUTPUT
by_hand = [(2 * k + 1) * 16 // (2 * 4) for k in range(4)]
assert video.positions(16, 4) == by_hand
print(f"of 16 frames, 4: {by_hand}; of 3 frames, 4: {video.positions(3, 4)}")

# %% [markdown]
# Reaching exactly these frames is harder than it looks. A video's clock may run unevenly, phones store a picture lying
# on its side with a note to turn it, and a download may end in the middle. `video.read_frames` counts frames in the order in
# which they are shown, turns them upright, and gives the reason when a file breaks off:

# %%
show(video.read_frames)

# %%
example = videos[(videos["label"] == 0) & ~videos["video"].isin(planted["video"])].iloc[0]
shots = list(video.read_frames(Path(corpus_root, example["path"]), 4))
print(f"{example['path']}: frames {[number for number, _ in shots]} of {shots[0][1].shape[1::-1]} px")
assert [number for number, _ in shots] == sorted({number for number, _ in shots})

# %% [markdown]
# ## 1.3 From a frame to an aligned face
#
# **Why.** A detector of forgeries should look at the face and not at the wall behind it, and a face that is always at
# the same place leaves it less to learn. So the largest face of a frame is found (by DLib's frontal face detector,
# which compares histograms of gradients), five landmarks are found in it (DLib's predictor: two corners of each eye,
# the base of the nose), and a *similarity transform*, which turns, scales and shifts but does not distort, lays the
# landmarks over those of a canonical face, whose eyes lie where ArcFace's template has them. With points as complex
# numbers, $w$ the landmarks of the canonical face and $z$ those found, the map $w \mapsto a\,w + b$ that comes closest
# to $z$ (least squares) is
#
# $$ a = \frac{\sum_k \overline{(w_k - \bar w)}\,(z_k - \bar z)}{\sum_k |w_k - \bar w|^2},
#    \qquad b = \bar z - a\,\bar w. $$
#
# $|a|$ is the scale and $\arg a$ the turn. The crop is drawn by asking, for each of its pixels, where in the frame it
# lies. By hand, on a face that is turned by 20 degrees and twice as large as the canonical one:

# %%
# NBVAL_CHECK_OUTPUT
target = alignment.canonical(crop_size, margin)  # (5, 2), pixels of the crop
w = target @ [1, 1j]
z = 2 * np.exp(1j * np.deg2rad(20)) * w + (30 + 40j)  # landmarks as a detector would find them in a frame
a = np.vdot(w - w.mean(), z - z.mean()) / np.vdot(w - w.mean(), w - w.mean()).real
b = z.mean() - a * w.mean()
print(f"scale {abs(a):.2f}, turned by {np.degrees(np.angle(a)):.1f} degrees, shifted by {b:.1f}")

# %%
show(alignment.align)

# %% [markdown]
# The package must find the same map. A test picture of a slanted wave is aligned with these landmarks, and every pixel
# of the crop is compared with the wave at the place that the hand-made map gives it:

# %%
height, width = 600, 600
wave = lambda at: 127 + 100 * np.sin(at.real / 23) * np.cos(at.imag / 31)  # noqa: E731
grid = np.arange(width)[None, :] + 1j * np.arange(height)[:, None]
picture = np.repeat(wave(grid)[..., None], 3, axis=2).round().astype(np.uint8)
as_found = alignment.FoundFace((0, 0, 1, 1), np.stack([z.real, z.imag], axis=1), 1.0)
crop = alignment.align(picture, as_found, crop_size, margin)
pixels = np.arange(crop_size)[None, :] + 1j * np.arange(crop_size)[:, None]
at = a * pixels + b
inside = (at.real > 4) & (at.imag > 4) & (at.real < width - 5) & (at.imag < height - 5)
error = np.abs(crop[..., 0] - wave(at))[inside]
assert inside.mean() > 0.5 and error.max() < 6, "the package cuts what the formula says"
print(f"largest difference over {inside.sum():,} pixels: {error.max():.1f} of 255 levels")

# %%
seen = [alignment.find(shot) for _, shot in shots]
cut = [
    alignment.align(shot, found[0], crop_size, margin) if found else None
    for (_, shot), found in zip(shots, seen, strict=True)
]
seen_and_cut = plots_faces.detection([shot for _, shot in shots], seen, cut)
seen_and_cut.set_dpi(70)
seen_and_cut

# %% [markdown]
# **What you should see.** A box and five landmarks on every face that was found, and beside it the crop: upright, eyes
# at the same height in all. Alarming would be a crop that is turned, one that shows a part of the background as the
# face, or many frames without a box.
#
# ## 1.4 All videos, and the ledger
#
# **Why.** A corpus has thousands of videos, and some are broken. One of them must not cost a night's work, and none may
# vanish without a word: what is lost is lost for somebody. So every video gets a row in a *ledger*: frames asked for
# and decoded, faces found and lost, and the reason if it failed. A video's crops appear all at once, and a run that was
# killed goes on with the first video that has no row.

# %%
show(faces.extract)

# %%
with contextlib.redirect_stdout(io.StringIO()) as said:
    ledger = faces.extract(
        corpus_root, layout, prepared, dataset=layout, frames=frames, size=crop_size, margin=margin,
        compression=compression, jobs=workers,
    )  # fmt: skip
print(said.getvalue().split(";")[0])  # the rest of the line has its time
assert set(ledger["video"]) == set(videos["video"]), "every video has a row"
assert (ledger["found"] + ledger["lost"] == ledger["decoded"]).all() and (ledger["decoded"] <= ledger["asked"]).all()
ledger.loc[ledger["status"] != "ok", ["video", "asked", "decoded", "found", "status", "reason"]]

# %% [markdown]
# The rendered corpus has three videos with a fault of their own, and some that are dark and noisy. What was planted,
# and what became of it:

# %%
of_videos = planted[planted["file"].str.endswith(".mp4")]
outcome = of_videos.merge(ledger, on="video", validate="one_to_one")
assert len(outcome) == len(of_videos)
clear = outcome[outcome["flaw"] != "dark"]  # there the detector may find a few faces, or none
should_fail = clear["expected"].str.startswith("failed") | (clear["flaw"] == "cut short")
assert ((clear["status"] != "ok") == should_fail).all()
outcome[["flaw", "expected", "decoded", "found", "several", "status", "reason"]]

# %% [markdown]
# **What you should see.** A video that breaks off is used as far as it goes and marked as partial, one that holds
# nothing has a reason, and the run came to its end. Videos without any face are listed too: for whom they are lost is
# asked below. Alarming would be the same reason for most videos, such as a codec that cannot be read.
#
# ## 1.5 Who is shown: the annotations
#
# **Why.** The corpora do not say who their people are. Xu et al. (2022) annotated their frames (1 has the attribute,
# -1 has it not, 0 undefined). Gender and race do not change within a video, but annotations do. So the frames of a
# video vote, and the majority is kept; a tie, or a video where nothing is defined, stays *undefined* and is kept out,
# as is a video that nobody annotated. By hand, on three videos of three frames:

# %%
# NBVAL_CHECK_OUTPUT
votes = pd.DataFrame({"video": list("aaabbbccc"), "male": [1, 1, 1, -1, 1, -1, 0, 0, 0]})
sums = votes[votes["male"] != 0].groupby("video")["male"].sum()
by_hand = sums.map(lambda total: "male" if total > 0 else "female" if total < 0 else "")
print(by_hand.reindex(list("abc"), fill_value="undefined").to_dict())

# %%
show(annotation_files.merge)

# %%
tiny = votes.assign(frame=[0, 1, 2] * 3, label=0, race="white", source="by hand")
tiny["gender"] = tiny.pop("male").map({1: "male", -1: "female", 0: ""})
three = {"img_path": ["a.png", "b.png", "c.png"], "video": list("abc"), "identity": list("abc")}
crops_of_tiny = pd.DataFrame(three).assign(label=0, method="real", source_identity="", frame=1)
settled = annotation_files.merge(crops_of_tiny, tiny)
assert settled.rows.set_index("video")["gender"].to_dict() == by_hand.to_dict()
assert settled.undefined["video"].tolist() == ["c"] and settled.conflicts["video"].tolist() == ["b"]

# %%
crops = faces.crops(prepared, layout)
table = annotation_files.read_annotations(annotations, layout, mapping or None)
merged = annotation_files.merge(crops, table)
assert len(crops) == len(merged.rows) + len(merged.unmatched) + len(merged.undefined), "no crop is lost silently"
merged.summary()

# %%
pd.concat({"votes differ": merged.conflicts, "real here, fake there": merged.disagreements}).dropna(axis=1, how="all")

# %%
if rendered and layout == "ffpp":
    flaws = planted.set_index("flaw")["video"]
    assert flaws["group flips"] in set(merged.conflicts["video"])
    assert flaws["undefined demographics"] in set(merged.undefined["video"])
    assert flaws["label disagreement"] in set(merged.disagreements["video"])
    assert flaws["crops without annotation"] in set(merged.unmatched["video"])
    assert flaws["annotated video does not exist"] in set(merged.unused["video"])
    assert len(merged.repeated) == 1
    print("all six planted faults of the annotations are found")

# %% [markdown]
# The first three lines add up to all crops.
#
# **What is lost, and for whom?** A face detector has groups that it serves badly, too. Faces that it misses never reach
# the deepfake detector, nor any table about it. So losses are counted by group, over all frames that were asked for:

# %%
lost = annotation_files.lost_by_group(ledger, table)
assert lost["videos"].sum() == len(ledger)
lost.query("videos > 0")

# %%
plots_faces.losses(lost)

# %% [markdown]
# **What you should see.** In the rendered corpus some videos of dark skin are filmed in little light, with a noisy
# camera; there the detector loses most. In your corpus, a group that loses many more faces than the others is
# under-represented in everything that follows, and what remains of it are its easier videos. The number belongs in
# every report.
#
# ## 1.6 Nobody on both sides
#
# **Why.** A detector that sees a person's real *and* fake videos in training can learn this person's forgeries, or this
# person's camera. Met again in the test set, the person is recognised, and the test measures memory. So splits must
# share no image, no video and no identity; and a fake has two. Draw every person as a dot and every swap as a line:
# what hangs together must stay together. By hand, with the swaps 1-2, 2-3 and 4-5:


# %%
# NBVAL_CHECK_OUTPUT
def components(people, swaps):
    home = {person: person for person in people}
    for one, other in swaps:
        home = {person: home[one] if at == home[other] else at for person, at in home.items()}
    return sorted(sorted(person for person in people if home[person] == at) for at in set(home.values()))


components("12345", ["12", "23", "45"])

# %%
show(splits.identity_graph)

# %%
graph = splits.identity_graph(merged.rows)
swaps = list(zip(graph.swaps["identity"], graph.swaps["source_identity"], strict=True))
by_hand = components(graph.persons["identity"], swaps)
assert by_hand == sorted(sorted(part) for _, part in graph.persons.groupby("component")["identity"])
print(f"{len(graph.persons)} persons in {len(by_hand)} components, the largest of {max(map(len, by_hand))}")

# %% [markdown]
# The components are dealt out to training, validation and test sets, 60 to 20 to 20 by images, so that every group and
# label keeps its share as far as the components allow. FF++ also has an official split, a list of pairs.

# %%
show(splits.split)

# %%
if split_by == "identity":
    parts = splits.split(merged.rows, seed=seed)
elif layout == "ffpp":
    parts = splits.official_ffpp(merged.rows, split_by)
else:
    parts = splits.celebdf_test_list(merged.rows, split_by, seed=seed)
print(*parts.notes, sep="\n")
assert len(parts.rows) + len(parts.dropped) == len(merged.rows)
assert find_leaks(dict(list(parts.rows.groupby("split")))).empty
parts.shares().round(2)

# %%
plots_splits.identity_graph(graph, parts) if len(graph.persons) < 200 else None

# %% [markdown]
# In Celeb-DF the swaps connect all 59 people: kept together, they would be one component and leave nothing to test on.
# Then persons are assigned one by one, and the fakes whose two persons fall into different splits are dropped, and
# counted. The same structure in small, eight persons who are each swapped with the next two:

# %%
swaps = [(n, "", 0) for n in range(8)] + [(n, (n + step) % 8, 1) for n in range(8) for step in (1, 2)]
connected = pd.DataFrame(swaps, columns=["identity", "source_identity", "label"]).astype({"source_identity": str})
connected["identity"] = connected["identity"].astype(str)
connected["video"] = "id" + connected["identity"] + "_id" + connected["source_identity"]
connected = connected.assign(
    img_path=connected["video"] + ".png", frame=0, gender="female", race="white", group="female-white",
    forgery=connected["label"].map({0: "real", 1: "Deepfakes"}),
)  # fmt: skip
border = splits.split(connected, seed=seed)
assert len(border.rows) + len(border.dropped) == len(connected)
print(*border.notes, border.losses().to_string(), sep="\n")
plots_splits.identity_graph(splits.identity_graph(connected), border)

# %% [markdown]
# **What you should see.** No line between two colours that is not dashed. The price of a clean split of a connected
# corpus is its fakes; of DFD and Celeb-DF much is dropped. Alarming would be a published split of Celeb-DF without a
# word about this: it has people on both sides.
#
# ## 1.7 Manifests, and what is wrong with them
#
# **Why.** Everything later in the book sees the data through CSV files, one row an image. Their columns are those of
# the released code, which thus reads them too, and four more.

# %%
at = Path(prepared, "manifests", layout)
splits.write_splits(parts, at)
pd.read_csv(at / "faketrain.csv", nrows=2, dtype=str, keep_default_na=False).T

# %% [markdown]
# `label` is 1 for a fake. `ismale`, `isasian`, ... are 1 for yes and -1 for no. `spe_label` (in files of fakes only)
# numbers the forgery method from 1; a file that mixes reals and fakes names it in `method`. `intersec_label` is the
# *intersection* of gender $s$ (0 male, 1 female) and race $r$. With eight groups, $r$ counts asian, white, black,
# others; Celeb-DF and DFD have no asian group, and their files count six groups:
#
# $$ \text{code}_8 = 4s + r, \quad r \in \{0, 1, 2, 3\}; \qquad \text{code}_6 = 3s + r', \quad r' \in \{0, 1, 2\}. $$
#
# So the code 2 is a black man in one file and a man of the group "others" in the other. Two files that are
# concatenated without translation mix people up, and no error is raised. By hand:

# %%
# NBVAL_CHECK_OUTPUT
genders, races = ["male", "female"], ["asian", "white", "black", "others"]
eight = [f"{genders[code // 4]}-{races[code % 4]}" for code in range(8)]
six = [f"{genders[code // 3]}-{races[1 + code % 3]}" for code in range(6)]
print(pd.DataFrame({"eight groups": eight, "six groups": [*six, "", ""]}))

# %% [markdown]
# The package translates a file when it is read, and nowhere else; it also reads the form that the authors released
# later (`Image Path`, `Ground Truth Race`, ...). From then on a group is a name.

# %%
show(manifest_files.read_manifest)

# %%
assert tuple(eight) == GROUPS and tuple(six) == SIX_GROUPS
for dataset, names in (("ffpp", eight), ("celebdf", six)):
    test_file = synthetic.MANIFESTS / dataset / "test.csv"
    by_hand = pd.read_csv(test_file)["intersec_label"].map(lambda code, names=names: names[code])
    assert by_hand.tolist() == read_manifest(test_file)["group"].tolist()
written = pd.concat([read_manifest(at / name) for files in SPLIT_FILES.values() for name in files])
assert sorted(written["img_path"]) == sorted(parts.rows["img_path"]), "what was split is what was written"

# %% [markdown]
# A manifest with a wrong row does not crash a training; it spoils a group's rate quietly. So before anything is
# trained, the files are checked, each by itself, all against each other, and against their images. The same report
# comes from `python -m fairdf_utils check PREPARED/manifests/ffpp --images PREPARED`.

# %%
show(manifest_checks.check)

# %%
report = manifest_checks.check([at], images=prepared, size=crop_size)
print(str(report).replace(f"{at}/", ""))
assert {"leaked video", "leaked identity", "missing image", "wrong size"}.isdisjoint(report.findings["kind"])

# %% [markdown]
# A check that has never failed proves little. So the traps of the published lists are planted in copies of these files,
# and each must be found: an image listed twice; a frame of a test video in the training set, as an off-by-one leaves
# it; a fake whose source is a person of the test set; a group's code that contradicts its columns; a path that leads
# out of the image root; a video whose label flips; an image that is missing, and one that is cut off.

# %%
traps, images_with_traps = run.path(".planted/manifests"), run.path(".planted/images")
names = [name for files in SPLIT_FILES.values() for name in files]
rows = {name: pd.read_csv(at / name, dtype=str, keep_default_na=False) for name in names}
rows = {name: table.groupby("label").head(30) for name, table in rows.items()}  # a part will do
for image in pd.concat(rows.values())["img_path"]:
    (images_with_traps / image).parent.mkdir(parents=True, exist_ok=True)
    (images_with_traps / image).write_bytes(Path(prepared, image).read_bytes())

train, test_rows = rows["realtrain.csv"], rows["test.csv"]
of_test = test_rows[test_rows["label"] == "0"].iloc[0]
fakes = rows["faketrain.csv"]
fakes.loc[0, "source_identity"] = of_test["identity"]
groups_of_file = len(GROUPS) if "isasian" in fakes else len(SIX_GROUPS)
fakes.loc[1, "intersec_label"] = str((int(fakes.loc[1, "intersec_label"]) + 1) % groups_of_file)
fakes.loc[2, "img_path"] = "../elsewhere/000001.png"
train.loc[0, "video"] = fakes.loc[3, "video"]
(images_with_traps / train.loc[1, "img_path"]).unlink()
cut_off = images_with_traps / train.loc[2, "img_path"]
cut_off.write_bytes(cut_off.read_bytes()[:1500])
rows["realtrain.csv"] = pd.concat([train, train.iloc[[3]], of_test[train.columns].to_frame().T])
traps.mkdir(parents=True, exist_ok=True)
for name, table_with_traps in rows.items():
    table_with_traps.to_csv(traps / name, index=False)

# %%
report_of_traps = manifest_checks.check([traps], images=images_with_traps, size=crop_size)
wanted = [
    "same image twice", "leaked video", "leaked identity", "contradicting columns", "path outside the root",
    "label flip", "missing image", "unreadable image",
]  # fmt: skip
assert set(wanted) <= set(report_of_traps.errors["kind"]), set(wanted) - set(report_of_traps.errors["kind"])
caught = report_of_traps.errors.query("kind in @wanted").drop_duplicates("kind").set_index("kind").loc[wanted]
pd.set_option("display.max_colwidth", 90)
caught.assign(file=caught["file"].map(lambda name: Path(name).name))[["file", "line", "column", "value", "finding"]]

# %% [markdown]
# **What you should see.** Eight planted faults, eight findings with file, line and value. In the files as they are, no
# error of these kinds. So small a corpus has others: groups that rest on a handful of videos (1.9), are absent from a
# split, or have one class only there; they are reported and not mended. Alarming in a list made by somebody else are
# leaks of the kind "video": in released lists of this field one frame of 86 videos lies on the wrong side, and such
# frames flatter a detector.
#
# ## 1.8 One epoch on the result
#
# **Why.** The proof of the data is that a training takes them. One epoch of the full method, on the crops and the
# manifests that were just made (of the plain detector where the corpus does not name its forgeries); chapter 3 explains
# what happens in it.

# %%
ready = {split: read_split(at, split) for split in ("train", "val")}
named = set(ready["train"]["forgery"]) <= set(FORGERIES)  # the full method learns to tell the forgeries apart
small = TrainingConfig(
    detector="first", method="fairdf" if named else "ori", backbone="tiny", weights="", image_size=image_size, width=64,
    initialisation="kaiming", logit_dropout=0.0, epochs=1, batch_size=16, optimizer="adamw", lr=3e-3,
    precision="float32", reconstruction_size=32,
)  # fmt: skip
with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
    history = Training(
        small, ready["train"], ready["val"], Path(scratch), Path(prepared), data_dir, choose_device("cpu", 1)
    ).run()
assert np.isfinite(history["loss"]).all() and history["val_auc"].between(0, 1).all()
print(f"{len(ready['train'])} crops, one epoch: loss {history['loss'].item():.2f}")

# %% [markdown]
# To run the whole book on your corpus, prepare each of the four data sets with this chapter, then give the other
# chapters `manifests` = the folder `manifests` below `prepared`, and `image_root` = `prepared` (in a parameters file
# such as `params/gpu.yaml`).
#
# ## 1.9 How precisely can a group's rate be known?
#
# **Why.** Chapter 5 will compare false-positive rates between groups. A rate is a share of reals that were called fake,
# counted on a few dozen videos; two groups differ by chance alone. With $k$ of $n$ reals called fake, $p = k/n$ and
# $z = 1.96$, Wilson's 95 % interval is
#
# $$ \frac{1}{1 + z^2/n} \left( p + \frac{z^2}{2n} \;\pm\; z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}} \right). $$
#
# It stays inside 0 and 1, and it does not collapse at $k = 0$. By hand:

# %%
k, n, z = 20, 100, 1.959964
p = k / n
half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)

# %%
show(fairness.rate_interval)

# %%
# NBVAL_CHECK_OUTPUT
assert np.allclose(fairness.rate_interval(k, n), (centre - half, centre + half))
print(f"{k} of {n}: {centre - half:.3f} to {centre + half:.3f}")
print("0 of {}: {:.3f} to {:.3f}".format(n, *fairness.rate_interval(0, n)))

# %% [markdown]
# This $n$ counts *independent* images. The $m$ frames of a video show the same person, light and camera, and tend to be
# right or wrong together. If their errors correlate by $\rho$, then $V$ videos are worth
#
# $$ n_\text{eff} = \frac{V m}{1 + (m - 1)\, \rho} $$
#
# images: $V m$ of them if $\rho = 0$, and no more than $V$ if $\rho = 1$, however many frames are added. To see that
# the formula holds, detectors are simulated: each video gets its own error rate (a beta distribution with mean 0.2 and
# correlation $\rho$), each frame errs by it, and the spread of the measured rate over many simulated test sets is
# compared with $\sqrt{p(1-p)/n_\text{eff}}$.

# %%
rng, rate, of_group, per_video = np.random.default_rng(0), 0.2, 6, 30
spread = {}
for rho in (0.1, 0.5, 0.9):
    scale = 1 / rho - 1
    of_video = rng.beta(rate * scale, (1 - rate) * scale, size=(5000, of_group))  # (test sets, videos)
    measured = rng.binomial(per_video, of_video).sum(1) / (of_group * per_video)  # (test sets,)
    n_effective = of_group * per_video / (1 + (per_video - 1) * rho)
    spread[rho] = [n_effective, measured.std(), np.sqrt(rate * (1 - rate) / n_effective)]
    assert np.isclose(spread[rho][1], spread[rho][2], rtol=0.05)
print(f"a group of {of_group} videos, {per_video} frames each, error rate {rate}")
pd.DataFrame(spread, index=["n_eff", "spread, simulated", "spread, formula"]).T.rename_axis("rho").round(3)

# %%
show(power.interval_width)

# %% [markdown]
# A rate of 20 % measured on a group of six videos, and on more; released test lists have groups of 3 to 13:

# %%
# NBVAL_CHECK_OUTPUT
widths = pd.DataFrame(
    {
        f"correlation {rho:g}": {
            f"{count} videos": 100 * power.interval_width(count, rate, frames=per_video, correlation=rho)
            for count in (3, 6, 13, 50, 200, 1000)
        }
        for rho in (0.0, 0.5, 1.0)
    }
)
low, high = fairness.rate_interval(rate * of_group, of_group)
assert np.isclose(widths.loc["6 videos", "correlation 1"], 100 * (high - low))
widths.round(1).rename_axis("width of the interval, points")

# %% [markdown]
# And the groups that were just prepared:

# %%
sizes = parts.rows[(parts.rows["split"] == "test") & (parts.rows["label"] == 0)].groupby("group")["video"].nunique()
plots_fairness.videos_and_width(rate, frames, at_hand=sizes.to_dict())

# %% [markdown]
# **What you should see.** The simulated spread agrees with the formula. A group of six videos leaves a rate open by
# some fifty points if the frames of a video err together, and then thirty frames instead of one do not help; the less
# they err together, the more they do. `power.design_effects` estimates how far, from a detector's scores. Four times
# as many videos about halve the width. So the largest gap between eight groups is large by chance alone, and chapter 5
# prints this *sampling floor* beside every result. Alarming would be a published gap of a few points on a group of a
# dozen videos.

# %% [markdown]
# # Part II: the embedded benchmark
#
# ## 1.10 The embedded benchmark
#
# **Why rendered faces?** The four corpora are given by their owners on request and cannot be part of a book. More
# important: nobody knows *why* a detector is unfair on them. Group, camera, light and compression come together, and
# the demographic labels are guesses of annotators. A benchmark that is rendered knows everything: who is shown, how
# each image was forged, and which bias was put in.
#
# **What it can show:** whether an implementation is right, whether a metric reacts to a bias of known size, whether a
# training method removes a known shortcut. **What it cannot show:** anything about real people. The faces are
# drawings, the "races" are ranges of drawing parameters, and no rate measured on them says how a detector treats
# anybody. Every result on these images is a result about the code and the method, and the book repeats this where
# numbers are shown.
#
# The images are rendered once and kept; the next run finds them.

# %%
images_at = synthetic.image_folder(image_root, data_dir, image_size, bias)
benchmark = {dataset: read_split(synthetic.MANIFESTS / dataset, "test") for dataset in DATASETS}
print({dataset: len(frame) for dataset, frame in benchmark.items()}, "test images")

# %% [markdown]
# One identity a group (rows), as it is and as each of the five forgeries makes it (columns); the bias knob, which
# section 1.11 explains, is at 0 here:

# %%
some = benchmark["ffpp"].query("label == 1").drop_duplicates("group")  # one identity per group, with each forgery
some = [some.assign(forgery=forgery, label=int(forgery != "real")) for forgery in FORGERIES]
sheet = np.concatenate([np.vstack(synthetic.render_rows(rows, size=128, bias=0.0)) for rows in some], axis=1)
assert sheet.shape == (len(GROUPS) * 128, len(FORGERIES) * 128, 3)
contact_sheet = plots.contact_sheet(sheet, GROUPS, FORGERIES)
contact_sheet.set_dpi(60)
contact_sheet

# %% [markdown]
# A face is an analytic function of *face coordinates* $(u, v)$: the pose is undone first, then some twenty-five soft
# shapes are painted over each other. What belongs to the person (`Face`) is drawn once for an identity; what belongs
# to the moment (`Scene`: pose, light, expression) is drawn anew; the camera comes last. Here is one person, with one
# thing changed at a time:

# %%
rng = np.random.default_rng(11)
face, clip = draw_face(rng, "female", "others"), draw_scene(rng, rng)
grain = renderer.skin_grain(rng, 128)
neutral = replace(clip, yaw=0.0, pitch=0.0, roll=0.0, light=(0.0, -0.3, 0.95), open=0.0, smile=0.0, blink=0.0)
changes = {
    "turned left": {"yaw": -0.4},
    "turned right": {"yaw": 0.4},
    "head tilted": {"roll": 0.15},
    "light from the left": {"light": (-0.7, -0.2, 0.7)},
    "light from the right": {"light": (0.7, -0.2, 0.7)},
    "flat light": {"ambient": 0.9},
    "smile": {"smile": 1.0},
    "mouth open": {"open": 0.08},
    "brows raised": {"raised": 0.06},
}
cameras = {
    "underexposed": forgery.Camera(gain=(0.6,) * 3, blur=0.3, noise=0.007, quality=90),
    "blurred": forgery.Camera(gain=(1.0,) * 3, blur=1.2, noise=0.007, quality=90),
    "noise, hard JPEG": forgery.Camera(gain=(1.0,) * 3, blur=0.3, noise=0.05, quality=35),
}
views = [renderer.paint(face, replace(neutral, **change), 128, grain) for change in changes.values()]  # (3, 128, 128)
person = renderer.paint(face, neutral, 128, grain)
jpegs = [forgery.capture(person, camera, rng) for camera in cameras.values()]
shots = [np.asarray(Image.open(io.BytesIO(jpeg))) / 255 for jpeg in jpegs]  # (128, 128, 3)
plots.image_grid([*(view.transpose(1, 2, 0) for view in views), *shots], [*changes, *cameras], columns=6)

# %% [markdown]
# **A forgery is a composite.** With the untouched frame $I$, another face $J$ painted with the same pose and light,
# and a mask $m(u, v) \in [0, 1]$ that follows the pose,
#
# $$ I_\text{fake} = (1 - m)\, I + m\, J. $$
#
# By hand, on a row of four pixels:

# %%
frame_by_hand = np.full((3, 1, 4), 0.2, dtype=np.float32)
mask = np.array([[0.0, 0.25, 0.5, 1.0]], dtype=np.float32)
by_hand = (1 - mask) * frame_by_hand + mask * 0.8

# %%
show(renderer.over)

# %%
renderer.over(frame_by_hand, mask, (0.8, 0.8, 0.8))  # in place
assert np.allclose(frame_by_hand, by_hand)

# %%
show(forgery.forge)

# %% [markdown]
# The same frame forged five ways, and below it where, and how strongly, each forgery changed the frame:

# %%
target, source = (draw_face(rng, "male", "white") for _ in range(2))
scene, driving = replace(neutral, yaw=0.15), replace(neutral, open=0.07, smile=0.8, raised=0.04)
untouched = renderer.paint(target, scene, 128, grain)
strength = synthetic.DOMAINS["ffpp"].strength
forged = {
    method: forgery.forge(untouched, method, target, source, scene, driving, grain, strength)
    for method in FORGERIES[1:]
}
changed = {method: np.abs(image - untouched).max(0) for method, image in forged.items()}  # (128, 128)
area = pd.Series({method: (difference > 0.02).mean() for method, difference in changed.items()})
for method, difference in changed.items():
    assert 0 < area[method] < 0.6, "a forgery changes a part of the face"
    assert difference[:8].max() == 0 and difference[:, :8].max() == 0, "and nothing of the surroundings"

faces_in_a_row = [image.transpose(1, 2, 0) for image in (untouched, *forged.values())]
differences = [np.zeros((128, 128)), *(np.clip(4 * difference, 0, 1) for difference in changed.values())]
captions = ["no change", *(f"{share:.0%} of the pixels" for share in area)]
plots.image_grid([*faces_in_a_row, *differences], [*FORGERIES, *captions], columns=6)

# %% [markdown]
# The four data sets differ in their cameras and in how good their forgeries are. Below, one person as each data set
# would photograph her (top), and her Deepfakes forgery there (bottom). In the benchmark itself no person occurs in two
# data sets.

# %%
same = benchmark["ffpp"].query("group == 'female-black' and frame == 0 and method in ('real', 'Deepfakes')")
real, fake = same[same["label"] == 0].iloc[:1], same[same["label"] == 1].iloc[:1]
real = real.assign(identity=fake["identity"].item())
rows = [
    row.assign(img_path=row["img_path"].str.replace("ffpp", dataset)) for row in (real, fake) for dataset in DATASETS
]
images = synthetic.render_rows(pd.concat(rows), size=128, bias=0.0)
titles = [f"{dataset}, {label}" for label in ("real", "Deepfakes") for dataset in DATASETS]
four_cameras = plots.image_grid(images, titles, columns=4)
four_cameras.set_dpi(75)
four_cameras

# %% [markdown]
# Last, what is stored is what is rendered: a pixel depends on the identity, the video, the frame, the size and the
# knob, and on nothing else, such as the order of rendering or the number of processes.

# %%
some = benchmark["dfdc"].sample(12, random_state=0)
rendered = synthetic.render_rows(some, image_size, bias)
if not image_root:
    assert np.array_equal(rendered, decode(some, images_at, image_size, data_dir))
assert np.array_equal(rendered[::-1], synthetic.render_rows(some[::-1], image_size, bias)), "order must not matter"

# %% [markdown]
# **What you should see.** Eight rows of faces that differ in skin, hair, eyes and face shape, each row one person and
# five forgeries. Deepfakes blurs the inner face, FaceSwap leaves a seam, FaceShifter a skin without grain;
# Face2Face and NeuralTextures change mouth and brows, or the mouth alone. The difference images are black outside
# the face: a forgery leaves no trace in the background. DFDC is darker and noisier, and Celeb-DF's forgery is the
# hardest to see. Alarming would be a forgery that nobody can see at this size, or one that shows from the background.

# %% [markdown]
# ## 1.11 The bias knob
#
# **Why.** To test a method that promises fairness, the data must be unfair in a way that is known. The knob $b$, from 0
# to 1, has two parts; a third is there whatever the knob says.
#
# 1. *Exposure.* Light that reaches the sensor falls with the skin's melanin $\mu \in [0, 1]$, so that dark skin drowns
#    in noise and forgeries on it are missed:
#    $$ \frac{\text{gain}(b)}{\text{gain}(0)} = 1 - 0.30\, b\, \mu, \qquad
#       \text{signal to noise} = \frac{g L}{\sqrt{\sigma^2 + 0.0002\, g L}}. $$
# 2. *Poor captures.* Some frames come from a poor camera (softer, noisier, harder JPEG): of the fakes the same share
#    $q = 0.45\, b$ in every group, of the reals a share $p_g = b\, P_g$ that depends on the group $g$. In a set with as
#    many fakes as reals,
#    $$ P(\text{fake} \mid \text{poor}, g) = \frac{q}{q + p_g}. $$
#    "Poor capture means fake" is a *shortcut*: right where $p_g$ is small, wrong where it is large.
# 3. *Prior.* The training set has FF++'s proportions of the groups, so a shortcut that is right for the majority pays.
#
# By hand: the noise of a grey card photographed at falling gain, and the shortcut's odds in each group at $b = 1$.

# %%
card, sigma = np.full((3, 256, 256), 0.5, dtype=np.float32), 0.03
for gain in (1.0, 0.85, 0.7):
    camera = forgery.Camera(gain=(gain,) * 3, blur=0.0, noise=sigma, quality=100)
    seen = np.asarray(Image.open(io.BytesIO(forgery.capture(card, camera, np.random.default_rng(0))))) / 255
    expected = gain * 0.5 / np.sqrt(sigma**2 + 0.0002 * gain * 0.5)
    print(f"gain {gain:.2f}: signal to noise {seen.mean() / seen.std():.1f}, by hand {expected:.1f}")
    assert np.isclose(seen.mean() / seen.std(), expected, rtol=0.03)

# %%
# NBVAL_CHECK_OUTPUT
poor_fakes, poor_reals = 0.45, [0.80, 0.03, 0.90, 0.60, 0.30, 0.03, 0.90, 0.75]
odds = pd.DataFrame({"share of reals that are poor": poor_reals}, index=GROUPS)
odds["P(fake | poor)"] = [poor_fakes / (poor_fakes + share) for share in poor_reals]
print(odds.round(2))
assert list(synthetic.POOR_REALS.values()) == poor_reals and poor_fakes == synthetic.POOR_FAKES

# %%
show(forgery.capture)

# %% [markdown]
# What a capture does to a light and to a dark face, with the knob turned up fully:

# %%
pair = [draw_face(np.random.default_rng(3), "male", race) for race in ("white", "black")]
good = {"gain": (1.0,) * 3, "blur": 0.25, "noise": 0.007, "quality": 90}
poor = {
    "blur": 0.25 + synthetic.POOR_BLUR,
    "noise": 0.007 + synthetic.POOR_NOISE,
    "quality": 90 - synthetic.POOR_QUALITY,
}
shots = []
for one in pair:
    picture = renderer.paint(one, neutral, 64, renderer.skin_grain(np.random.default_rng(4), 64))
    exposed = {**good, "gain": (1 - synthetic.EXPOSURE_LOSS * one.melanin,) * 3}
    for settings in (good, exposed, {**exposed, **poor}):
        jpeg = forgery.capture(picture, forgery.Camera(**settings), np.random.default_rng(5))
        shots.append(np.asarray(Image.open(io.BytesIO(jpeg))))
titles = [f"melanin {one.melanin:.2f}, {what}" for one in pair for what in ("knob 0", "exposure", "poor capture too")]
plots.image_grid(shots, titles, columns=3)

# %% [markdown]
# **On the data.** `ground_truth` tells for every row what the knob did. It is checked against the pixels: each person
# of the FF++ test set is rendered twice, with the knob as it is and with the knob at 0. The ratio of the two images'
# brightness is the exposure; the ratio of their edge contrast (mean absolute Laplacian), at the same brightness, falls
# where the capture was poor.

# %%
show(synthetic.ground_truth)

# %%
people = benchmark["ffpp"].query("label == 0 and frame == 0")
truth = synthetic.ground_truth(people, image_size, bias)
with_knob = synthetic.render_rows(people, image_size, bias).mean(-1)  # (200, H, H)
without = synthetic.render_rows(people, image_size, 0.0).mean(-1)

law = 1 - 0.30 * bias * truth["melanin"]
brightness = with_knob.mean((1, 2)) / without.mean((1, 2))
assert np.allclose(law, truth["gain"] / synthetic.ground_truth(people, image_size, 0.0)["gain"])
assert np.abs(brightness - law).max() < 0.03

edges = [
    np.abs(4 * x[:, 1:-1, 1:-1] - x[:, 2:, 1:-1] - x[:, :-2, 1:-1] - x[:, 1:-1, 2:] - x[:, 1:-1, :-2]).mean((1, 2))
    for x in (with_knob, without)
]
contrast = edges[0] / edges[1] / brightness
print(f"exposure: measured less the law, at most {np.abs(brightness - law).max():.4f}")
left_over = pd.Series(contrast, name="edge contrast left").groupby(truth["poor"].to_numpy()).agg(["min", "mean", "max"])
if bias:
    assert left_over.loc[True, "max"] < left_over.loc[False, "min"], "every poor capture is softer than every good one"
left_over.rename_axis("poor capture").round(2)

# %% [markdown]
# So the table can be believed, and the shares can be counted on all images of the four data sets.

# %%
everything = pd.concat([*benchmark.values(), *(read_split(synthetic.MANIFESTS / "ffpp", s) for s in ("train", "val"))])
everything = everything.reset_index(drop=True)
everything = everything.join(synthetic.ground_truth(everything, image_size, bias))
captured = everything.groupby(["group", "label"])["poor"].agg(["sum", "size"]).unstack().reindex(GROUPS)
capture = pd.DataFrame(
    {
        "reals": captured[("size", 0)],
        "poor_reals": captured[("sum", 0)] / captured[("size", 0)],
        "knob_reals": bias * pd.Series(synthetic.POOR_REALS),
        "fakes": captured[("size", 1)],
        "poor_fakes": captured[("sum", 1)] / captured[("size", 1)],
        "knob_fakes": bias * synthetic.POOR_FAKES,
        "gain": everything.groupby("group")["gain"].mean().reindex(GROUPS),
    }
)
for label, name in ((0, "reals"), (1, "fakes")):
    low, high = fairness.rate_interval(captured[("sum", label)], captured[("size", label)], level=0.9999)
    assert capture[f"knob_{name}"].between(low - 1e-9, high + 1e-9).all(), name
capture.round(3)

# %%
low, high = fairness.rate_interval(captured[("sum", 0)], captured[("size", 0)])
with plt.rc_context(style):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.plot(truth["melanin"], brightness, "o", markersize=4, color=plot_style.REAL, label="measured on the pixels")
    left.plot([0, 1], [1, 1 - 0.30 * bias], color="black", linewidth=1, label="the knob's law")
    left.set(xlabel="Melanin of the face (0 to 1)", ylabel="Exposure with / without the knob")
    right.hlines(GROUPS, 100 * low, 100 * high, color=plot_style.REAL, linewidth=5, label="counted, 95 % interval")
    right.plot(100 * capture["knob_reals"], GROUPS, "kx", label="the knob's share")
    right.set(xlabel="Reals that are poor captures (%)", ylim=(7.5, -0.5))
    left.legend()
    right.legend(fontsize=8)
plt.close(figure)
figure

# %% [markdown]
# And the shortcut itself: of the poor captures, how many are fakes? In the training set, where it is learned, and in
# each group of the FF++ test set, where it does its harm:

# %%
training = read_split(synthetic.MANIFESTS / "ffpp", "train")
in_training = training.join(synthetic.ground_truth(training, image_size, bias)["poor"])
in_test = everything.query("dataset == 'ffpp'").merge(benchmark["ffpp"][["img_path"]])
shortcut = in_test[in_test["poor"]].groupby("group")["label"].mean().reindex(GROUPS)
if bias:
    print(f"training set: {in_training[in_training['poor']]['label'].mean():.0%} of the poor captures are fakes")
shortcut.rename("fakes among poor captures, FF++ test").round(2).to_frame()

# %% [markdown]
# **What you should see.** Points on the line, crosses inside the bars. Most poor captures of the training set are
# fakes, so a detector that learns "poor means fake" does well there; in the groups with many poor reals the same rule
# is a coin toss or worse, and gives false alarms. The truth is known, so chapter 5 can ask whether a fairness
# metric finds it. Alarming would be a difference between good and poor captures that the pixels do not show. (Once
# more: the shares are numbers of this benchmark, chosen by its authors; they say nothing about people.)

# %% [markdown]
# ## 1.12 Who is in it: group tables
#
# **Why.** A rate for a group rests on the images of that group, and those on its videos and people. By hand, a group
# table is five counts; the package adds the groups that are absent, as zeros, so that they are not overlooked.

# %%
benchmark_splits = {
    f"{dataset} {split}": read_split(f"{manifests}/{dataset}", split)
    for dataset in DATASETS
    for split, files in SPLIT_FILES.items()
    if all(Path(manifests, dataset, file).exists() for file in files)
}
test = read_split(f"{manifests}/ffpp", "test")
check_images(pd.concat(benchmark_splits.values(), ignore_index=True), images_at)  # every row has its image

# %%
by_hand = {
    group: [
        len(rows),
        int((rows["label"] == 0).sum()),
        int((rows["label"] == 1).sum()),
        len(set(rows["video"])),
        len(set(rows["identity"])),
    ]
    for group, rows in test.groupby("group")
}

# %%
show(manifest_files.group_table)

# %%
tables = {name: group_table(frame) for name, frame in benchmark_splits.items()}
assert all(tables["ffpp test"].loc[group].tolist() == counts for group, counts in by_hand.items())
groups = pd.concat(tables, names=["split", "group"])
groups["images"].unstack("split")[list(benchmark_splits)].reindex(GROUPS)

# %%
plots.group_counts(tables["ffpp train"], title="FF++ training set")

# %%
plots.group_counts(tables["ffpp test"], title="FF++ test set")

# %% [markdown]
# The training set of the benchmark has the proportions of FF++'s (Lin et al. 2024 train on 76,139 images), at a
# smaller size. The test sets are balanced, so that no group's rate is less precise because the group is rare.

# %%
corpus = pd.Series([2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185], index=GROUPS)  # images of FF++'s training set
assert tuple(corpus) == synthetic.FFPP_PRIOR and corpus.sum() == 76139
drawn = group_table(training)["identities"]
prior = pd.DataFrame({"FF++": corpus / corpus.sum(), "benchmark": drawn / drawn.sum()})
assert (prior["FF++"] - prior["benchmark"]).abs().max() < 1 / drawn.sum(), "rounded to whole people"
assert group_table(benchmark["ffpp"])["images"].nunique() == 1, "the test set is balanced"
(100 * prior).round(1).rename_axis("share of the training set, %")

# %% [markdown]
# The margin loss of chapter 2 and the balanced baseline take these counts from the manifest, never from a constant.
# And a group with one class only has no false-positive or no true-positive rate at all; the book reports
# it as undefined and never drops it silently:

# %%
one_class = groups[(groups["images"] > 0) & ((groups["reals"] == 0) | (groups["fakes"] == 0))]
absent = groups.index[groups["images"] == 0]
print("groups with one class only:", [" ".join(name) for name in one_class.index] or "none")
print("groups that are absent:", [": ".join(name) for name in absent] or "none")
assert groups.query("images > 0")["videos"].gt(0).all()

# %% [markdown]
# **What you should see.** Two groups hold about three quarters of the training set; the rarest rests on very few
# people, so whatever a detector learns about that group, it learns from them. The test sets have as many reals as fakes
# in every group; celebdf and dfd lack the two asian groups, as the corpora do. Alarming would be a group of a test set
# with few videos (see 1.9) or with one class only, as the male-white group of the released follow-up list of Celeb-DF.

# %% [markdown]
# ## Save

# %%
groups.to_csv(run.path("groups.csv"))
capture.rename_axis("group").to_csv(run.path("capture.csv"))
lost.to_csv(run.path("faces_lost.csv"))
contact_sheet.savefig(run.path("contact_sheet.png"), dpi=120)
summary = {
    "videos": len(ledger),
    "videos_by_status": ledger["status"].value_counts().to_dict(),
    "crops": {"used": len(merged.rows), "unmatched": len(merged.unmatched), "undefined": len(merged.undefined)},
    "dropped_by_the_split": len(parts.dropped),
    "errors_in_the_manifests": report.errors["kind"].value_counts().to_dict(),
    "planted_faults_found": wanted,
    "exposure_error": float(np.abs(brightness - law).max()),
}
run.path("checks.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
names = ["layout", "compression", "annotations", "mapping", "split_by", "prepared", "frames", "crop_size", "margin"]
names += ["seed", "manifests", "image_root", "data_dir", "image_size", "bias"]
run.finish({name: globals()[name] for name in names}, device="cpu", read=[Path(manifests), images_at, at])
sorted(path.name for path in run.folder.glob("[!.]*"))

# %% [markdown]
# ## Summary
#
# - Names of files tell label, forgery and persons; every video gets a row in a ledger, whatever is wrong with it.
# - Faces are laid over one canonical face; faces that the detector loses are counted by group.
# - Annotations vote within a video; nothing is lost silently. Splits share no person, and say what that costs.
# - A manifest is one CSV row an image; groups have names, codes are translated in one place, and faults are found
#   before anything is trained.
# - A group's rate rests on videos, not on frames. The embedded benchmark knows its bias; it is no evidence about
#   people.
#
# ## Exercises
#
# **1. Turn the knob off.** Which of the knob's three parts remain at `bias = 0`? Answer with `ground_truth`, without
# rendering anything.

# %% tags=["solution"]
off = synthetic.ground_truth(benchmark["ffpp"], image_size, bias=0.0)
without_bias = off.groupby(benchmark["ffpp"]["group"])[["poor", "melanin", "gain"]].mean().reindex(GROUPS)
assert not off["poor"].any()  # no poor captures
assert off["gain"].between(*synthetic.DOMAINS["ffpp"].gain).all()  # exposure within the camera's range for everybody
assert len(set(group_table(training)["images"])) > 1  # the prior stays
without_bias.round(3)

# %% [markdown]
# **2. A careless split.** A colleague pools the prepared manifests, shuffles the *rows* and cuts at 60 % and 80 %. How
# many images, videos and people leak?

# %% tags=["solution"]
pool = parts.rows.sample(frac=1, random_state=0)
cut_at = [round(0.6 * len(pool)), round(0.8 * len(pool))]
careless = {"train": pool.iloc[: cut_at[0]], "val": pool.iloc[cut_at[0] : cut_at[1]], "test": pool.iloc[cut_at[1] :]}
leaks = find_leaks(careless)["kind"].value_counts()
assert "image" not in leaks and leaks["video"] > 0
print(f"{leaks['video']} of {pool['video'].nunique()} videos and {leaks['identity']} people leak, and not one image")

# %% [markdown]
# No image leaks, and a check of file names would call this split clean.
#
# **3. How many videos?** How many real videos does a group need so that a false-positive rate of 20 % is known to
# within 5 points on either side, if the frames of a video err together ($\rho = 1$)? And with $\rho = 0.5$ and thirty
# frames a video?

# %% tags=["solution"]
# NBVAL_CHECK_OUTPUT
enough = {rho: power.videos_needed(0.10, 0.2, frames=30, correlation=rho) for rho in (1.0, 0.5)}
assert enough[0.5] < enough[1.0]
assert all(power.interval_width(count, 0.2, frames=30, correlation=rho) <= 0.10 for rho, count in enough.items())
print(f"correlation 1: {enough[1.0]} videos; correlation 0.5: {enough[0.5]} videos")
