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
# | **Needs** | `03_sam_training/<detector>-s<seed>/best.safetensors`, the test manifests and their images |
# | **Produces** | `04_cross_dataset_evaluation/<detector>-s<seed>/`: `scores.parquet` and `scores.csv`, `results.csv` |
# | **Time on 2 CPU cores** | under half a minute |
# | **Time on one GPU** | seconds on the embedded benchmark; limited by reading images on real corpora |
#
# A detector meets forgeries, cameras and people that it was not trained on. This chapter scores one detector on the
# test set of its own data set (*intra*) and on three others (*cross*), and writes the score table: one row an image.
# Chapter 5 needs nothing but that table.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
test_sets: list = ["ffpp", "dfdc", "celebdf", "dfd"]  # sub-folders of manifests with a test.csv; first = intra
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 0.5  # bias knob of the embedded benchmark, 0..1
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
threads: int = 1  # CPU threads of torch; 0 takes all cores. So small a network runs fastest on one
detector: str = "fairdf"  # name under which chapter 3 stored the detector
seed: int = 0  # seed of that training

# %%
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import fairdf_utils.evaluation
import fairdf_utils.fairness
import fairdf_utils.model
from fairdf_utils import plots
from fairdf_utils.book import Run, show
from fairdf_utils.data import decode, locate_images
from fairdf_utils.evaluation import predict, score_table
from fairdf_utils.fairness import overall_metrics
from fairdf_utils.manifests import read_split
from fairdf_utils.scores import read_scores, write_scores
from fairdf_utils.training import choose_device, load_detector

target = choose_device(device, threads)
run = Run(run_dir, "04_cross_dataset_evaluation", f"{detector}-s{seed}")
model, config = load_detector(run.require(f"03_sam_training/{detector}-s{seed}/best.safetensors"), target)
images_at = locate_images(image_root, data_dir, config.image_size, bias)
tests = {name: read_split(f"{manifests}/{name}", "test") for name in test_sets}
print(f"{detector!r}: method {config.method!r}, {config.backbone} at {config.image_size} px, {config.fidelity}")

# %% [markdown]
# ## 4.1 Four test sets
#
# **Why.** An error rate has a meaning only for the population that it was measured on. Before any score, look at who
# is in the test sets: how many images, how many videos, which forgeries, and whether every group has reals. Without
# reals a group has no false-alarm rate.

# %%
facts = pd.DataFrame(
    {
        name: {
            "images": len(frame),
            "reals": int((frame["label"] == 0).sum()),
            "videos": frame["video"].nunique(),
            "groups": frame["group"].nunique(),
            "fewest reals in a group": int(frame[frame["label"] == 0].groupby("group").size().min()),
            "forgery methods": ", ".join(sorted(set(frame["method"]) - {"real"})),
        }
        for name, frame in tests.items()
    }
).T
assert all(set(frame["label"]) == {0, 1} for frame in tests.values())
facts

# %% [markdown]
# **What you should see.** The intra set shares its forgery methods with the training set, though no person. Two of the
# cross sets hold fewer methods and no asian group, as their models do. Differences between test sets are therefore
# differences of population, camera and forgery at once.
#
# ## 4.2 From two logits to a score
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
show(fairdf_utils.model.score)

# %%
# NBVAL_CHECK_OUTPUT
score = fairdf_utils.model.score
assert torch.allclose(score(logits, "corrected"), softmax_by_hand)
assert torch.allclose(score(logits, "official"), released_by_hand)
pd.DataFrame(
    {"softmax": score(logits, "corrected"), "released": score(logits, "official")}, index=["case 1", "case 2", "case 3"]
).astype(float).round(3)

# %% [markdown]
# **What you should see.** In the first two cases the real logit is the larger one; softmax says real, the released
# score says fake.
#
# ## 4.3 Scoring
#
# Scoring needs a part of the network only: `detect` runs what the fused answer depends on, without the decoder, the
# content encoder and the other heads.

# %%
show(fairdf_utils.evaluation.predict)

# %%
tables = []
for frame in tests.values():
    images = decode(frame, images_at, config.image_size, data_dir)
    tables.append(score_table(frame, predict(model, images, target, config.precision)))
scores = pd.concat(tables, ignore_index=True)

sample = torch.from_numpy(images[:4].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
with torch.inference_mode():
    by_hand = model.detect(sample.to(target)).float().cpu().numpy()
first = tables[-1][["logit_real", "logit_fake"]].to_numpy()[:4]
assert config.precision != "float32" or np.allclose(by_hand, first, atol=1e-4), "scoring does not depend on the batch"
assert len(scores) == sum(map(len, tests.values())) and scores["score"].between(0, 1).all()
scores.groupby("dataset", sort=False).head(1)[["dataset", "img_path", "label", "method", "group", "score"]]

# %% [markdown]
# **What you should see.** One row an image, with its annotations beside the score. Four images scored alone give the
# scores that they had inside their batch; if they did not, batch norm would be running in training mode.
#
# ## 4.4 How well does it separate?
#
# **Why.** The area under the ROC curve is the probability that a random fake scores above a random real, ties counted
# half. It needs no threshold:
#
# $$ \mathrm{AUC} = P(s_\text{fake} > s_\text{real}) + \tfrac12 P(s_\text{fake} = s_\text{real}). $$
#
# By hand on the first test set, over all pairs of a fake and a real:

# %%
own = scores[scores["dataset"] == test_sets[0]]
fake, real = (own.loc[own["label"] == label, "score"].to_numpy() for label in (1, 0))
auc_by_hand = np.mean((fake[:, None] > real) + 0.5 * (fake[:, None] == real))

# %%
show(fairdf_utils.fairness.overall_metrics)

# %%
results = pd.DataFrame({name: overall_metrics(part) for name, part in scores.groupby("dataset", sort=False)}).T
assert np.isclose(results.loc[test_sets[0], "auc"], auc_by_hand)
assert np.isclose(roc_auc_score(own["label"], own["score"]), auc_by_hand)
results.round(3)

# %%
plots.roc({name: part for name, part in scores.groupby("dataset", sort=False)})

# %% [markdown]
# **What you should see.** The intra set has the highest AUC; both losses abroad are visible. The AUC falls, so the
# order of the scores suffers; and at the fixed threshold of one half the false-alarm rate (`fpr`) moves from set to
# set, so their scale suffers too. An intra AUC near 0.5 would mean an untrained detector; a cross AUC well above the
# intra one, a leak or an easier forgery.

# %%
by_method = scores[scores["label"] == 1].groupby(["dataset", "method"], sort=False)["score"]
found = by_method.agg(images="size", found=lambda s: (s >= 0.5).mean()).round(3)
assert found["images"].sum() == (scores["label"] == 1).sum()
found

# %% [markdown]
# The share of fakes found, by forgery: the methods are not equally hard, and a test set inherits the difficulty of the
# methods that it holds.
#
# ## 4.5 Where are the scores?

# %%
plots.score_distributions(own)

# %% [markdown]
# **What you should see.** Reals to the left, fakes to the right, and in each group a different overlap. A group whose
# reals lie further right than the others' pays with false alarms at any common threshold. Look also for groups in which
# both classes pile up at one half: there the detector has not learnt to tell them apart, and a hair's breadth decides
# on which side of the threshold everybody falls. How much of this is chance is the question of chapter 5.

# %%
write_scores(scores, run.folder)
results.rename_axis("dataset").to_csv(run.path("results.csv"))
assert len(read_scores(run.path("scores.parquet"))) == len(read_scores(run.path("scores.csv"))) == len(scores)
run.finish(
    {"detector": detector, "seed": seed, "test_sets": test_sets, "bias": bias},
    device=target.type,
    read=[f"{manifests}/{name}/test.csv" for name in test_sets],
)

# %% [markdown]
# ## Summary
#
# - A score is the softmax of two logits; the released script's score forgets one of them.
# - Scoring runs only what the answer depends on, and does not depend on the batch.
# - AUC is a probability over pairs; by hand, package and scikit-learn agree.
# - The score table holds all that chapter 5 needs; any detector can write one.
#
# ## Exercises
#
# **1.** Frames of a video are near copies. Score videos instead of frames (mean score over a video's frames) on the
# first test set. Does the AUC change?

# %% tags=["solution"]
videos = own.groupby("video").agg(label=("label", "first"), score=("score", "mean"))
print(
    f"{len(own)} frames: AUC {auc_by_hand:.3f}; {len(videos)} videos: "
    f"AUC {roc_auc_score(videos['label'], videos['score']):.3f}"
)

# %% [markdown]
# **2.** The AUC does not change when every score is replaced by an increasing function of it. Check it with the rank,
# and say why accuracy does change.

# %% tags=["solution"]
ranks = own["score"].rank() / len(own)
assert np.isclose(roc_auc_score(own["label"], ranks), auc_by_hand)
print(
    f"accuracy at 0.5: {((own['score'] >= 0.5) == own['label']).mean():.3f} with scores, "
    f"{((ranks >= 0.5) == own['label']).mean():.3f} with ranks: the threshold moved to the median"
)
