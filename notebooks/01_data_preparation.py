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
# # 1. Data: who is in it
#
# | | |
# |---|---|
# | **Needs** | the manifests in `data_manifests/`; no download |
# | **Produces** | rendered images; `01_data_preparation/{groups.csv, capture.csv, checks.json, contact_sheet.png}` |
# | **Time on 2 CPU cores** | about 20 seconds, and once about half a minute to render 11,000 images |
# | **Time on one GPU** | the same: rendering and counting use the CPU |
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
# And every group needs reals *and* fakes, enough of both. This chapter reads such data, renders a benchmark whose
# bias is known, counts who is in it, checks that nobody is on both sides of a split, and asks how precisely a rate
# can be known at all.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
image_size: int = 64  # pixels
bias: float = 0.5  # bias knob of the embedded benchmark, 0..1

# %%
import io
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

import fairdf_utils.data
import fairdf_utils.forgery
import fairdf_utils.manifests
import fairdf_utils.renderer
import fairdf_utils.synthetic
from fairdf_utils import fairness, forgery, plots, renderer, synthetic
from fairdf_utils.book import Run, show
from fairdf_utils.data import check_images, decode, locate_images
from fairdf_utils.manifests import (
    DATASETS,
    GROUPS,
    METHODS,
    SIX_GROUPS,
    SPLIT_FILES,
    ManifestError,
    find_leaks,
    group_table,
    read_manifest,
    read_split,
    write_manifest,
)

run = Run(run_dir, "01_data_preparation")
style = {**sns.axes_style("whitegrid"), **plots.STYLE}  # of the two figures drawn here

# %% [markdown]
# ## 1.1 A manifest: one row an image
#
# **Why.** Everything later in the book sees the data through these CSV files. The four corpora of the paper differ in
# folders, names and labels; once each is a manifest, training and audit need to know none of that. Here are the first
# rows of two manifests of the embedded benchmark, turned on their side: fakes to train on, and the test set that
# stands in for Celeb-DF.

# %%
pd.read_csv(f"{synthetic.MANIFESTS}/ffpp/faketrain.csv", nrows=2).T

# %%
pd.read_csv(f"{synthetic.MANIFESTS}/celebdf/test.csv", keep_default_na=False).iloc[[0, -1]].T

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
# The package translates a file when it is read, and nowhere else. From then on a group is a name.

# %%
show(fairdf_utils.manifests.read_manifest)

# %%
assert tuple(eight) == GROUPS and tuple(six) == SIX_GROUPS
for dataset, names in (("ffpp", eight), ("dfdc", eight), ("celebdf", six), ("dfd", six)):
    path = synthetic.MANIFESTS / dataset / "test.csv"
    by_hand = pd.read_csv(path)["intersec_label"].map(lambda code, names=names: names[code])
    assert by_hand.tolist() == read_manifest(path)["group"].tolist()

forged_by = pd.read_csv(synthetic.MANIFESTS / "ffpp/faketrain.csv")["spe_label"].map(lambda code: METHODS[code])
assert forged_by.tolist() == read_manifest(synthetic.MANIFESTS / "ffpp/faketrain.csv")["method"].tolist()
read_manifest(synthetic.MANIFESTS / "celebdf/test.csv").drop(columns="source").iloc[[0, -1]].T

# %% [markdown]
# **What you should see.** The translated rows carry names for method, gender, race and group, whatever the file's
# codes were. The columns `video`, `identity` and `source_identity` are our addition; a foreign file without them is
# read too, with the video taken from the image's name. Alarming would be a group that does not occur in a data
# set: a celebdf row with an asian group means that a file of one form was read as the other.

# %% [markdown]
# ## 1.2 The embedded benchmark
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
images_at = locate_images(image_root, data_dir, image_size, bias)
benchmark = {dataset: read_split(synthetic.MANIFESTS / dataset, "test") for dataset in DATASETS}
print({dataset: len(frame) for dataset, frame in benchmark.items()}, "test images")

# %% [markdown]
# One identity a group (rows), as it is and as each of the five forgeries makes it (columns); the bias knob, which
# section 1.3 explains, is at 0 here:

# %%
sheet = synthetic.contact_sheet(size=128, bias=0.0)
assert sheet.shape == (len(GROUPS) * 128, len(METHODS) * 128, 3)
contact_sheet = plots.contact_sheet(sheet, GROUPS, METHODS)
contact_sheet.set_dpi(75)
contact_sheet

# %% [markdown]
# A face is an analytic function of *face coordinates* $(u, v)$: the pose is undone first, then some twenty-five soft
# shapes are painted over each other. What belongs to the person (`Face`) is drawn once for an identity; what belongs
# to the moment (`Scene`: pose, light, expression) is drawn anew; the camera comes last. Here is one person, with one
# thing changed at a time:

# %%
rng = np.random.default_rng(11)
face, clip = renderer.draw_face(rng, "female", "others"), renderer.draw_scene(rng, rng)
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
show(fairdf_utils.renderer.over)

# %%
renderer.over(frame_by_hand, mask, (0.8, 0.8, 0.8))  # in place
assert np.allclose(frame_by_hand, by_hand)

# %%
show(fairdf_utils.forgery.forge)

# %% [markdown]
# The same frame forged five ways, and below it where, and how strongly, each forgery changed the frame:

# %%
target, source = (renderer.draw_face(rng, "male", "white") for _ in range(2))
scene, driving = replace(neutral, yaw=0.15), replace(neutral, open=0.07, smile=0.8, raised=0.04)
untouched = renderer.paint(target, scene, 128, grain)
strength = synthetic.DOMAINS["ffpp"].strength
forged = {
    method: forgery.forge(untouched, method, target, source, scene, driving, grain, strength) for method in METHODS[1:]
}
changed = {method: np.abs(image - untouched).max(0) for method, image in forged.items()}  # (128, 128)
area = pd.Series({method: (difference > 0.02).mean() for method, difference in changed.items()})
for method, difference in changed.items():
    assert 0 < area[method] < 0.6, "a forgery changes a part of the face"
    assert difference[:8].max() == 0 and difference[:, :8].max() == 0, "and nothing of the surroundings"

faces_in_a_row = [image.transpose(1, 2, 0) for image in (untouched, *forged.values())]
differences = [np.zeros((128, 128)), *(np.clip(4 * difference, 0, 1) for difference in changed.values())]
captions = ["no change", *(f"{share:.0%} of the pixels" for share in area)]
plots.image_grid([*faces_in_a_row, *differences], [*METHODS, *captions], columns=6)

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
plots.image_grid(images, [f"{dataset}, {label}" for label in ("real", "Deepfakes") for dataset in DATASETS], columns=4)

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
# ## 1.3 The bias knob
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
show(fairdf_utils.forgery.capture)

# %% [markdown]
# What a capture does to a light and to a dark face, with the knob turned up fully:

# %%
pair = [renderer.draw_face(np.random.default_rng(3), "male", race) for race in ("white", "black")]
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
show(fairdf_utils.synthetic.ground_truth)

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
    left.plot(truth["melanin"], brightness, "o", markersize=4, color=plots.REAL, label="measured on the pixels")
    left.plot([0, 1], [1, 1 - 0.30 * bias], color="black", linewidth=1, label="the knob's law")
    left.set(xlabel="Melanin of the face (0 to 1)", ylabel="Exposure with / without the knob")
    right.hlines(GROUPS, 100 * low, 100 * high, color=plots.REAL, linewidth=5, label="counted, 95 % interval")
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
# ## 1.4 Who is in it: group tables
#
# **Why.** A rate for a group rests on the images of that group, and those on its videos and people. By hand, a group
# table is five counts; the package adds the groups that are absent, as zeros, so that they are not overlooked.

# %%
splits = {
    f"{dataset} {split}": read_split(f"{manifests}/{dataset}", split)
    for dataset in DATASETS
    for split, files in SPLIT_FILES.items()
    if all(Path(manifests, dataset, file).exists() for file in files)
}
test = read_split(f"{manifests}/ffpp", "test")
check_images(pd.concat(splits.values(), ignore_index=True), images_at)  # every row has its image

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
show(fairdf_utils.manifests.group_table)

# %%
tables = {name: group_table(frame) for name, frame in splits.items()}
assert all(tables["ffpp test"].loc[group].tolist() == counts for group, counts in by_hand.items())
groups = pd.concat(tables, names=["split", "group"])
groups["images"].unstack("split")[list(splits)].reindex(GROUPS)

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
# people, so whatever a detector learns about that group, it learns from them. The test sets have as many reals as
# fakes in every group; celebdf and dfd lack the two asian groups, as the corpora do. Alarming would be a group of a
# test set with few videos (see 1.7) or with one class only, as the male-white group of one released Celeb-DF list.

# %% [markdown]
# ## 1.5 Nobody on both sides
#
# **Why.** A detector that sees a person's real *and* fake videos in training can learn this person's forgeries, or this
# person's camera. Met again in the test set, the person is recognised, and the test measures memory. So splits must
# share no image, no video and no identity; and the identities of a fake are two, the person shown and the person the
# forged face comes from. With $A$ and $B$ the sets of values in two splits, a leak is an element of $A \cap B$. By
# hand:


# %%
def people_in(frame):
    return (set(frame["identity"]) | set(frame["source_identity"])) - {""}


names = list(splits)
shared = {(a, b): people_in(splits[a]) & people_in(splits[b]) for i, a in enumerate(names) for b in names[i + 1 :]}

# %%
show(fairdf_utils.manifests.find_leaks)

# %%
# NBVAL_CHECK_OUTPUT
leaks = find_leaks(splits)
assert set(leaks.query("kind == 'identity'")["value"]) == set().union(*shared.values())
assert leaks.empty, f"{len(leaks)} leaks, the first: {leaks.iloc[0].to_dict()}; drop these rows from one of the splits"
print(f"{len(splits)} splits, {len(people_in(pd.concat(splits.values())))} people, {len(leaks)} leaks")

# %% [markdown]
# A check that has never failed proves little. So a leak is planted, twice. First, one frame of one test video moves to
# the training set, as an off-by-one in a script that splits lists of frames does:

# %%
ffpp = {split: splits[f"ffpp {split}"] for split in ("train", "val", "test")}
moved = ffpp["test"].iloc[[0]]
frame_leak = find_leaks(
    {**ffpp, "train": pd.concat([ffpp["train"], moved]), "test": ffpp["test"].drop(index=moved.index)}
)
assert (frame_leak["splits"] == "train, test").all() and {"video", "identity"} <= set(frame_leak["kind"])
assert moved["video"].item() in set(frame_leak["value"])
frame_leak

# %% [markdown]
# Second, one training fake takes its face from a person of the test set. No image and no video is shared, and the
# person shown is a training person; only the source gives the leak away:

# %%
swapped = ffpp["train"].copy()
swapped.loc[0, "source_identity"] = ffpp["test"]["identity"].iloc[-1]
source_leak = find_leaks({**ffpp, "train": swapped})
assert source_leak.values.tolist() == [["identity", ffpp["test"]["identity"].iloc[-1], "train, test"]]
source_leak

# %% [markdown]
# **What you should see.** No leak as the data are, and each planted one found, by name. In the public corpora the
# identities are tangled: the swaps of Celeb-DF connect all its people, so that a split without shared people must drop
# the fakes whose two people fall on different sides. Alarming would be leaks of the kind "video" in a list made by
# somebody else: they are common, and they flatter a detector.

# %% [markdown]
# ## 1.6 Wrong rows
#
# **Why.** A manifest with a wrong row does not crash a training; it spoils a group's rate quietly. So reading is
# strict, and an error is one sentence with the file, the line, the column, the value and the remedy. Here each fault is
# planted in a copy of a small manifest (by hand: change one cell, or drop one column), read, and the message printed.

# %%
good = run.path("planted/good.csv")
write_manifest(test.groupby(["group", "label"]).head(1), good)
assert read_manifest(good)["img_path"].tolist() == test.groupby(["group", "label"]).head(1)["img_path"].tolist()
faults = {
    "unknown group": {"intersec_label": "8"},
    "contradictory columns": {"ismale": "-1"},
    "label not 0 or 1": {"label": "fake"},
    "leaves the image root": {"img_path": "../other/0001.jpg"},
}

# %%
# NBVAL_CHECK_OUTPUT
caught = {}
for name, change in faults.items():
    wrong = pd.read_csv(good, dtype=str, keep_default_na=False)
    wrong.loc[0, list(change)] = list(change.values())
    bad = run.path(f"planted/{name.replace(' ', '_')}.csv")
    wrong.to_csv(bad, index=False)
    try:
        read_manifest(bad)
    except ManifestError as error:
        caught[name] = str(error).replace(f"{bad.parent}", "planted")
    print(f"{name}\n    {caught[name]}\n")
    assert "line 2" in caught[name] and next(iter(change)) in caught[name]

# %% [markdown]
# Two more faults concern the file as a whole and the images behind it. The images are checked before they are decoded:

# %%
show(fairdf_utils.data.check_images)

# %%
bad = run.path("planted/no_group.csv")
pd.read_csv(good, dtype=str, keep_default_na=False).drop(columns="intersec_label").to_csv(bad, index=False)
try:
    read_manifest(bad)
except ManifestError as error:
    caught["missing column"] = str(error).replace(f"{bad.parent}", "planted")
try:
    check_images(test.assign(img_path=test["img_path"].where(test.index != 5, "ffpp/real/9999_000.jpg")), images_at)
except ManifestError as error:
    caught["missing image"] = str(error).replace(f"{images_at}", "the image root")
print(caught["missing column"], caught["missing image"], sep="\n\n")
assert "line 1" in caught["missing column"] and "line 7" in caught["missing image"]

# %% [markdown]
# **What you should see.** Six faults, six sentences, each with the place and what to do. Alarming would be a
# silent pass, or a message that names neither file nor line: in a list of 76,139 rows nobody finds the wrong one.

# %% [markdown]
# ## 1.7 How precisely can a group's rate be known?
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
show(fairdf_utils.fairness.rate_interval)

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
reals = test[test["label"] == 0]
videos, frames = reals.groupby("group")["video"].nunique().min(), len(reals) // reals["video"].nunique()
rng, rate = np.random.default_rng(0), 0.2
spread = {}
for rho in (0.1, 0.5, 0.9):
    scale = 1 / rho - 1
    of_video = rng.beta(rate * scale, (1 - rate) * scale, size=(5000, videos))  # (test sets, videos)
    measured = rng.binomial(frames, of_video).sum(1) / (videos * frames)  # (test sets,)
    n_effective = videos * frames / (1 + (frames - 1) * rho)
    spread[rho] = [n_effective, measured.std(), np.sqrt(rate * (1 - rate) / n_effective)]
    assert np.isclose(spread[rho][1], spread[rho][2], rtol=0.05)
print(f"{videos} videos of {frames} frames, error rate {rate}")
pd.DataFrame(spread, index=["n_eff", "spread, simulated", "spread, formula"]).T.rename_axis("rho").round(3)

# %% [markdown]
# The width of the 95 % interval against the number of videos a group, for a rate of 20 %; the dots are the test sets at
# hand, with the smallest group of each:

# %%
sizes = {
    name: rows[rows["label"] == 0].groupby("group")["video"].nunique().min()
    for name, rows in splits.items()
    if name.endswith("test")
}
counts = np.arange(3, max(200, *sizes.values()) + 1)
width = {}
for rho in (0.0, 0.5, 1.0):
    n = counts * frames / (1 + (frames - 1) * rho)
    low, high = fairness.rate_interval(rate * n, n)
    width[rho] = pd.Series(100 * (high - low), index=counts)
widths = {name: [curve.get(size, np.nan) for curve in width.values()] for name, size in sizes.items()}

with plt.rc_context(style):
    figure, axes = plt.subplots(figsize=(7.5, 3.8))
    for (rho, curve), line in zip(width.items(), (":", "--", "-"), strict=True):
        axes.plot(curve, line, color="black", label=f"errors within a video correlate by {rho:g}")
    axes.plot(sizes.values(), [row[-1] for row in widths.values()], "o", color=plots.FAKE, label=", ".join(sizes))
    axes.set(xlabel="Real videos of a group", ylabel="Width of the interval\n(percentage points)", ylim=(0, None))
    axes.legend()
plt.close(figure)
figure

# %%
precision = pd.DataFrame(widths, index=[f"correlation {rho:g}" for rho in width]).T
assert (precision.diff(axis=1).iloc[:, 1:] > 0).all(axis=None), "the more a video's frames err together, the wider"
precision.insert(0, "videos of the smallest group", pd.Series(sizes))
precision.rename_axis("width in points").round(1)

# %% [markdown]
# **What you should see.** The simulated spread agrees with the formula, and the interval is wide: with as many videos
# as the test sets have, tens of points, and twice as wide when a video's frames err together as when they err
# independently. Four times as many videos about halve it; more frames a video hardly help. So the largest gap between
# eight groups is large by chance alone, and chapter 5 prints this *sampling floor* beside every result. Alarming would
# be a published gap of a few points on a group of a dozen videos.

# %% [markdown]
# ## Save

# %%
groups.to_csv(run.path("groups.csv"))
capture.rename_axis("group").to_csv(run.path("capture.csv"))
contact_sheet.savefig(run.path("contact_sheet.png"), dpi=120)
checks = {
    "images": int(groups["images"].sum()),
    "leaks": len(leaks),
    "planted_leaks_found": [frame_leak["kind"].tolist(), source_leak["kind"].tolist()],
    "planted_faults_found": sorted(caught),
    "exposure_error": float(np.abs(brightness - law).max()),
    "interval_width_points": {name: float(row[-1]) for name, row in widths.items()},
}
run.path("checks.json").write_text(json.dumps(checks, indent=1) + "\n", encoding="utf-8")
parameters = {name: globals()[name] for name in ("manifests", "image_root", "data_dir", "image_size", "bias")}
run.finish(parameters, device="cpu", read=[Path(manifests), images_at])
sorted(path.name for path in run.folder.iterdir())

# %% [markdown]
# ## Summary
#
# - A manifest is one CSV row an image; groups have names, and file codes are translated in one place only.
# - The embedded benchmark knows its bias: exposure falls with melanin, poor captures are a shortcut that is wrong for
#   some groups, and the training set has FF++'s prior. It is no evidence about real people.
# - Splits share no image, no video and no identity, sources of fakes included; planted leaks and wrong rows are found.
# - A group's rate rests on videos, not on frames: the test sets leave intervals of tens of points.
#
# ## Exercises
#
# **1. Turn the knob off.** Which of the knob's three parts remain at `bias = 0`? Answer with `ground_truth`, without
# rendering anything.

# %% tags=["solution"]
off = synthetic.ground_truth(benchmark["ffpp"], image_size, bias=0.0)
without_bias = off.groupby(benchmark["ffpp"]["group"])[["poor", "melanin", "gain"]].mean().reindex(GROUPS)
assert not off["poor"].any()  # no poor captures
assert (
    off["gain"].between(*synthetic.DOMAINS["ffpp"].gain).all()
)  # exposure within the camera's own range for everybody
assert len(set(group_table(training)["images"])) > 1  # the prior stays
without_bias.round(3)

# %% [markdown]
# **2. A careless split.** A colleague pools the FF++ manifests, shuffles the *rows* and cuts at 60 % and 80 %. How
# many images, videos and people leak?

# %% tags=["solution"]
# NBVAL_CHECK_OUTPUT
pool = pd.concat(ffpp.values(), ignore_index=True).sample(frac=1, random_state=0)
cut = [round(0.6 * len(pool)), round(0.8 * len(pool))]
careless = {"train": pool.iloc[: cut[0]], "val": pool.iloc[cut[0] : cut[1]], "test": pool.iloc[cut[1] :]}
found = find_leaks(careless)["kind"].value_counts()
assert "image" not in found and found["video"] > 0
print(
    f"{found['video']} of {pool['video'].nunique()} videos, {found['identity']} of {len(people_in(pool))} people leak"
)

# %% [markdown]
# No image leaks, and a check of file names would call this split clean.
#
# **3. How many videos?** How many real videos does a group need so that a false-positive rate of 20 % is known to
# within 5 points on either side, if the frames of a video err together ($\rho = 1$)? And with $\rho = 0.5$ and four
# frames a video?

# %% tags=["solution"]
# NBVAL_CHECK_OUTPUT
enough = {}
for rho in (1.0, 0.5):
    n = np.arange(10, 1000) * 4 / (1 + 3 * rho)
    low, high = fairness.rate_interval(0.2 * n, n)
    enough[rho] = int(np.arange(10, 1000)[np.flatnonzero(high - low <= 0.10)[0]])
assert enough[0.5] < enough[1.0]
print(f"correlation 1: {enough[1.0]} videos; correlation 0.5: {enough[0.5]} videos")
