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
# # 5. Fairness analysis
#
# | | |
# |---|---|
# | **Needs** | the score tables of chapter 4, or one table of any other detector (parameter `scores`) |
# | **Produces** | `05_fairness_analysis/`: `results.csv`, `fairness.csv`, `groups.csv`, `differences.csv` |
# | **Time on 2 CPU cores** | about 10 seconds for one detector, 40 seconds for four |
# | **Time on one GPU** | the same: nothing here uses one |
#
# Chapter 4 left one row an image: who is shown, what the truth is, what the detector said. This chapter asks whether
# the detector errs more often for some groups than for others. It needs no images, no model and no torch, so it
# audits any detector whose scores are at hand.
#
# A fairness number alone says little. Three questions go with each of them here: how large would it be for a detector
# that treats all groups alike (the *floor*), how far would it move on another test set of the same kind (the
# *interval*), and what did it cost in detection (the *AUC*).

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
scores: str = ""  # a .parquet or .csv score table of any detector; "" = all score tables of the run
manifests: str = "../data_manifests/synthetic"  # a folder with one sub-folder a data set
image_root: str = ""  # folder that img_path starts from; "" = the embedded benchmark was rendered
bias: float = 0.5  # bias knob of the embedded benchmark, 0..1
reference: str = "ori"  # detector that the others are compared with
threshold: float = 0.5  # an image is called fake when score >= threshold
resamples: int = 1000  # of the cluster bootstrap
permutations: int = 1000  # of the sampling floor
level: float = 0.95  # coverage that the intervals aim at
resampling_seed: int = 0  # of bootstrap and permutations

# %%
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd

from fairdf_utils import fairness, plots, synthetic
from fairdf_utils.book import Run, read_manifest_of_run, show, write_atomically
from fairdf_utils.manifests import DATASETS, GROUPS, read_split

pd.set_option("display.precision", 3)
run = Run(run_dir, "05_fairness_analysis")

# %% [markdown]
# ## 5.1 What a row is
#
# **Why.** Everything below follows from one table, so its rows must be understood first. A row is one face image:
#
# | column | meaning |
# |---|---|
# | `dataset`, `img_path` | which image |
# | `video` | the clip it was cut from; frames of one video are near copies |
# | `identity` | the person shown |
# | `label`, `method` | 0 real, 1 fake, and which forgery |
# | `gender`, `race`, `group` | annotation of the person; `group` is the intersection of the two |
# | `logit_real`, `logit_fake` | the two raw outputs of the detector |
# | `score` | P(fake), the softmax of the two |
#
# A table from elsewhere needs `label`, `score` and at least one of `gender`, `race`, `group`. What else is missing is
# filled in below: without `video`, every image counts as its own video, which makes the intervals too narrow if that
# is not so.

# %%
paths = [Path(scores)] if scores else run.require_all("04_cross_dataset_evaluation/*/scores.parquet")
tables = {}
for path in paths:
    name = path.parent.name if path.stem == "scores" else path.stem
    detector, seed = re.fullmatch(r"(.+?)(?:-s(\d+))?", name).groups(default="0")
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    odds = np.clip(table["score"], 1e-12, 1 - 1e-12)
    fill = {"dataset": "given", "img_path": [f"row-{row}" for row in range(len(table))]}
    fill |= {"video": table.get("img_path", fill["img_path"]), "logit_real": 0.0, "logit_fake": np.log(odds / (1 - odds))}
    fill |= {"group": table["gender"] + "-" + table["race"]} if {"gender", "race"} <= set(table) else {}
    table = table.assign(**{column: value for column, value in fill.items() if column not in table})
    for dataset, rows in table.groupby("dataset", sort=False):
        tables[detector, int(seed), dataset] = rows.reset_index(drop=True)

# %% [markdown]
# Baselines come first in every table, and the data set of training before the others.

# %%
first = [reference, "balanced"]
tables = dict(
    sorted(tables.items(), key=lambda item: (
        (DATASETS.index(item[0][2]), "") if item[0][2] in DATASETS else (len(DATASETS), item[0][2]),
        first.index(item[0][0]) if item[0][0] in first else len(first), *item[0][:2],
    ))
)  # fmt: skip
detectors = list(dict.fromkeys(detector for detector, _, _ in tables))
sets = list(dict.fromkeys(dataset for _, _, dataset in tables))
bys = [by for by in ("gender", "race", "group") if all(by in table for table in tables.values())]
assert bys, "a score table needs at least one of the columns gender, race, group"
finest = bys[-1]  # the intersection, where the table has it
print(f"detectors: {', '.join(detectors)}\ndata sets: {', '.join(sets)}\ngroups by: {', '.join(bys)}")

# %% [markdown]
# The worked sections use one detector on one data set, the *example*. Its first rows:

# %%
chosen = "fairdf" if "fairdf" in detectors else detectors[-1]
example_key = next(key for key in tables if key[0] == chosen)
example = tables[example_key]
print(f"example: {example_key[0]}, seed {example_key[1]}, on {example_key[2]}")
example.head(4)

# %%
sizes = {
    dataset: table.assign(reals=table["label"] == 0, fakes=table["label"] == 1)
    .agg({"label": "size", "reals": "sum", "fakes": "sum", "video": "nunique", finest: "nunique"})
    .rename({"label": "images", "video": "videos", finest: "groups"})
    for (_, _, dataset), table in tables.items()
}
pd.DataFrame(sizes).T.astype(int)

# %%
for (detector, seed, dataset), table in tables.items():
    assert table["score"].between(0, 1).all(), "a score is a probability"
    softmax = 1 / (1 + np.exp(table["logit_real"].astype(float) - table["logit_fake"].astype(float)))
    assert np.allclose(table["score"], softmax, atol=1e-3), f"{detector}: score is not the softmax of the logits"
    first_table = next(other for key, other in tables.items() if key[2] == dataset)
    assert set(table["img_path"]) == set(first_table["img_path"]), "all detectors are judged on the same images"

# %% [markdown]
# **What you should see.** Reals and fakes in equal numbers and many more images than videos (in the embedded benchmark
# four frames a video). Celeb-DF and DFD have six groups, because they have no Asian group. An assertion that fails
# here means that two detectors were scored on different images: their comparison would be worthless.
#
# ## 5.2 Rates of a group
#
# **Why.** Every fairness metric of the paper is made of the error rates of the groups. With $\hat y = 1$ when the
# score reaches the threshold, group $g$ has
#
# $$
# \mathrm{FPR}_g = \frac{|\{i : g_i = g,\ y_i = 0,\ \hat y_i = 1\}|}{|\{i : g_i = g,\ y_i = 0\}|}, \qquad
# \mathrm{TPR}_g = \frac{|\{i : g_i = g,\ y_i = 1,\ \hat y_i = 1\}|}{|\{i : g_i = g,\ y_i = 1\}|},
# $$
#
# FNR = 1 - TPR, TNR = 1 - FPR, and the accuracy counts both classes. A false positive is a real person called fake.
# By hand, on sixteen images of four groups:

# %%
# NBVAL_CHECK_OUTPUT
tiny_scores = {  # two reals, then two fakes
    "male-white": (0.1, 0.3, 0.8, 0.9),
    "male-black": (0.6, 0.2, 0.7, 0.4),
    "female-white": (0.2, 0.4, 0.9, 0.6),
    "female-black": (0.7, 0.8, 0.9, 0.3),
}
tiny = pd.DataFrame(
    [(group, label, score) for group, four in tiny_scores.items() for label, score in zip((0, 0, 1, 1), four)],
    columns=["group", "label", "score"],
)  # fmt: skip
tiny[["gender", "race"]] = tiny["group"].str.split("-", expand=True)
tiny["img_path"] = tiny["video"] = [f"tiny/{row:02d}" for row in range(len(tiny))]
called_fake = tiny["score"] >= 0.5
real = tiny["label"] == 0
by_hand = pd.DataFrame(
    {
        "fpr": called_fake[real].groupby(tiny["group"]).mean(),
        "tpr": called_fake[~real].groupby(tiny["group"]).mean(),
        "acc": (called_fake == ~real).groupby(tiny["group"]).mean(),
        "predicted_fake": called_fake.groupby(tiny["group"]).mean(),
    }
)
by_hand

# %%
show(fairness.group_rates)

# %%
rates = fairness.group_rates(tiny, "group")
assert np.allclose(rates.loc[by_hand.index, by_hand.columns], by_hand)
assert np.allclose(rates["fpr"] + rates["tnr"], 1) and np.allclose(rates["tpr"] + rates["fnr"], 1)
rates

# %% [markdown]
# **A rate without images is undefined.** Take the fakes of one group away. Its TPR is 0/0: neither zero, which would
# make the group look badly served, nor a reason to forget the group, whose false positive rate is as good as before.
# The package says so and says on how many images the rest stands.

# %%
# NBVAL_CHECK_OUTPUT
one_class = tiny[~((tiny["group"] == "female-black") & (tiny["label"] == 1))]
print(*fairness.undefined_rates(one_class, "group"), sep="\n")
left = fairness.group_rates(one_class, "group").loc["female-black"]
assert left["fpr"] == 1 and np.isnan(left["tpr"]) and left["n_real"] == 2
fairness.group_rates(one_class, "group")[["n_real", "n_fake", "fpr", "tpr", "auc"]]

# %% [markdown]
# The same check on every test set of this run:

# %%
for dataset in sets:
    table = next(table for key, table in tables.items() if key[2] == dataset)
    missing = [line for by in bys for line in fairness.undefined_rates(table, by)]
    print(f"{dataset}:", *(missing or ["every group has reals and fakes."]))

# %%
fairness.group_rates(example, finest, threshold)

# %% [markdown]
# **What you should see.** By hand and package agree. In the example no group is without one of the classes, and the
# rates differ from group to group; whether by more than chance is the question of 5.5. In the released annotations of
# Celeb-DF one group (male, white) has 924 reals and no fake: such a line would stand above.
#
# ## 5.3 The paper's fairness metrics, and two conventions
#
# **Why.** One number for all groups makes detectors comparable. The paper uses four; smaller is fairer:
#
# $$ F_\mathrm{FPR} = \sum_g |\mathrm{FPR}_g - \mathrm{FPR}| , \qquad F_\mathrm{OAE} = \max_g \mathrm{ACC}_g - \min_g \mathrm{ACC}_g , $$
#
# $$
# F_\mathrm{DP} = \max_g P(\hat y = 1 \mid g) - \min_g P(\hat y = 1 \mid g) , \qquad
# F_\mathrm{MEO} = \max_{r \in \{\mathrm{FPR, FNR, TPR, TNR}\}} \left( \max_g r_g - \min_g r_g \right) .
# $$
#
# $F_\mathrm{FPR}$ is a sum: it grows with the number of groups and is not comparable between test sets with eight and
# with six. The largest gap of the FPR, `fpr_gap`, does not have this flaw and stands beside it. By hand:


# %%
def metrics_by_hand(table, by, threshold):
    called_fake, real = table["score"] >= threshold, table["label"] == 0
    fpr = called_fake[real].groupby(table[by]).mean()
    tpr = called_fake[~real].groupby(table[by]).mean()
    gap = lambda rate: rate.max() - rate.min()  # noqa: E731
    return {
        "fpr_sum": (fpr - called_fake[real].mean()).abs().sum(),
        "oae": gap((called_fake == ~real).groupby(table[by]).mean()),
        "dp": gap(called_fake.groupby(table[by]).mean()),
        "meo": max(gap(fpr), gap(tpr)),  # FNR = 1 - TPR and TNR = 1 - FPR have the same gaps
    }


# %%
# NBVAL_CHECK_OUTPUT
pd.DataFrame({by: metrics_by_hand(tiny, by, 0.5) for by in ("gender", "race", "group")}).round(3)

# %%
show(fairness.fairness_metrics)

# %%
for table, cut in ((tiny, 0.5), (example, threshold)):
    for by in bys:
        package = fairness.fairness_metrics(table, by, cut)
        assert all(np.isclose(package[name], value) for name, value in metrics_by_hand(table, by, cut).items())
pd.DataFrame({by: fairness.fairness_metrics(example, by, threshold) for by in bys})

# %% [markdown]
# A detector can look fair by gender and fair by race and yet not be fair by both together: averages hide what happens
# where two attributes meet. In the tiny table the gap by group is wider than the gap by gender. This is always so:
# the rate of a union of groups lies between the rates of its parts.

# %%
for by in bys[:-1]:
    assert fairness.fairness_metrics(tiny, by)["fpr_gap"] <= fairness.fairness_metrics(tiny, "group")["fpr_gap"]

# %% [markdown]
# **Official and corrected.** The released script differs from the definitions in two ways. It takes the score to be
# the sigmoid of the fake class's logit, which ignores the logit of the real class; and it drops a group with one class
# from every metric without a word. One image shows the first, the table without one group's fakes the second:

# %%
# NBVAL_CHECK_OUTPUT
logit_real, logit_fake = 2.0, 0.5
print(f"softmax of both logits  {1 / (1 + np.exp(logit_real - logit_fake)):.3f}  called real")
print(f"sigmoid of logit_fake   {1 / (1 + np.exp(-logit_fake)):.3f}  called fake")

with_logits = one_class.assign(logit_fake=np.log(one_class["score"] / (1 - one_class["score"])))
for fidelity in ("corrected", "official"):
    metrics = fairness.fairness_metrics(with_logits, "group", fidelity=fidelity)
    print(f"{fidelity:9}  FPR gap {metrics['fpr_gap']:.2f} over {metrics.attrs['groups']['fpr_gap']} groups")

# %% [markdown]
# Here the dropped group is the one with the most false positives, and the official number is smaller for it. On the
# example detector (without logits in the table both conventions use the same score):

# %%
conventions = {}
for dataset in sets:
    table = tables[(*example_key[:2], dataset)]
    for fidelity in ("corrected", "official"):
        overall = fairness.overall_metrics(table, threshold, fidelity)[["auc", "fpr", "tpr"]]
        unfair = fairness.fairness_metrics(table, finest, threshold, fidelity)[["fpr_sum", "oae", "dp", "meo"]]
        conventions[dataset, fidelity] = pd.concat([overall, unfair])
pd.DataFrame(conventions).T

# %% [markdown]
# **What you should see.** The two rows of a data set differ, because the two scores put the threshold at different
# places. Numbers are comparable only within one convention. All results below are `corrected`; `official` is for
# comparisons with published numbers. Tables hold fractions: the paper's percent are these times 100.
#
# ## 5.4 Groups with their sizes and intervals
#
# **Why.** A rate of 3 in 10 and one of 300 in 1,000 are the same number and not the same knowledge. The Wilson interval
# of a rate $p = k/n$ is, with $z$ the normal quantile (1.96 for 95 %),
#
# $$ \frac{p + \frac{z^2}{2n} \pm z \sqrt{\frac{p(1-p)}{n} + \frac{z^2}{4n^2}}}{1 + \frac{z^2}{n}} . $$
#
# Unlike the textbook $p \pm z\sqrt{p(1-p)/n}$ it does not shrink to nothing at 0 errors in $n$.

# %%
# NBVAL_CHECK_OUTPUT
k, n, z = 3, 100, 1.959963984540054
centre, half = k / n + z**2 / (2 * n), z * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
by_hand = np.array([centre - half, centre + half]) / (1 + z**2 / n)
print(f"3 in 100: {by_hand[0]:.4f} to {by_hand[1]:.4f}")
print("0 in 100: {:.4f} to {:.4f}".format(*fairness.rate_interval(0, 100)))

# %%
show(fairness.rate_interval)

# %%
assert np.allclose(fairness.rate_interval(k, n), by_hand)
low, high = fairness.rate_interval(np.array([0, 5, 10]), 10)
assert low[0] == 0 and high[2] == 1 and (high > low).all()

# %% [markdown]
# The group rates of all detectors, with intervals of FPR and TPR, go to `groups.csv`:

# %%
parts = []
for (detector, seed, dataset), table in tables.items():
    for by in bys:
        part = fairness.group_rates(table, by, threshold).rename_axis("group").reset_index()
        for rate, n in (("fpr", part["n_real"]), ("tpr", part["n_fake"])):
            part[f"{rate}_low"], part[f"{rate}_high"] = fairness.rate_interval((part[rate] * n).fillna(0).round(), n, level)
        key = {"detector": detector, "seed": seed, "dataset": dataset, "by": by}
        parts.append(part.assign(**key)[[*key, *part.columns]])
groups = pd.concat(parts, ignore_index=True)
assert (groups["fpr"].isna() | groups["fpr"].between(groups["fpr_low"] - 1e-9, groups["fpr_high"] + 1e-9)).all()

# %%
FIGURE_GROUPS

# %% [markdown]
# **What you should see.** Bars with the number of images under each. Where two intervals do not overlap, the groups
# differ by more than independent images explain. Images of one video are not independent, so these intervals are too
# short; 5.6 repairs that. A bar on a handful of images would be alarming: it should not be read at all.
#
# ## 5.5 The sampling floor
#
# **Why.** $F_\mathrm{FPR}$ adds up absolute differences. It is zero only if all groups have exactly the same rate,
# which never happens in a sample. So ask what a detector that is *blind* to the group would show on this test set:
# give every group the same true FPR $p$ and let chance do the rest,
#
# $$ X_g \sim \mathrm{Binomial}(n_g, p), \qquad F_\mathrm{FPR} = \sum_g \left| \frac{X_g}{n_g} - \frac{\sum_h X_h}{\sum_h n_h} \right| . $$
#
# The package does the same without a model of chance: it deals the group labels out anew among the images (or videos)
# of one class. By hand, on four reals of which the two of group `a` were called fake: there are six ways to choose who
# is `a`, two of them give a gap of 1, the other four a gap of 0.

# %%
# NBVAL_CHECK_OUTPUT
alarms = np.array([1, 1, 0, 0])
gaps = []
for members in combinations(range(4), 2):
    is_a = np.isin(range(4), members)
    gaps.append(abs(alarms[is_a].mean() - alarms[~is_a].mean()))
by_hand = pd.Series({"mean": np.mean(gaps), "p_value": np.mean(np.array(gaps) >= 1)})
print(gaps)
by_hand.round(3)

# %%
show(fairness.sampling_floor)

# %%
four = pd.DataFrame({"group": list("aabbab"), "label": [0, 0, 0, 0, 1, 1], "score": [0.9, 0.8, 0.2, 0.1, 0.9, 0.9]})
four["video"] = four.index.astype(str)
package = fairness.sampling_floor(four, "group", permutations=4000)
assert abs(package.loc["fpr_gap", "mean"] - by_hand["mean"]) < 0.04
assert abs(package.loc["fpr_gap", "p_value"] - by_hand["p_value"]) < 0.04
package.loc[["fpr_sum", "fpr_gap"]]

# %% [markdown]
# On the example: the binomial simulation, and the permutations of images and of whole videos. The first two answer the
# same question and must agree. The third is larger if the frames of a video fail together; it is the one to use.

# %%
rates = fairness.group_rates(example, finest, threshold)
n, rng = rates["n_real"][rates["n_real"] > 0].to_numpy(), np.random.default_rng(resampling_seed)
hits = rng.binomial(n, fairness.overall_metrics(example, threshold)["fpr"], size=(4000, len(n)))
simulated = np.abs(hits / n - hits.sum(1, keepdims=True) / n.sum()).sum(1)  # (4000,)
floors = {"binomial simulation": [simulated.mean(), np.quantile(simulated, 0.95)]}
for cluster in ("img_path", "video"):
    floor = fairness.sampling_floor(example, finest, permutations, resampling_seed, threshold, cluster=cluster)
    floors[f"permuting {cluster}"] = floor.loc["fpr_sum", ["mean", "q95"]].tolist()
floors = pd.DataFrame(floors, index=["mean", "95 % quantile"]).T.rename_axis("F_FPR of a group-blind detector")
shown = fairness.fairness_metrics(example, finest, threshold)["fpr_sum"]
print(f"F_FPR of {example_key[0]} on {example_key[2]}: {shown:.3f}")
floors

# %%
simulated_mean, permuted_mean = floors["mean"].iloc[:2]
assert abs(simulated_mean - permuted_mean) <= 0.02 + 0.1 * permuted_mean, "two ways to the same floor"

# %% [markdown]
# **What you should see.** A floor that is far from zero. A detector whose $F_\mathrm{FPR}$ lies under the 95 % quantile
# of its floor cannot be told from a group-blind one *on this test set*; that is not a proof of fairness, a larger test
# set may tell them apart. The floor depends on the detector's own FPR: a rate near one half varies most, so a detector
# that raises fewer alarms has a lower floor and a lower $F_\mathrm{FPR}$ for free. 5.7 takes this up.
#
# ## 5.6 Intervals from whole videos
#
# **Why.** The test set is itself a sample. The bootstrap draws test sets from the test set, with replacement, and reads
# the interval off the quantiles of the metric. What is drawn must be what is independent: frames of one video show one
# face under one light, and a detector that fails on one frame fails on its neighbours. With $m$ frames a video and
# correlation $\rho$ between them, the variance of a rate is larger than for independent images by about
#
# $$ 1 + (m - 1) \rho , $$
#
# and intervals from images are too narrow by its root. By hand: group `a` has two real videos of three frames, one
# called fake throughout, the other not at all. All four ways to draw two videos, against all $6^6$ ways to draw six
# images:

# %%
# NBVAL_CHECK_OUTPUT
frames = np.array([[1, 1, 1], [0, 0, 0]])
by_video = [np.mean([frames[v] for v in drawn]) for drawn in product(range(2), repeat=2)]
by_image = np.array(list(product(frames.ravel(), repeat=6))).mean(1)
by_hand = {
    name: np.quantile(fpr, [0.025, 0.975], method="inverted_cdf").round(3).tolist()
    for name, fpr in (("video", by_video), ("image", by_image))
}
print("FPR by drawn videos:", by_video)
print("95 % interval of the FPR:", by_hand)

# %%
show(fairness.bootstrap)

# %%
clips = pd.DataFrame({"group": list("aaaaaabbb"), "label": [0] * 6 + [1] * 3, "score": [0.9] * 3 + [0.1] * 3 + [0.9] * 3})
clips["video"], clips["img_path"] = list("uuuvvvwww"), clips.index.astype(str)
for name, cluster in (("video", "video"), ("image", "img_path")):
    package = fairness.bootstrap(clips, "group", 4000, cluster=cluster).loc["fpr", ["low", "high"]]
    assert np.allclose(package.astype(float), by_hand[name], atol=1e-3)

# %% [markdown]
# Six images look like six pieces of evidence; they are two. On the example:

# %%
settings = {"resamples": resamples, "level": level, "seed": resampling_seed, "threshold": threshold}
widths = {}
for cluster in ("img_path", "video"):
    interval = fairness.bootstrap(example, finest, cluster=cluster, **settings)
    widths[f"width, drawing {cluster}"] = interval["high"] - interval["low"]
widths = pd.DataFrame(widths)
assert (widths >= 0).all().all()
widths["ratio"] = widths.iloc[:, 1] / widths.iloc[:, 0]
widths

# %% [markdown]
# **What you should see.** Ratios above one where the frames of a video fail together: by so much the intervals from
# images would flatter. Ratios near one mean that the errors of a video's frames are nearly independent.
#
# One caution. Noise makes gaps larger, never smaller, and a resample adds noise of its own. So the interval of a gap
# lies high, and may lie wholly above the estimate. It says how far the number moves, not that the true gap is above
# zero: that is what the floor is for. Differences between two detectors suffer less, since both are shifted alike.
#
# ## 5.7 The detectors compared
#
# **Why.** A comparison needs both numbers, fairness *and* AUC: a detector that calls everything real has
# $F_\mathrm{FPR} = 0$. And it needs a simple competitor: `balanced`, the plain detector trained on batches with equal
# numbers of every group, is the first thing to try against an imbalanced training set.

# %%
parts = []
for (detector, seed, dataset), table in tables.items():
    for by in bys:
        floor = fairness.sampling_floor(table, by, permutations, resampling_seed, threshold)
        part = fairness.bootstrap(table, by, **settings)[["estimate", "low", "high"]]
        part = part.join(floor[["mean", "q95"]].add_prefix("floor_")).reset_index()
        if by != finest:  # the overall rows once
            part = part[~part["metric"].isin(fairness.OVERALL)]
        key = {"detector": detector, "seed": seed, "dataset": dataset, "by": by}
        parts.append(part.assign(**key)[[*key, *part.columns]])
unfairness = pd.concat(parts, ignore_index=True)
unfairness["by"] = unfairness["by"].mask(unfairness["metric"].isin(fairness.OVERALL), "all")

# %% [markdown]
# First detection, over all images. `fpr` belongs beside every fairness number: it moves them.

# %%
unfairness["shown"] = [f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in unfairness.itertuples()]
index = ["dataset", "detector", "seed"]
unfairness[unfairness["by"] == "all"].pivot(index=index, columns="metric", values="shown").loc[
    [(dataset, detector, seed) for detector, seed, dataset in tables], ["auc", "fpr", "tpr"]
]

# %% [markdown]
# Then fairness by the finest grouping, each estimate with its interval and, beside it, the mean and the 95 % quantile
# of its floor.

# %%
by_finest = unfairness[(unfairness["by"] == finest) & unfairness["metric"].isin(["fpr_sum", "oae", "dp", "meo"])].copy()
by_finest["floor"] = [f"{row.floor_mean:.3f}, {row.floor_q95:.3f}" for row in by_finest.itertuples()]
by_finest.pivot(index=index, columns="metric", values=["shown", "floor"]).swaplevel(axis=1).reindex(
    index=[(dataset, detector, seed) for detector, seed, dataset in tables],
    columns=list(product(["fpr_sum", "oae", "dp", "meo"], ["shown", "floor"])),
)

# %%
FIGURE_COMPARISON

# %%
print("" if "balanced" in detectors else "There is no `balanced` baseline here: no detector can be credited with more")
print("" if reference in detectors else f"There is no {reference!r} here: nothing to compare with (5.7 stops here).")

# %%
