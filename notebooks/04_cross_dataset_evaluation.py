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
# # 4. Cross-dataset evaluation
#
# | | |
# |---|---|
# | **Needs** | a detector of chapter 3, or one that comes with the repository; test and validation manifests, images |
# | **Produces** | `04_cross_dataset_evaluation/<detector>-s<seed>/`: the score tables and all that follows (4.10) |
# | **Time on 2 CPU cores** | about half a minute per detector |
# | **Time on one GPU** | seconds on the embedded benchmark; limited by reading images on real corpora |
#
# A detector meets forgeries, cameras and people that it was not trained on. This chapter scores one detector on the
# test set of its own data set (*intra*) and on three others (*cross*), and writes the score table: one row per image.
# Chapter 5 needs nothing but that table. At the end you can hand in a picture of your own. As long as chapter 3 has not
# trained a detector of that name and seed, the one in `data_manifests/detectors` is scored.
#
# A detector trained elsewhere is scored with the parameter `checkpoint_file`: another run's `best.safetensors`,
# or a checkpoint (`.pth`) of the released code (chapter 7), under a name of its own. From `notebooks/`:
#
# ```
# papermill 04_cross_dataset_evaluation.ipynb ../runs/released.ipynb -p run_dir ../runs/released \
#     -p detector released -p checkpoint_file /path/to/checkpoint.pth -p manifests ... -p image_root ...
# ```

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
train_set: str = "ffpp"  # the data set that chapter 3 trained on; its validation images are scored too
test_sets: list = ["ffpp", "dfdc", "celebdf", "dfd"]  # sub-folders of manifests, the intra one first
left_out: list = []  # test sets that are not there; `missing: skip` of a parameters file fills it in
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
threads: int = 1  # CPU threads of torch; 0 takes all cores. So small a network runs fastest on one
detector: str = "fairdf"  # name under which chapter 3 stored the detector
seed: int = 0  # seed of that training
checkpoint_file: str = ""  # a detector trained elsewhere, named by `detector` and `seed`; "" takes chapter 3's

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from PIL import Image

from fairdf_utils.book import BookError
from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.corpora import faces
from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import SPLIT_FILES, read_split
from fairdf_utils.evaluation import pictures, scoring
from fairdf_utils.fairness import metrics, resampling, score_table, uncertainty
from fairdf_utils.figures import detection, training
from fairdf_utils.model import detectors, stored
from fairdf_utils.released import checkpoints
from fairdf_utils.rendered.images import image_folder
from fairdf_utils.rendered.videos import Clip, Filming, Person, frames

target = stored.choose_device(device, threads)
run = Run(run_dir, "04_cross_dataset_evaluation", f"{detector}-s{seed}")
trained = f"03_sam_training/{detector}-s{seed}"
if checkpoint_file and run.run_dir.joinpath(trained).exists():
    raise BookError(
        f"{run.run_dir} has trained {detector}-s{seed} itself: give {checkpoint_file} another detector name"
    )
trained_here = run.run_dir / trained / "best.safetensors"
checkpoint = Path(checkpoint_file) if checkpoint_file else stored.shipped_instead(trained_here, image_root)
checkpoint = checkpoint or run.require(f"{trained}/best.safetensors")
model, config = checkpoints.load_any_detector(checkpoint, target)
images_at = image_folder(image_root, data_dir, config.image_size, bias, data_seed)
tests = {name: read_split(f"{manifests}/{name}", "test", image_root) for name in test_sets}
print(f"{detector!r}: method {config.method!r}, {config.backbone} at {config.image_size} px, {config.fidelity}")

# %% [markdown]
# ## 4.1 The test sets
#
# **Why.** An error rate has a meaning only for the population that it was measured on. Before any score, look at who
# is in the test sets: how many images, how many videos, which forgeries, and whether every group has real images.
# Without real images a group has no false-alarm rate.

# %%
facts = pd.DataFrame(
    {
        name: {
            "images": len(frame),
            "real images": int((frame["label"] == 0).sum()),
            "videos": frame["video"].nunique(),
            "groups": frame["group"].nunique(),
            "fewest real images in a group": int((frame["label"] == 0).groupby(frame["group"]).sum().min()),
            "forgeries": ", ".join(sorted(set(frame["forgery"]) - {"real"})),
        }
        for name, frame in tests.items()
    }
).T
assert facts["images"].sum() == sum(map(len, tests.values()))
if left_out:
    print(f"Not tested, because they are not there: {', '.join(left_out)}. Nothing below speaks of them.")
facts

# %% [markdown]
# **What you should see.** In the embedded benchmark, as in its models, the intra set shares its forgeries with the
# training set, though no person, and two of the cross sets hold fewer forgeries and no asian group. Differences between
# test sets are therefore differences of population, camera and forgery at once.
#
# ## 4.2 Softmax: from two logits to a score
#
# **Why.** The detector answers with two numbers, $z_\text{real}$ and $z_\text{fake}$. The probability of a fake is
# their softmax, which depends on their difference alone:
#
# $$ P(\text{fake}) = \frac{e^{z_\text{fake}}}{e^{z_\text{real}} + e^{z_\text{fake}}}
#    = \sigma(z_\text{fake} - z_\text{real}). $$
#
# The released test script reports $\sigma(z_\text{fake})$ instead: it forgets $z_\text{real}$, so a threshold of one
# half no longer means "more likely fake than not".

# %%
logits = torch.tensor([[2.0, 1.0], [0.3, 0.2], [-1.0, 3.0]])
softmax_by_hand = logits.exp()[:, 1] / logits.exp().sum(1)
released_by_hand = 1 / (1 + (-logits[:, 1]).exp())

# %%
show(detectors.score)

# %% tags=["nbval-check-output"]
softmax, released = detectors.score(logits, "corrected"), detectors.score(logits, "official")
assert torch.allclose(softmax, softmax_by_hand) and torch.allclose(released, released_by_hand)
pd.DataFrame({"softmax": softmax, "released": released}, ["case 1", "case 2", "case 3"]).astype(float).round(3)

# %% [markdown]
# **What you should see.** In the first two cases the real logit is the larger one; softmax says real, the released
# score says fake. Chapter 7 has more of such differences.
#
# ## 4.3 Scoring
#
# **Why.** Scoring needs a part of the network only: `detect` runs what the fused answer depends on, without the
# decoder, the content encoder and the other heads. The weights do not move any more, so a batch norm is a fixed factor
# and offset per channel, which can be folded into a convolution that stands right before it:
#
# $$ \gamma\,\frac{w * x - \mu}{\sigma} + \beta = \Big(\frac{\gamma}{\sigma}\, w\Big) * x
#    + \Big(\beta - \frac{\gamma\mu}{\sigma}\Big). $$
#
# One call does this for every test set, batch after batch:

# %%
show(scoring.logits_of)

# %%
scores = scoring.score_test_sets(model, tests, run.folder, images_at, config.image_size, data_dir, config.precision)
assert len(scores) == sum(map(len, tests.values())) and scores["score"].between(0, 1).all()
scores.groupby("dataset", sort=False).head(1)[["dataset", "img_path", "label", "forgery", "group", "score"]]

# %% [markdown]
# By hand, the first four images of the last test set: alone, by the network as it was trained.

# %%
last = test_sets[-1]
pixels = decode(tests[last], images_at, config.image_size, data_dir)[:4]
sample = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
with torch.inference_mode():
    by_hand = model.detect(sample.to(target)).float().cpu().numpy()
first = scores.loc[scores["dataset"] == last, ["logit_real", "logit_fake"]].to_numpy()[:4]
exact = target.type == "cpu" and config.precision == "float32"  # a GPU rounds products of convolutions to 10 bits
assert np.allclose(by_hand, first, rtol=1e-4, atol=1e-4) or not exact, "neither batch nor folding matters"
print(f"largest difference of a logit: {np.abs(by_hand - first).max():.0e}")

# %% [markdown]
# **What you should see.** One row per image, with its annotations beside the score. The four images get alone the
# logits that they got in their batch from the folded network; if they did not, batch norm would be running in training
# mode. The call has written `scores.parquet` and `scores.csv`, and keeps each data set as soon as it is scored:
# interrupted, it goes on with the next.
#
# A threshold must not be chosen on the images that it is judged on. So the validation images of the training set are
# scored as well, into a folder of their own; chapter 5 fits its thresholds there. They are not a fifth test set: they
# chose the epoch whose weights were kept, and their scores are a little too good.

# %%
val_files = [Path(manifests, train_set, name) for name in SPLIT_FILES["val"]]
if all(path.is_file() for path in val_files):
    held_out = {train_set: read_split(f"{manifests}/{train_set}", "val", image_root)}
    validation = scoring.score_test_sets(
        model, held_out, run.folder / "validation", images_at, config.image_size, data_dir, config.precision
    )
    also_tested = len(set(validation["img_path"]) & set(scores["img_path"]))
    print(
        f"{len(validation)} validation images, {validation['video'].nunique()} videos: "
        f"AUC {metrics.overall_metrics(validation)['auc']:.3f}; {also_tested} of them are test images, too"
    )
else:
    val_files = []
    print("There are no validation manifests: nothing is scored here, and chapter 5 has no threshold to fit.")

# %% [markdown]
# ## 4.4 Video scores: the mean over the frames
#
# **Why.** A user asks about a video, not about a frame. Frames of one clip are near copies: their errors repeat, but
# the part of the error that changes from frame to frame averages out. The score of a video is the mean of its frames':
#
# $$ s_v = \frac{1}{|v|} \sum_{i \in v} s_i. $$

# %%
tiny = pd.DataFrame({"video": ["a", "a", "a", "b", "b"], "label": [1, 1, 1, 0, 0], "score": [0.9, 0.4, 0.8, 0.6, 0.2]})
mean_by_hand = [(0.9 + 0.4 + 0.8) / 3, (0.6 + 0.2) / 2]

# %%
show(score_table.video_level)

# %% tags=["nbval-check-output"]
assert np.allclose(score_table.video_level(tiny)["score"], mean_by_hand)
score_table.video_level(tiny).round(3)

# %%
videos = score_table.video_level(scores)
assert videos["frames"].sum() == len(scores)
pd.testing.assert_frame_equal(videos, pd.read_parquet(run.path("video_scores.parquet")))
wrong = {"frames": (scores["score"] >= 0.5) != scores["label"], "videos": (videos["score"] >= 0.5) != videos["label"]}
pd.DataFrame({what: [len(x), 100 * x.mean()] for what, x in wrong.items()}, ["number", "wrong at 0.5 (%)"]).round(1)

# %% [markdown]
# **What you should see.** The share of wrong verdicts among videos is near that among frames. Independent looks at a
# clip would bring more: its frames share person, light and camera, and what is wrong about these stays wrong in the
# mean. `video_scores.*` was written by the same call.
#
# ## 4.5 ROC curve and AUC: how well does it separate?
#
# **Why.** The area under the ROC curve (AUC) is the probability that a random fake scores above a random real image,
# ties counted half. It needs no threshold:
#
# $$ \mathrm{AUC} = P(s_\text{fake} > s_\text{real}) + \tfrac12 P(s_\text{fake} = s_\text{real}). $$
#
# Beside it stand, at a threshold of one half, the accuracy `acc`, the share of fakes found `tpr` and of real images
# called fake `fpr`; the average precision `ap` (section 4.6); and the equal error rate `eer`, the FPR at the threshold
# where as large a share of the fakes is missed. By hand on some images of the first test set, over all pairs of a fake
# and a real image:

# %%
own = scores[scores["dataset"] == test_sets[0]]
some = own.groupby("label").head(1000)
fake, real = (some.loc[some["label"] == label, "score"].to_numpy() for label in (1, 0))
above = (fake[:, None] > real) + 0.5 * (fake[:, None] == real)  # (fakes, reals)
auc_by_hand = above.mean() if above.size else np.nan

# %%
show(metrics.overall_metrics)

# %%
assert np.isclose(metrics.overall_metrics(some)["auc"], auc_by_hand, equal_nan=True)
levels = {"frames": scores, "videos": videos}
parts = {(level, name): part for level, table in levels.items() for name, part in table.groupby("dataset", sort=False)}
results = pd.DataFrame({key: metrics.overall_metrics(part) for key, part in parts.items()}).T
results = results.rename_axis(["level", "dataset"])
settings = resampling.Settings()
known = [resampling.auc_of(resampling.clustered(part, None, settings)) for part in parts.values()]
results[["auc_low", "auc_high"]] = [np.ravel(uncertainty.interval_of_an_auc(one, settings.level)) for one in known]
results.round(3)

# %%
detection.roc({name: part for name, part in scores.groupby("dataset", sort=False)})

# %% [markdown]
# **What you should see.** Each AUC with its 95 % interval, which rests on whole videos (chapter 5 explains it). Where a
# cross set has a lower AUC than the intra set, the order of the scores suffers abroad; it may also lie above, because
# it holds other forgeries (4.8). The dots, all at the threshold of one half, lie at different false-positive rates: the
# scale of the scores moves too. An intra AUC near 0.5 would mean an untrained detector; a cross AUC well above the
# intra one, a leak or an easier forgery.
#
# **Is sharpness enough?** Where forgeries are blurred, nobody need look at the face. So the table also says how sharp
# an image is, in one number: the variance of its Laplacian, of what a pixel differs by from its four neighbours,
#
# $$ \nabla^2 x_{ij} = x_{i-1,j} + x_{i+1,j} + x_{i,j-1} + x_{i,j+1} - 4\, x_{ij} . $$
#
# A detector must do better than this meter of blur, which chapter 5 judges beside it. By hand, on the four images of
# 4.3:

# %%
grey = pixels.mean(-1)  # (4, H, H)
around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
by_hand = (around - 4 * grey[:, 1:-1, 1:-1]).var((1, 2))
display(show(scoring.laplacian_variance))
assert np.allclose(by_hand, scores.loc[scores["dataset"] == last, "laplacian_variance"][:4], rtol=1e-3)
blurred = scores.assign(score=1 - scores["laplacian_variance"].rank(pct=True))
blur = {name: metrics.overall_metrics(part)["auc"] for name, part in blurred.groupby("dataset", sort=False)}
pd.DataFrame({"detector": results.loc["frames", "auc"], "blur alone": blur}).round(3)

# %% [markdown]
# **What you should see.** The AUC of blur alone, if the blurred image is called fake; below one half, the fakes are the
# sharper images. The nearer to one half, the less a test set gives away.
#
# ## 4.6 Precision and recall: what is an alarm worth?
#
# **Why.** The two rates of a ROC curve look at fakes and real images apart. Whoever gets an alarm asks something else:
# is this one a fake? That is the *precision* $P$, the share of fakes among the alarms; *recall* $R$ is another name for
# the true-positive rate. The average precision goes down from the highest score, and weights the precision after each
# alarm by the recall that this alarm adds:
#
# $$ \mathrm{AP} = \sum_k (R_k - R_{k-1})\, P_k. $$
#
# By hand on five images, of which the first, the third and the fourth are fakes. After the first alarm one of one is a
# fake, after the third two of three, after the fourth three of four; each adds a third of the recall.
# `overall_metrics`, shown in 4.5, has it as `ap`:

# %%
ranked = pd.DataFrame({"label": [1, 0, 1, 1, 0], "score": [0.9, 0.8, 0.7, 0.6, 0.3]})
ap_by_hand = (1 / 1 + 2 / 3 + 3 / 4) / 3

# %% tags=["nbval-check-output"]
assert np.isclose(metrics.overall_metrics(ranked)["ap"], ap_by_hand)
metrics.overall_metrics(ranked).round(3)

# %%
detection.precision_recall({name: part for name, part in scores.groupby("dataset", sort=False)})

# %% [markdown]
# **What you should see.** Every curve ends at the share of fakes, where everything is called a fake. The order of the
# data sets is much as in the ROC curves, because in the embedded benchmark each test set is half fakes. Precision holds
# for this share only. On a platform where one video in a thousand is a fake, the same detector at the same threshold
# raises nearly nothing but false alarms (exercise 3).
#
# ## 4.7 Intra- and cross-dataset: at home and abroad
#
# **Why.** The papers of this field report an intra and a cross number. Their difference is what a detector loses when
# it leaves home, here in points, for frames and for videos:

# %%
change = 100 * results.groupby(level="level", sort=False).transform(lambda column: column - column.iloc[0])
abroad = change.drop(test_sets[0], level="dataset")[["auc", "ap", "acc", "tpr", "fpr", "eer"]]
home = metrics.overall_metrics(own)
for name in test_sets[1:]:
    lost_by_hand = metrics.overall_metrics(scores[scores["dataset"] == name])["auc"] - home["auc"]
    assert np.isclose(abroad.loc[("frames", name), "auc"], 100 * lost_by_hand, equal_nan=True)
abroad.round(1)

# %% [markdown]
# **What you should see.** Where a set is harder than home, `auc` and `ap` fall (negative) and `eer` rises; where its
# forgeries are easier, it can be the other way round. Then look at `tpr` and `fpr` together. Both up, or both down: the
# scores have moved as a whole, and another threshold would mend part of the loss of `acc`. `fpr` up and `tpr` down:
# fakes and real images have come closer, and a threshold trades one for the other. The mean over frames brings back
# little of what is lost: compare the points that videos lose with those of the frames. Each number rests on a few
# hundred videos; chapter 5 puts intervals on such numbers before anybody compares detectors by them.
#
# ## 4.8 By forgery and by group: which fakes, and whose scores?
#
# **Why.** One AUC hides two things: which forgeries are missed, and at whose expense.

# %%
by_forgery = scores[scores["label"] == 1].groupby(["dataset", "forgery"], sort=False)["score"]
found = by_forgery.agg(images="size", found=lambda s: (s >= 0.5).mean()).round(3)
assert found["images"].sum() == (scores["label"] == 1).sum()
found

# %% [markdown]
# The share of fakes found, by forgery: forgeries are not equally hard, and a test set inherits the difficulty of those
# that it holds. Nor is one forgery equally hard everywhere: compare its rows in different data sets.

# %%
training.score_distributions(own)

# %% [markdown]
# **What you should see.** Real images to the left, fakes to the right, and in each group a different overlap. A group
# whose real images lie further right than the others' pays with false alarms at any common threshold. Look also for
# groups in which both classes pile up at one half: there the detector has not learnt to tell them apart, and a hair's
# breadth decides on which side of the threshold everybody falls. How much of this is chance is the question of chapter
# 5. The faces of the embedded benchmark are rendered, and its bias is built in: none of this is evidence about real
# people.
#
# ## 4.9 A picture of your own
#
# **Why.** A detector is used on pictures, not on crops. So a face must be found, turned upright, cut out and resized as
# in training (chapter 1), before it can be scored. There is no photograph in this book. A person is rendered,
# once as filmed and once with another face swapped in:

# %%
person, other = Person("the reader", "female-asian"), Person("somebody else", "female-asian")
filmed = [
    Clip("portrait/real.mp4", "ffpp", "real", person, "portrait"),
    Clip("portrait/swapped.mp4", "ffpp", "FaceSwap", person, "portrait", other),
]
files = [run.path(f"portraits/{name}.png") for name in ("real", "swapped")]
for path, clip in zip(files, filmed, strict=True):
    Image.fromarray(next(frames(clip, Filming(size=480)))).save(path)  # the first frame

# %%
show(pictures.score_file)

# %%
ready = pictures.open_detector(checkpoint, device, run.folder)
rows = [row for path in files for row in pictures.score_file(ready, path, path.name, path.parent, 1, aligned=False)]

portrait = np.asarray(Image.open(files[0]))
crop = faces.align(portrait, faces.find(portrait)[0], config.image_size)
z_real, z_fake = scoring.predict(model, np.stack([crop]), target)[0]
assert np.isclose(rows[0]["score"], 1 / (1 + np.exp(z_real - z_fake)), atol=1e-3)
pd.DataFrame(rows)[["file", "face", "left", "top", "right", "bottom", "score", "above_real", "above_fake"]].round(3)

# %%
Image.fromarray(np.hstack([Image.open(path.with_name(f"{path.name}.scored.png")) for path in files]))

# %% [markdown]
# **What you should see.** A box around each face, with P(fake), and no verdict. What a score says is told by its place
# among those of faces whose kind is known: `above_real` and `above_fake` are the shares of the real and the fake
# validation faces that score lower. The swapped face should score above the real one; two pictures are an anecdote,
# though. The picture carries lines on what the detector was trained on and how well it separates there. **A detector
# that was trained on rendered faces knows nothing of real ones**: whatever it says about a photograph, yours included,
# means nothing.
#
# The same for your own picture, video or folder, from the repository's root:
#
# ```
# python -m fairdf_utils predict FACE.jpg --run runs/cpu
# ```
#
# It prints a line for every face and writes a table and the annotated pictures. A file without a face, or one that
# cannot be read, gets a line that says so.
#
# ## 4.10 What is kept
#
# | file | content |
# |---|---|
# | `scores.*` | one row per image of the test sets: annotations, logits, score, sharpness; parquet and csv |
# | `video_scores.*` | one row per video, the same columns |
# | `validation/` | both for the validation images of the training set |
# | `results.csv` | the numbers of 4.5, by level and data set; none for a set that was left out |
# | `portraits/` | the pictures of 4.9 |

# %%
absent = pd.MultiIndex.from_product([["frames", "videos"], left_out], names=results.index.names)
results.reindex(results.index.append(absent)).to_csv(run.path("results.csv"))
written = [score_table.read_scores(run.path(f"scores.{ending}")) for ending in ("parquet", "csv")]
assert [len(table) for table in written] == [len(scores)] * 2
read = [*(f"{manifests}/{name}/test.csv" for name in test_sets), *val_files]
read += [] if checkpoint == trained_here else [checkpoint]
run.finish(device=target.type, read=read)

# %% [markdown]
# ## Summary
#
# - A score is the softmax of two logits; the released script's score forgets one of them. Scoring runs only what the
#   answer depends on, and does not depend on the batch.
# - AUC is a probability over pairs, average precision a sum over alarms; precision holds for one share of fakes only.
# - Abroad the order of the scores suffers, and so does their scale; only the second can be mended by a threshold.
# - The score table holds all that chapter 5 needs; any detector can write one.
#
# ## Exercises
#
# **1.** A video could also be judged by its most suspicious frame. Score the videos of the first test set by the
# highest score of their frames. What happens to the AUC, and what to the false alarms at one half?

# %% tags=["solution"]
by_mean = videos[videos["dataset"] == test_sets[0]]
highest = own.groupby("video")["score"].max()
by_highest = by_mean.assign(score=by_mean["video"].map(highest))
assert (by_highest["score"] >= by_mean["score"] - 1e-6).all()
compared = {"mean of frames": metrics.overall_metrics(by_mean), "highest frame": metrics.overall_metrics(by_highest)}
pd.DataFrame(compared).T[["auc", "fpr", "tpr"]].round(3)  # more alarms of both kinds: the threshold must move with it

# %% [markdown]
# **2.** The AUC does not change when every score is replaced by an increasing function of it. Check it with the rank,
# and say why accuracy does change.

# %% tags=["solution"]
ranked = own.assign(score=own["score"].rank() / len(own))
before, after = metrics.overall_metrics(own), metrics.overall_metrics(ranked)
assert np.isclose(before["auc"], after["auc"], equal_nan=True)
print(f"accuracy at 0.5: {before['acc']:.3f} with scores, {after['acc']:.3f} with ranks: the threshold is the median")

# %% [markdown]
# **3.** Precision from the rates: with a share $\pi$ of fakes it is
# $\pi\,\mathrm{TPR} / (\pi\,\mathrm{TPR} + (1 - \pi)\,\mathrm{FPR})$. Check it on the first test set. What is an alarm
# worth where one video in a thousand is a fake?

# %% tags=["solution"]
fpr, tpr = results.loc[("videos", test_sets[0]), ["fpr", "tpr"]]
shares = [by_mean["label"].mean(), 0.001]
alarms = [share * tpr + (1 - share) * fpr for share in shares]  # as a share of all videos
precision = [share * tpr / alarm if alarm else np.nan for share, alarm in zip(shares, alarms, strict=True)]
called = by_mean["score"] >= 0.5
counted = by_mean.loc[called, "label"].mean()  # NaN where nothing was called fake, or one class is missing
assert np.isclose(precision[0], counted) or np.isnan([precision[0], counted]).any()
for share, worth in zip(shares, precision, strict=True):
    print(f"with {share:.1%} fakes, {1000 * worth:.0f} of 1,000 alarms are fakes")
