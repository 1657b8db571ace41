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
# | **Needs** | nothing; or a corpus obtained from its owners, and its annotations |
# | **Produces** | the rendered benchmark; crops, ledger and manifests in `prepared`; tables in `01_data_preparation/` |
# | **Time on 2 CPU cores** | about 30 seconds; once, two minutes more to render the benchmark and film a small corpus |
# | **Time on one GPU** | the same: decoding, detecting and rendering use the CPU |
#
# A detector of deepfakes answers "real" or "fake". It is unfair when its mistakes fall on some people more than on
# others: when, say, genuine videos of one group are called fake three times as often as those of another. To see such
# a thing, the data must say for every image
#
# - **the label**, because a false alarm can only happen on a real image and a miss only on a fake;
# - **the group** of the person shown, because a rate for each group is what is compared;
# - **the video**, because thirty frames of one video are not thirty independent observations;
# - **the identities**, the person shown and the person the forged face came from, because a detector that has met a
#   person in training may recognise the person instead of the forgery.
#
# Sections 1.1 to 1.3 look at data that is ready: the embedded benchmark, on which the other chapters run by default.
# Sections 1.4 to 1.10 take the videos of a corpus there: your own, by the parameters below, or a small one that is
# rendered. A parameters file with `corpora` runs this chapter once for each; `python -m fairdf_utils prepare` does the
# same for one of them without the chapter.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
image_size: int = 64  # pixels
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
corpus_root: str = ""  # folder of one corpus as its owners lay it out; "" renders a small corpus
layout: str = "ffpp"  # of corpus_root: ffpp, dfd, celebdf, dfdc, or folder (real/ and fake/)
dataset: str = ""  # name that its crops and manifests get; "" takes the layout's
compression: str = "c23"  # of the videos of ffpp and dfd: raw, c23 or c40
annotations: list = []  # CSV files of demographic annotations of that corpus, relative to notebooks/
mapping: str = ""  # of dfdc: CSV file from annotation ids to file names
split_by: str = "identity"  # or the folder of FF++'s split lists, or the path of Celeb-DF's test list
persons: str = "names"  # who is who: by the names of files or, as DFDC's tell no persons, by "faces"
same_person: float = 0.5  # distance of embeddings below which faces are one person's; of rendered ones about 0.33
prepared: str = "../runs/data/prepared"  # gets crops, ledgers and manifests of your corpora
frames: int = 6  # of each video, evenly spaced; the usual recipe takes 30
crop_size: int = 128  # side of a face crop, pixels; the usual recipe takes 256
margin: float = 1.3  # side of a crop in sides of the face
workers: int = -1  # processes that read videos; -1 takes all cores
seed: int = 0  # of the split

# %%
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.corpora import extraction, faces, layouts, splits, videos
from fairdf_utils.corpora.annotations import lost_by_group, merge, read_annotations, vote
from fairdf_utils.corpora.persons import identify
from fairdf_utils.data import checks
from fairdf_utils.data.batches import check_images, load_image
from fairdf_utils.data.manifests import SPLIT_FILES, group_table, read_manifest, read_split
from fairdf_utils.data.vocabulary import DATASETS, GROUPS, SIX_GROUPS, scheme_of
from fairdf_utils.fairness import metrics, sample_size
from fairdf_utils.figures import data, training
from fairdf_utils.rendered.images import image_folder
from fairdf_utils.rendered.videos import generate_videos

run = Run(run_dir, "01_data_preparation", dataset)
images_at = image_folder(image_root, data_dir, image_size, bias, data_seed)

# %% [markdown]
# ## 1.1 The book's data
#
# The real corpora (FaceForensics++, DFDC, Celeb-DF, DFD) are handed out by their owners only, so the book brings a
# *rendered* benchmark with their four names. Its faces are drawings, its "races" ranges of drawing parameters: it can
# show whether code, a metric or a method works, and nothing about real people. Chapter 6 explains how it is drawn.

# %%
benchmark = {
    f"{dataset} {split}": read_split(f"{manifests}/{dataset}", split, image_root)
    for dataset in DATASETS
    for split, files in SPLIT_FILES.items()
    if all(Path(manifests, dataset, file).exists() for file in files)
}
check_images(pd.concat(benchmark.values(), ignore_index=True), images_at)  # every row has its image
counts = {name: [len(rows), *np.bincount(rows["label"], minlength=2)] for name, rows in benchmark.items()}
pd.DataFrame.from_dict(counts, orient="index", columns=["images", "real", "fake"])

# %% [markdown]
# One real image of each group, and below it one fake. Which forgery made it stands above:

# %%
shown = next(rows for name, rows in benchmark.items() if name.endswith("test"))
shown = shown.sort_values("label", kind="stable").drop_duplicates(["label", "group"])
pictures = [load_image(images_at / path, image_size) for path in shown["img_path"]]
training.image_grid(pictures, (shown["group"] + "\n" + shown["forgery"]).tolist(), columns=shown["group"].nunique())

# %% [markdown]
# ## 1.2 A manifest row
#
# Everything in the book sees the data through *manifests*: CSV files with one row per image. Their columns are those of
# the released code, which thus reads them too, and a few more:

# %%
first_file = next(Path(manifests, name.split()[0], "test.csv") for name in benchmark if name.endswith("test"))
pd.read_csv(first_file, nrows=2, dtype=str, keep_default_na=False).T

# %% [markdown]
# `label` is 1 for a fake. `ismale`, `isasian`, ... are 1 for yes and -1 for no. `spe_label` (in files of fakes only)
# numbers the forgery from 1; a file that mixes reals and fakes names it in `forgery`. `intersec_label` is the
# *intersection* of gender $s$ (0 male, 1 female) and race $r$. With eight groups, $r$ counts asian, white, black,
# others; Celeb-DF and DFD have no asian group, and their files count six groups:
#
# $$ \text{code}_8 = 4s + r, \quad r \in \{0, 1, 2, 3\}; \qquad \text{code}_6 = 3s + r', \quad r' \in \{0, 1, 2\}. $$
#
# So the code 2 is a black man in one file and a man of the group "others" in the other. Two files that are
# concatenated without translation mix people up, and no error is raised. By hand:

# %% tags=["nbval-check-output"]
genders, races = ["male", "female"], ["asian", "white", "black", "others"]
eight = [f"{genders[code // 4]}-{races[code % 4]}" for code in range(8)]
six = [f"{genders[code // 3]}-{races[1 + code % 3]}" for code in range(6)]
print(pd.DataFrame({"eight groups": eight, "six groups": [*six, "", ""]}))

# %% [markdown]
# The package translates a file when it is read, and nowhere else; from then on a group is a name. It also reads the
# forms that the authors released later (`Image Path`, `Ground Truth Race` or `Skin Tone`, ...), and a column `group`
# with names of your own.

# %%
assert tuple(eight) == GROUPS and tuple(six) == SIX_GROUPS
for file in Path(manifests).glob("*/test.csv"):
    cells = pd.read_csv(file)
    if "intersec_label" in cells and not {"Image Path", "group"} & {*cells}:
        names = eight if "isasian" in cells else six
        assert [names[code] for code in cells["intersec_label"]] == read_manifest(file, image_root)["group"].tolist()
read_manifest(first_file, image_root).drop(columns="source").head(2).T

# %% [markdown]
# ## 1.3 Group tables: what each rate rests on
#
# **Why.** A rate for a group rests on the images of that group, and those on its videos and people.

# %%
show(group_table, docstring=False)

# %%
tables = {name: group_table(frame) for name, frame in benchmark.items()}
groups = pd.concat(tables, names=["split", "group"])
assert all(table["images"].sum() == len(benchmark[name]) for name, table in tables.items()), "nobody is left out"
assert (groups["reals"] + groups["fakes"] == groups["images"]).all()
groups["images"].unstack("split")[list(benchmark)].reindex(scheme_of(groups.index.get_level_values("group")))

# %%
training.group_counts(next(iter(tables.values())), title=next(iter(tables)))

# %%
one_class = groups[(groups["images"] > 0) & ((groups["reals"] == 0) | (groups["fakes"] == 0))]
absent = groups.index[groups["images"] == 0]
print("groups with one class only:", [" ".join(name) for name in one_class.index] or "none")
print("groups that are absent:", [": ".join(name) for name in absent] or "none")

# %% [markdown]
# **What you should see.** The benchmark's training set has the proportions of FF++'s (Lin et al. 2024 train on 76,139
# images): two groups hold about three quarters of it, and the rarest rests on very few people, so whatever a detector
# learns about that group, it learns from them. Its test sets are balanced; celebdf and dfd lack the two asian groups,
# as the corpora do. Alarming would be a group of a test set with one class only (it has no false-positive or no
# true-positive rate at all), as the male-white group of the released follow-up list of Celeb-DF.
#
# ## 1.4 Your corpus: what a name says
#
# From here on a corpus of videos becomes such manifests. By default a small one is rendered in the layout of FF++, with
# known faults planted in it.

# %%
planted = pd.DataFrame(columns=["file", "video", "flaw", "expected"])
if not corpus_root:
    home = generate_videos(f"{data_dir}/video_corpora")
    layout, corpus_root, annotations = "ffpp", str(home / "ffpp"), [str(home / "annotations/A-FF++.csv")]
    prepared = f"{data_dir}/prepared_rendered/{frames}x{crop_size}px"  # never among your own
    planted = pd.read_csv(home / "planted.csv")
    planted = planted[planted["file"].str.contains("ffpp|FF", regex=True)]

# %% [markdown]
# **Why.** None of the four corpora comes with a table of its videos. Label, forgery and persons are in folders and
# file names, in four different ways. In FaceForensics++ (`ffpp`) the fake `000_012.mp4` of the folder `Deepfakes` shows
# the person of the real video `000` with the face of `012`: it belongs to two identities. By hand:


# %% tags=["nbval-check-output"]
def told_by_ffpp(path):
    kind, folder, *_, name = Path(path).with_suffix("").parts
    told = {"video": f"{folder}/{name}", "label": int(kind == "manipulated_sequences")}
    return told | dict(zip(("identity", "source_identity"), (*name.split("_"), ""), strict=False))


told_by_ffpp("manipulated_sequences/Deepfakes/c23/videos/000_012.mp4")

# %%
corpus = dataset or layout
annotated = read_annotations(annotations, layout, mapping or None)  # a wrong path is not found after hours of decoding
listed = layouts.find_videos(corpus_root, layout, compression)
if layout == "ffpp":
    by_hand = pd.DataFrame(map(told_by_ffpp, listed["path"]))
    assert (by_hand == listed[by_hand.columns]).all(axis=None)
assert listed["path"].is_unique and set(listed["label"]) <= {0, 1}
listed.groupby(["label", "forgery"]).agg(videos=("video", "size"), identities=("identity", "nunique"))

# %% [markdown]
# **What you should see.** Every forgery of your copy, and no more videos than you have. A list such as DFDC's
# `metadata.json` may name any path; one that leads out of the root is refused before a file is opened. Alarming would
# be a forgery that is missing: the folder of another compression, or half a download.
#
# ## 1.5 Frames: which ones
#
# **Why.** Neighbouring frames are near copies, so a few frames spread over the video say as much as all of them. With
# $N$ frames, and $n$ asked for, the video is cut into $n$ equal parts and each gives its middle:
#
# $$ f_k = \left\lfloor \frac{(2k + 1)\, N}{2n} \right\rfloor, \qquad k = 0, \dots, n - 1. $$
#
# Reaching exactly these frames is harder than it looks. A video's clock may run unevenly, phones store a picture lying
# on its side with a note to turn it, and a download may end in the middle. `videos.read_frames` counts frames in the
# order in which they are shown, turns them upright, and gives the reason when a file breaks off. By hand:

# %% tags=["nbval-check-output"]
by_hand = [(2 * k + 1) * 16 // (2 * 4) for k in range(4)]
assert videos.positions(16, 4) == by_hand
print(f"of 16 frames, 4: {by_hand}; of 3 frames, 4: {videos.positions(3, 4)}")

# %%
show(videos.positions)

# %%
whole = listed[~listed["video"].isin(planted["video"])].sort_values("label", kind="stable")["path"]
for example in whole:
    with contextlib.suppress(videos.VideoError):  # the first one that can be read
        shots = list(videos.read_frames(layouts.locate(corpus_root, example), 4))
        break
print(f"{example}: frames {[number for number, _ in shots]} of {shots[0][1].shape[1::-1]} px")

# %% [markdown]
# ## 1.6 Face alignment
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

# %% tags=["nbval-check-output"]
w = faces.canonical(128, 1.3) @ [1, 1j]  # (5,), pixels of a crop
z = 2 * np.exp(1j * np.deg2rad(20)) * w + (30 + 40j)  # landmarks as a detector would find them in a frame
a = np.vdot(w - w.mean(), z - z.mean()) / np.vdot(w - w.mean(), w - w.mean()).real
b = z.mean() - a * w.mean()
print(f"scale {abs(a):.2f}, turned by {np.degrees(np.angle(a)):.1f} degrees, shifted by {b:.1f}")

# %%
show(faces.similarity)

# %% [markdown]
# `faces.align` must cut by the same map. A test picture of a slanted wave is aligned with these landmarks, and every
# pixel of the crop is compared with the wave at the place that the hand-made map gives it:


# %%
def wave(at):
    return 127 + 100 * np.sin(at.real / 23) * np.cos(at.imag / 31)


picture = wave(np.arange(600) + 1j * np.arange(600)[:, None])  # (600, 600)
picture = np.repeat(picture[..., None], 3, axis=2).round().astype(np.uint8)
as_found = faces.FoundFace((0, 0, 1, 1), np.stack([z.real, z.imag], axis=1), 1.0)
crop = faces.align(picture, as_found, 128, 1.3)
at = a * (np.arange(128) + 1j * np.arange(128)[:, None]) + b  # (128, 128), where each pixel of the crop comes from
inside = (at.real > 4) & (at.imag > 4) & (at.real < 595) & (at.imag < 595)
error = np.abs(crop[..., 0] - wave(at))[inside]
assert inside.mean() > 0.5 and error.max() < 6, "the package cuts what the formula says"
print(f"largest difference over {inside.sum():,} pixels: {error.max():.1f} of 255 levels")

# %%
seen = [faces.find(shot) for _, shot in shots]
cut = [
    faces.align(shot, found[0], crop_size, margin) if found else None
    for (_, shot), found in zip(shots, seen, strict=True)
]
seen_and_cut = data.detection([shot for _, shot in shots], seen, cut)
seen_and_cut.set_dpi(70)
seen_and_cut

# %% [markdown]
# **What you should see.** A box and five landmarks on every face that was found, and beside it the crop: upright, eyes
# at the same height in all. Alarming would be a crop that is turned, one that shows a part of the background as the
# face, or many frames without a box.
#
# ## 1.7 The ledger: every video has a row
#
# **Why.** A corpus has thousands of videos, and some are broken. One of them must not cost a night's work, and none may
# vanish without a word: what is lost is lost for somebody. So every video gets a row in a *ledger*: frames asked for
# and decoded, faces found and lost, and the reason if it failed. A video's crops appear all at once, and a run that was
# killed goes on with the first video that has no row.

# %%
with contextlib.redirect_stdout(io.StringIO()) as said:
    ledger = extraction.extract(
        corpus_root, layout, prepared, dataset=corpus, frames=frames, size=crop_size, margin=margin,
        compression=compression, jobs=workers,
    )  # fmt: skip
print(said.getvalue().split(";")[0])  # the rest of the line has its time
assert set(ledger["video"]) == set(listed["video"]), "every video has a row"
assert (ledger["found"] + ledger["lost"] == ledger["decoded"]).all() and (ledger["decoded"] <= ledger["asked"]).all()
not_whole = ledger.loc[ledger["status"] != "ok", ["video", "asked", "decoded", "found", "status", "reason"]]
not_whole.merge(planted[["video", "expected"]], how="left").fillna("") if len(planted) else not_whole

# %% [markdown]
# **What you should see.** A video that breaks off is used as far as it goes and marked as partial, one that holds
# nothing has a reason, and the run came to its end. In the rendered corpus the last column says what was planted.
# Alarming would be the same reason for most videos, such as a codec that cannot be read.
#
# ## 1.8 Annotations: who is shown
#
# **Why.** The corpora do not say who their people are. Xu et al. (2022) annotated their frames (1 has the attribute,
# -1 has it not, 0 undefined). Gender and race do not change within a video, but annotations do. So the frames of a
# video vote, and the majority is kept; a tie, or a video where nothing is defined, stays *undefined* and is kept out,
# as is a video that nobody annotated. By hand, on three videos of three frames:

# %% tags=["nbval-check-output"]
votes = pd.DataFrame({"video": list("aaabbbccc"), "male": [1, 1, 1, -1, 1, -1, 0, 0, 0]})
sums = votes[votes["male"] != 0].groupby("video")["male"].sum()
by_hand = sums.map(lambda total: "male" if total > 0 else "female" if total < 0 else "")
print(by_hand.reindex(list("abc"), fill_value="undefined").to_dict())

# %%
show(vote)

# %%
tiny = votes.assign(race="white")
tiny["gender"] = tiny.pop("male").map({1: "male", -1: "female", 0: ""})
settled, conflicts = vote(tiny)
assert settled["gender"].to_dict() == by_hand.reindex(list("abc"), fill_value="").to_dict()
assert conflicts["video"].tolist() == ["b"]

# %%
crops = extraction.crops(prepared, corpus)
merged = merge(crops, annotated)
assert len(crops) == len(merged.rows) + len(merged.unmatched) + len(merged.undefined), "no crop is lost silently"
merged.summary()

# %% [markdown]
# The first three lines add up to all crops. **What is lost, and for whom?** A face detector has groups that it serves
# badly, too. Faces that it misses never reach the deepfake detector, nor any table about it. So losses are counted by
# group, over all frames that were asked for:

# %%
lost = lost_by_group(ledger, annotated)
assert lost["videos"].sum() == len(ledger)
data.losses(lost)

# %% [markdown]
# **What you should see.** In the rendered corpus some videos of dark skin are filmed in little light, with a noisy
# camera; there the detector loses most. In your corpus, a group that loses many more faces than the others is
# under-represented in everything that follows, and what remains of it are its easier videos. The number belongs in
# every report.
#
# ## 1.9 Identity-disjoint split
#
# **Why.** A detector that sees a person's real *and* fake videos in training can learn this person's forgeries, or this
# person's camera. Met again in the test set, the person is recognised, and the test measures memory. So splits must
# share no image, no video and no identity; and a fake has two. Draw every person as a dot and every swap as a line:
# what hangs together must stay together.
#
# The clips of DFDC name no person, so a split by their names is *nominal*: its actors are on both sides. With `persons:
# faces`, dlib's face recognition network describes a face by 128 numbers; real videos whose mean vectors are on average
# closer than `same_person` count as one person, and fakes follow their original. What is printed below says how sure
# that is, and it differs by group: on rendered persons filmed twice, at a distance of 0.33, 15 of 100 pairs of Asian
# people of one gender were taken for one person, of white people 3. The page "Getting the corpora" has more.
#
# By hand, with the swaps 1-2, 2-3 and 4-5:


# %% tags=["nbval-check-output"]
def components(people, swaps):
    part_of = {person: person for person in people}
    for one, other in swaps:
        part_of = {person: part_of[one] if part == part_of[other] else part for person, part in part_of.items()}
    return sorted(sorted(person for person in people if part_of[person] == part) for part in set(part_of.values()))


components("12345", ["12", "23", "45"])

# %%
show(splits.identity_graph, docstring=False)

# %%
rows, told = identify(merged.rows, prepared, corpus, layout, split_by, persons, same_person, workers)
print(*told, sep="\n", end="\n" * bool(told))
graph = splits.identity_graph(rows)
some = graph.persons[graph.persons["component"] < 100]
swaps = graph.swaps.loc[graph.swaps["identity"].isin(some["identity"]), ["identity", "source_identity"]]
by_hand = components(some["identity"], swaps.to_numpy().tolist())
assert by_hand == sorted(sorted(part) for _, part in some.groupby("component")["identity"])
sizes = graph.persons["component"].value_counts()
print(f"{len(graph.persons):,} persons in {len(sizes):,} components, the largest of {sizes.max():,}")

# %% [markdown]
# The components are dealt out to training, validation and test sets, 60 to 20 to 20 by images, so that every group and
# label keeps its share as far as the components allow. In Celeb-DF the swaps connect all 59 people: kept together, they
# would be one component and leave nothing to test on. Then persons are assigned one by one, and the fakes whose two
# persons fall into different splits are dropped, and counted. FF++ and Celeb-DF also have official lists (`split_by`).

# %%
if split_by == "identity":
    parts = splits.split(rows, seed=seed)
elif layout == "ffpp":
    parts = splits.official_ffpp(merged.rows, split_by)
else:
    parts = splits.celebdf_test_list(merged.rows, split_by, seed=seed)
print(*parts.notes, sep="\n")
assert len(parts.rows) + len(parts.dropped) == len(merged.rows)


def in_several_splits(rows, columns):
    uses = pd.concat([rows[["split", name]].set_axis(["split", "value"], axis=1) for name in columns])
    return uses[uses["value"] != ""].groupby("value")["split"].nunique() > 1


leaks_of = {"image": ["img_path"], "video": ["video"], "identity": ["identity", "source_identity"]}
assert not any(in_several_splits(parts.rows, columns).any() for columns in leaks_of.values())
parts.shares().round(2)

# %%
data.identity_graph(graph, parts) if len(graph.persons) < 200 else None

# %% [markdown]
# **What you should see.** No line between two colours that is not dashed. The price of a clean split of a connected
# corpus is its fakes; of DFD and Celeb-DF much is dropped. Alarming would be a published split of Celeb-DF without a
# word about this: it has people on both sides.
#
# ## 1.10 Manifests and checks
#
# **Why.** A manifest with a wrong row does not crash a training; it spoils a group's rate quietly. So before anything
# is trained, the files are checked, each by itself, all against each other, and against their images. The same report
# comes from `python -m fairdf_utils check PREPARED/manifests/ffpp --images PREPARED`.

# %%
written_to = Path(prepared, "manifests", corpus)
splits.write_splits(parts, written_to)
names = [name for files in SPLIT_FILES.values() for name in files if (written_to / name).exists()]
written = pd.concat([read_manifest(written_to / name) for name in names])
assert sorted(written["img_path"]) == sorted(parts.rows["img_path"]), "what was split is what was written"
report = checks.check([written_to], images=prepared, size=crop_size)
print(str(report).replace(f"{written_to}/", ""))

# %% [markdown]
# A check that has never failed proves little. So the traps of the published lists are planted in copies of the first
# rows of these files:
# an image listed twice; a frame of a test video in the training set, as an off-by-one leaves it; a fake whose source is
# a person of the test set; a group's code that contradicts its columns; a path that leads out of the image root; a
# video whose label flips; and an image that is missing.


# %%
def plant(rows):
    reals, fakes, tested = rows["realtrain.csv"], rows["faketrain.csv"], rows["test.csv"]
    of_test = tested[(tested["label"] == "0") & tested.duplicated("video")].iloc[0]
    codes = len(GROUPS if "isasian" in fakes else SIX_GROUPS)
    fakes.loc[0, "source_identity"] = of_test["identity"]
    fakes.loc[1, "intersec_label"] = str((int(fakes.loc[1, "intersec_label"]) + 1) % codes)
    fakes.loc[2, "img_path"] = "../elsewhere/000001.png"
    reals.loc[0, "video"] = fakes.loc[3, "video"]
    reals.loc[1, "img_path"] = "nowhere/000001.png"
    again = pd.concat([reals, reals.iloc[[3]], of_test[reals.columns].to_frame().T])
    return rows | {"realtrain.csv": again}


# %%
wanted = ["same image twice", "leaked video", "leaked identity", "contradicting columns", "path outside the root"]
wanted += ["label flip", "missing image"]
caught = pd.DataFrame()
copies = {name: pd.read_csv(written_to / name, dtype=str, keep_default_na=False) for name in names}
copies = {name: cells.groupby("label").head(50).reset_index(drop=True) for name, cells in copies.items()}
again = [cells["video"][cells.duplicated("video") & (cells["label"] == "0")] for cells in copies.values()]
# A list may leave nothing to train on, and a corpus may be too small for seven faults.
if len(names) == 5 and min(map(len, copies.values())) > 3 and len(again[-1]):
    traps = run.path(".planted")
    traps.mkdir(parents=True, exist_ok=True)
    for name, cells in plant(copies).items():
        cells.to_csv(traps / name, index=False)
    caught = checks.check([traps], images=prepared, size=crop_size).errors
    assert set(wanted) <= set(caught["kind"]), set(wanted) - set(caught["kind"])
    caught = caught.query("kind in @wanted").drop_duplicates("kind").set_index("kind").loc[wanted]
    caught["file"] = caught["file"].map(lambda name: Path(name).name)
caught.drop(columns=["severity", "remedy"], errors="ignore")

# %% [markdown]
# **What you should see.** Seven planted faults, seven findings with file, line and value. In the files as they are, no
# error of these kinds. So small a corpus has others: groups that rest on a handful of videos, are absent from a split,
# or have one class only there; they are reported and not mended. Alarming in a list made by somebody else are leaks of
# the kind "video": in released lists of this field one frame of 86 videos lies on the wrong side, and such frames
# flatter a detector.
#
# What each rate will rest on, as in 1.3:

# %%
own = {split: group_table(rows) for split, rows in parts.rows.groupby("split")}
own = pd.concat({split: own[split] for split in SPLIT_FILES if split in own}, names=["split", "group"])
assert own["images"].sum() == len(parts.rows), "nobody is left out"
own[["reals", "fakes", "videos"]].unstack("split").reindex(GROUPS)

# %% [markdown]
# To run the whole book on your corpora, list them under `corpora` in a parameters file such as `params/gpu.yaml`: this
# chapter is run for each, and the others read `manifests` = the folder `manifests` below `prepared`, and `image_root` =
# `prepared`.
#
# ## 1.11 Sample size: how precisely can a group's rate be known?
#
# **Why.** Chapter 5 compares false-positive rates between groups. A rate is a share of reals that were called fake,
# $k$ of $n$; two groups differ by chance alone. With $p = k/n$ and $z = 1.96$, Wilson's 95 % interval is
#
# $$ \frac{1}{1 + z^2/n} \left( p + \frac{z^2}{2n} \;\pm\; z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}} \right). $$
#
# Its $n$ counts *independent* images. The $m$ frames of a video show the same person, light and camera, and tend to be
# right or wrong together. If their errors correlate by $\rho$, then $V$ videos are worth
#
# $$ n_\text{eff} = \frac{V m}{1 + (m - 1)\, \rho} $$
#
# images: $V m$ of them if $\rho = 0$, and no more than $V$ if $\rho = 1$, however many frames are added. By hand, for
# 20 % measured on a group of six videos of thirty frames whose errors correlate by one half:

# %% tags=["nbval-check-output"]
p, V, m, rho, z = 0.2, 6, 30, 0.5, 1.959964
n = V * m / (1 + (m - 1) * rho)
half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
print(f"worth {n:.1f} independent images: {centre - half:.2f} to {centre + half:.2f}")

# %%
show(metrics.rate_interval, docstring=False)

# %%
assert np.allclose(metrics.rate_interval(p * n, n), (centre - half, centre + half))
assert np.isclose(sample_size.interval_width(V, p, m, rho), 2 * half)
at_hand = parts.rows[(parts.rows["split"] == "test") & (parts.rows["label"] == 0)].groupby("group")["video"].nunique()
counted = {"released lists, smallest": 3, "released lists, small": 13, "many": 200, **at_hand}
width = {f"rho = {rho}": 100 * sample_size.interval_width(list(counted.values()), p, m, rho) for rho in (0, 0.5, 1)}
index = pd.Index([f"{name}: {count} videos" for name, count in counted.items()], name="width of the interval, points")
pd.DataFrame(width, index=index).round(1)

# %% [markdown]
# **What you should see.** A handful of videos leaves a rate open by some fifty points if the frames of a video err
# together, and then thirty frames instead of one do not help; the less they err together, the more they do. Four times
# as many videos about halve the width. This is for planning, with a $\rho$ that is guessed; chapter 5 has to learn it
# from the videos at hand, and its intervals are wider where these are few (six videos, $\rho = 0.5$: by about a
# seventh). So the largest gap between eight groups is large by chance alone, and chapter 5 prints this *sampling floor*
# beside every result. Alarming would be a published gap of a few points on a group of a dozen videos.
#
# ## Save

# %%
groups.to_csv(run.path("groups.csv"))
own.to_csv(run.path("own_groups.csv"))
lost.to_csv(run.path("faces_lost.csv"))
summary = {
    "videos": len(ledger),
    "videos_by_status": ledger["status"].value_counts().to_dict(),
    "crops": {"used": len(merged.rows), "unmatched": len(merged.unmatched), "undefined": len(merged.undefined)},
    "dropped_by_the_split": len(parts.dropped),
    "errors_in_the_manifests": report.errors["kind"].value_counts().to_dict(),
    "planted_faults_found": list(caught.index),
}
run.path("checks.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
run.finish(device="cpu", read=[Path(manifests), images_at, written_to])
sorted(path.name for path in run.folder.glob("[!.]*"))

# %% [markdown]
# ## Summary
#
# - A manifest is one CSV row per image; groups have names, codes are translated in one place.
# - Names of files tell label, forgery and persons; every video gets a row in a ledger, whatever is wrong with it.
# - Faces are laid over one canonical face; faces that the detector loses are counted by group.
# - Annotations vote within a video; nothing is lost silently. Splits share no person, and say what that costs.
# - Faults of a manifest are found before anything is trained. A group's rate rests on videos, not on frames.
#
# ## Exercises
#
# **1. A careless split.** A colleague pools the prepared manifests, shuffles the *rows* and cuts at 60 % and 80 %. How
# many images, videos and people leak?

# %% tags=["solution"]
pool = parts.rows.sample(frac=1, random_state=0)
cut_at = [round(0.6 * len(pool)), round(0.8 * len(pool))]
careless = pool.assign(split=np.repeat(["train", "val", "test"], np.diff([0, *cut_at, len(pool)])))
leaks = {kind: in_several_splits(careless, columns).sum() for kind, columns in leaks_of.items()}
print(f"of {pool['video'].nunique()} videos {leaks['video']} leak, of the people {leaks['identity']}, and")
print(f"{leaks['image']} images: a check of file names would call this split clean.")

# %% [markdown]
# **2. How many videos?** How many real videos does a group need so that a false-positive rate of 20 % is known to
# within 5 points on either side, if the frames of a video err together ($\rho = 1$)? And with $\rho = 0.5$ and thirty
# frames a video?

# %% tags=["solution", "nbval-check-output"]
enough = {rho: sample_size.videos_needed(0.10, 0.2, frames=30, correlation=rho) for rho in (1.0, 0.5)}
assert all(sample_size.interval_width(count, 0.2, frames=30, correlation=rho) <= 0.10 for rho, count in enough.items())
print(f"correlation 1: {enough[1.0]} videos; correlation 0.5: {enough[0.5]} videos")
