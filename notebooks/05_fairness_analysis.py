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
# | **Needs** | score tables of chapter 4, which needs no training first; or any detector's (parameter `scores`) |
# | **Produces** | `05_fairness_analysis/`: `findings.json` and nine tables, see 5.12 |
# | **Time on 2 CPU cores** | 30 s for four detectors on four test sets, 15 s for one table, 2 min for a million rows |
# | **Time on one GPU** | the same: nothing here uses one |
#
# Chapter 4 left one row per image: who is shown, what the truth is, what the detector said. This chapter asks whether
# the detector errs more often for some groups than for others, how sure one can be of it, and at which threshold. It
# needs no images, no model and no torch, so it audits any detector whose scores are at hand:
# `python -m fairdf_utils audit scores.csv --out report` runs this notebook on a table and makes a page of its results.
#
# A fairness number alone says little. Three questions go with each of them here: how large would it be for a detector
# that treats all groups alike (the *floor*), how far may it be from the truth (the *interval*), and what did it cost
# in detection (the *AUC*). The verdict comes first, in 5.2; the sections after it explain every number in it.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
scores: str = ""  # score table of any detector (.parquet or .csv); empty takes all tables of the run
validation_scores: str = ""  # beside scores: table of the same detector on other images, to fit thresholds on
by: list = []  # columns that name groups; empty takes gender, race and group as far as they are there
threshold: float = 0.5  # an image is called fake when its score reaches it, from 0 to 1
resamples: int = 1000  # rates that may be the truth, drawn for each band, and resampled test sets for AUCs
permutations: int = 1000  # deals of the groups; up to 20 times as many where videos are few and a difference is rare
level: float = 0.95  # coverage that the intervals aim at
cluster: str = "video"  # what is drawn as a whole: video, identity, or img_path
resampling_seed: int = 0  # of these and of the permutations
reference: str = "ori"  # detector that the others are compared with
label_noise: float = 0.05  # share of group labels that may be wrong
left_out: list = []  # test sets that are not there; `missing: skip` of a parameters file fills it in

# %%
import json
import re
from dataclasses import replace
from html import escape
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, display
from scipy.special import betainc, betaln
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.data.vocabulary import DATASETS
from fairdf_utils.fairness import (
    calibration,
    comparisons,
    confidence,
    experiment,
    findings,
    metrics,
    permutation,
    postprocessing,
    sample_size,
    thresholds,
    uncertainty,
    verdicts,
)
from fairdf_utils.fairness.cautions import UNITS, percent
from fairdf_utils.fairness.score_table import ScoreTableError, read_scores
from fairdf_utils.fairness.trivial import trivial_rows
from fairdf_utils.fairness.worst_group import COLUMNS, WORST, interval_of_the_worst, main_numbers, matched_numbers
from fairdf_utils.figures import fairness, style, training
from fairdf_utils.files import printable, write_text
from fairdf_utils.progress import bar

pd.options.display.float_format = "{:.3f}".format
run = Run(run_dir, "05_fairness_analysis")
settings = uncertainty.Settings(
    threshold, resamples, permutations, level, cluster, resampling_seed, label_noise=label_noise
)

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
# | `label`, `forgery` | 0 real, 1 fake, and how the fake was made |
# | `gender`, `race`, `group` | annotation of the person; `group` is the intersection of the two |
# | `logit_real`, `logit_fake` | the two raw outputs of the detector |
# | `score` | P(fake), the softmax of the two |
#
# A table from elsewhere needs `label`, `score` and a column to judge by. What else is missing is filled in: without
# `video`, every image counts as its own video, which makes the intervals too narrow if that is not so. Scores of
# *validation* images, where there are any, are kept apart: thresholds are fitted on them.

# %%
paths = [Path(scores).absolute()] if scores else run.require_all("04_cross_dataset_evaluation/*/scores.parquet")
tables, validation = {}, {}
for path in paths:
    name = printable(path.parent.name if path.stem == "scores" and path.parent.name else path.stem)
    detector, seed = re.fullmatch(r"(.+?)(?:-s(\d+))?", name).groups(default="0")
    for dataset, rows in read_scores(path, by).groupby("dataset", sort=False):
        tables[detector, int(seed), dataset] = rows.reset_index(drop=True)
    beside = f"04_cross_dataset_evaluation/{name}/validation/scores.parquet"
    if validation_scores:
        validation[detector, int(seed)] = read_scores(validation_scores, by)
    elif not scores and (run.run_dir / beside).exists():
        validation[detector, int(seed)] = read_scores(run.require(beside), by)


seen = list(dict.fromkeys([*DATASETS, *(key[2] for key in tables)]))


def place(key):  # baselines come first in every table, and the data set of training before the others
    baselines = [reference, "balanced"]
    return (seen.index(key[2]), baselines.index(key[0]) if key[0] in baselines else len(baselines), *key[:2])


tables = {key: tables[key] for key in sorted(tables, key=place)}

# %%
runs = list(dict.fromkeys(key[:2] for key in tables))  # (detector, seed)
detectors, sets = (list(dict.fromkeys(key[part] for key in tables)) for part in (0, 2))
several = len({seed for _, seed in runs}) > 1
together = pd.concat(tables.values())
bys = verdicts.groupings(together, by)
everywhere = [name for name in bys if all(table[name].notna().any() for table in tables.values())]
finest = verdicts.finest(together, everywhere or bys)
chosen = "fairdf" if "fairdf" in detectors else detectors[-1]
example_key = next(key for key in tables if key[0] == chosen)
example = tables[example_key].dropna(subset=[finest]).reset_index(drop=True)
shown = list(tables) if scores else [example_key]  # which tables are looked at one by one
print(f"detectors: {', '.join(detectors)}\ndata sets: {', '.join(sets)}\ngroups by: {', '.join(bys)}")
print(f"validation scores: of {len(validation)} of {len(runs)} runs\nexample: {chosen} on {example_key[2]}")
example.head(4)

# %%
names = ["detector", "seed", "dataset"]
sizes = {
    key: {
        **{"images": len(table), "real": sum(table["label"] == 0), "fake": sum(table["label"] == 1)},
        **{"videos": table["video"].nunique()},
        **{f"groups by {name}": table[name].nunique() for name in bys},
    }
    for key, table in tables.items()
    if key[:2] == example_key[:2]
}
sizes = pd.DataFrame(sizes).T.rename_axis(names).droplevel(["detector", "seed"])
for key, table in tables.items():
    softmax = 1 / (1 + np.exp(table["logit_real"].astype(float) - table["logit_fake"].astype(float)))
    if not np.allclose(table["score"], softmax, atol=1e-3):
        print(f"{key[0]} on {key[2]}: the score is not the softmax of the logits. Everything below takes the score.")
sizes

# %% [markdown]
# **What you should see.** In the embedded benchmark: as many real images as fakes, and four times as many images as
# videos. Celeb-DF and DFD have six groups, because they have no Asian group.

# %% [markdown] tags=["audit"]
# ## 5.2 The verdict
#
# Upper left is the place to be: the group that is served worst is served well (AUC, 5.4), and where 10 % of all real
# images are called fake, all groups have the same share of it ($F_\mathrm{FPR}$). Small marks are single training seeds
# and large ones their mean with its standard deviation; of one seed, the bar is the interval. Grey are predictors that
# see no face: a number that one of them wins says nothing.
#
# Sentences are made by rule from the numbers below, the same for every detector. A gap between groups *differs* where
# chance alone would seldom show one as large: its p-value, corrected for the number of tests, is below one minus the
# level of the intervals. Where an interval and p disagree, p decides.

# %%
found = {
    key: verdicts.judge(table, bys, settings, validation.get(key[:2]))
    for key, table in bar(tables.items(), desc="tables")
}
of_all = {key: table.dropna(subset=[finest]) for key, table in tables.items()}
best = {key[2]: key for key in sorted(tables, key=lambda key: found[key].overall.fillna(0).loc["auc", "estimate"])}
no_face = {
    dataset: trivial_rows(of_all[key], finest, settings, validation.get(key[:2])) for dataset, key in best.items()
}
measured = {
    key: pd.concat([main_numbers(table, finest, settings), matched_numbers(table, finest, settings)])
    for key, table in of_all.items()
}
measured = pd.DataFrame(measured).T.rename_axis(names).reset_index()
ends = [found[key].fairness.reindex([(finest, "worst_auc")])[["low", "high"]].iloc[0] for key in tables]
measured[["worst_auc_low", "worst_auc_high"]] = np.array(ends, float)
blind = pd.concat(no_face, names=["dataset"]).reset_index()
every_run = pd.concat([measured, blind.assign(detector="(" + blind["detector"] + ")")], ignore_index=True)
every_run = every_run.sort_values("dataset", key=lambda column: column.map(sets.index), kind="stable")

# %%
references, parts = [name for name in dict.fromkeys([reference, "balanced"]) if name in detectors], {}
for base in references:
    for detector, seed, dataset in tables:
        one, other = (detector, seed), (base, seed)
        if (*other, dataset) not in tables or detector in references[: references.index(base) + 1]:
            continue  # no partner, or compared already the other way round
        pair = [of_all[*key, dataset] for key in (one, other)]
        fitted_on = (validation[one], validation[other]) if {one, other} <= set(validation) else None
        parts[detector, base, seed, dataset], failures = comparisons.compare(*pair, finest, settings, fitted_on)
        for text in failures:
            print(f"{detector} against {base} on {dataset}: {text}")
keys = ["detector", "reference", "seed", "dataset"]
columns = [*keys, "at", "metric", "a", "b", "estimate", "low", "high", "p_value", "fpr_a", "fpr_b"]
differences = pd.concat(parts, names=keys).droplevel(-1).reset_index() if parts else pd.DataFrame(columns=columns)
judged = comparisons.compared(differences, level)
assert not (judged["p_holm"] < judged["p_value"]).any()

# %% tags=["audit"] alt="One panel for each test set: the AUC of the worst group against F_FPR at a common FPR."
display(fairness.all_runs(every_run, title=f"By {finest}, {'every training seed' if several else 'one training seed'}"))
if not scores:
    print(*experiment.leaders(measured), sep="\n")
    asked = judged["question"].isin([comparisons.QUESTIONS["worst_auc", "threshold"], "F_FPR at a common FPR"])
    print("\nThe detectors compared (5.9):", *comparisons.comparison_sentences(judged[asked]), sep="\n")
    print("\nAll tables of this run, in short:")
    for (detector, seed, dataset), verdict in found.items():
        severe = sum(one["severe"] for one in verdict.cautions)
        print(f"{detector}{f'-s{seed}' if several else ''} on {dataset}: {findings.in_short(verdict.findings)}"
              + f" Severe cautions: {severe}." * (severe > 0))  # fmt: skip
if left_out:
    print(f"Not tested, because they are not there: {', '.join(left_out)}. No verdict speaks of them.")

# %% tags=["audit"]
for key in shown:
    heading = f"<h3>{chosen} on {key[2]}</h3>" if len(tables) > 1 and not scores else ""
    heading = f"<h3>{escape(key[2])}</h3>" if scores and len(shown) > 1 else heading
    display(HTML(heading + findings.as_html(found[key])))

# %% [markdown]
# ## 5.3 Rates of a group
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

# %% tags=["nbval-check-output"]
tiny_scores = {  # two real images, then two fakes
    "male-white": (0.1, 0.3, 0.8, 0.9),
    "male-black": (0.6, 0.2, 0.7, 0.4),
    "female-white": (0.2, 0.4, 0.9, 0.6),
    "female-black": (0.7, 0.8, 0.9, 0.3),
}
tiny = pd.DataFrame(
    [(group, image // 2, score) for group, four in tiny_scores.items() for image, score in enumerate(four)],
    columns=["group", "label", "score"],
)
tiny["img_path"] = tiny["video"] = tiny["identity"] = [f"tiny/{row:02d}" for row in range(len(tiny))]
called_fake, real = tiny["score"] >= 0.5, tiny["label"] == 0
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
display(show(metrics.rates_of))
rates = metrics.group_rates(tiny, "group")
assert np.allclose(rates.loc[by_hand.index, by_hand.columns], by_hand)
assert np.allclose(rates["fpr"] + rates["tnr"], 1) and np.allclose(rates["tpr"] + rates["fnr"], 1)
rates

# %% [markdown]
# **A rate without images is undefined.** Take the fakes of one group away. Its TPR is 0/0: neither zero, which would
# make the group look badly served, nor a reason to forget the group, whose false positive rate is as good as before.
# The package says so and says on how many images the rest stands.

# %% tags=["nbval-check-output"]
one_class = tiny[~((tiny["group"] == "female-black") & (tiny["label"] == 1))]
print(*metrics.undefined_rates(one_class, "group"), sep="\n")
left = metrics.group_rates(one_class, "group").loc["female-black"]
assert left["fpr"] == 1 and np.isnan(left["tpr"]) and left["n_real"] == 2

# %% [markdown]
# **What you should see.** By hand and package agree. In the released annotations of Celeb-DF the group male-white has
# real images only, as counted in the released test list: such a rate stands under *Undefined* in 5.2.
#
# ## 5.4 The paper's fairness metrics, and two conventions
#
# **Why.** One number for all groups makes detectors comparable. The paper uses four; smaller is fairer:
#
# $$
# F_\mathrm{FPR} = \sum_g |\mathrm{FPR}_g - \mathrm{FPR}| , \qquad
# F_\mathrm{OAE} = \max_g \mathrm{ACC}_g - \min_g \mathrm{ACC}_g ,
# $$
#
# $$
# F_\mathrm{DP} = \max_g P(\hat y = 1 \mid g) - \min_g P(\hat y = 1 \mid g) , \qquad
# F_\mathrm{MEO} = \max_{r \in \{\mathrm{FPR, FNR, TPR, TNR}\}} \left( \max_g r_g - \min_g r_g \right) .
# $$
#
# $F_\mathrm{FPR}$ is a sum: it grows with the number of groups and is not comparable between test sets with eight and
# with six. The gaps of FPR and TPR, `fpr_gap` and `tpr_gap`, do not have this flaw and stand beside it.
# $F_\mathrm{OAE}$ and $F_\mathrm{DP}$ mix both classes: they compare like with like only if every group has the same
# share of fakes. The package also gives $F_\mathrm{EO} = \sum_g |\mathrm{FPR}_g - \mathrm{FPR}| +
# |\mathrm{TPR}_g - \mathrm{TPR}|$ as `eo`, and the gap of the groups' AUCs as `auc_gap`. *Which metric
# when* (`book/which_metric.md`, a page of the site) tells for each of them whom it protects and when it misleads.
# By hand:


# %%
def gap(rate):
    return rate.max() - rate.min() if rate.notna().sum() > 1 else np.nan


def metrics_by_hand(table, by, threshold):
    called_fake, real = table["score"] >= threshold, table["label"] == 0
    fpr = called_fake[real].groupby(table[by]).mean()
    tpr = called_fake[~real].groupby(table[by]).mean()
    return {
        "fpr_sum": (fpr - called_fake[real].mean()).abs().sum() if len(fpr) > 1 else np.nan,
        "oae": gap((called_fake == ~real).groupby(table[by]).mean()),
        "dp": gap(called_fake.groupby(table[by]).mean()),
        "meo": np.maximum(gap(fpr), gap(tpr)),  # FNR = 1 - TPR and TNR = 1 - FPR have the same gaps
    }


# %%
display(show(metrics.metrics_of_rates))
for table, name in ((tiny, "group"), *((example.dropna(subset=[name]), name) for name in found[example_key].bys)):
    package, hand = metrics.fairness_metrics(table, name, threshold), metrics_by_hand(table, name, threshold)
    assert np.allclose(package[list(hand)], list(hand.values()), equal_nan=True)
pd.DataFrame(
    {name: metrics.fairness_metrics(example.dropna(subset=[name]), name, threshold) for name in found[example_key].bys}
)

# %% [markdown]
# A detector can look fair by gender and fair by race and yet not be fair by both together: averages hide what happens
# where two attributes meet. The rate of a union of groups lies between those of its parts, so the gap by group is
# never narrower than the others.
#
# **Official and corrected.** The released script differs from the definitions in two ways. It takes the score to be
# the sigmoid of the fake class's logit, which ignores the logit of the real class; and it drops a group with one class
# from every metric without a word (chapter 7 shows both by hand). Where the dropped group is the one with the most
# false positives, the official number is smaller for it. Numbers are comparable only within one convention. All results
# below are `corrected`; the table of 5.10 has both, as `official` is what published numbers were made with. Tables hold
# fractions: the paper's percent are these times 100.
#
# **The main numbers.** A constant answer has the same rates in all groups: its $F_\mathrm{FPR}$, $F_\mathrm{DP}$ and
# $F_\mathrm{MEO}$ are zero, and no detector is "fairer". A gap closes as well when the better group is served as badly
# as the other. So look at the group $g$ that is served worst:
#
# $$ \min_g \mathrm{AUC}_g, \qquad \min_g \mathrm{TPR}_g(t) \quad \text{with}\quad \mathrm{FPR}(t) = 0.1 . $$
#
# The threshold $t$ is taken from the test set's own ROC curve: all detectors may raise equally many false alarms. Who
# does not see the truth has $\mathrm{AUC}_g = \frac12$ and calls as many fakes as real images fake in each group:
# $\mathrm{TPR}_g$ is 0.1 on average, and the lowest is no higher but by chance. Groups with fewer than ten videos of a
# class take no part. The lowest of several noisy numbers is too low; its interval allows for that. By hand, and beside
# predictors that see no face (a constant, a coin, the detector's own scores dealt out anew among the images, and, where
# chapter 4 measured it, how sharp the image is):


# %%
def worst_by_hand(table, by):
    real, score = table["label"] == 0, table["score"]
    videos = table.groupby([by, "label"])[cluster].nunique().unstack().reindex(columns=[0, 1])
    enough, tpr = videos >= 10, pd.Series(dtype=float)
    large = table[table[by].map(enough.all(axis=1))].groupby(by)
    auc = pd.Series({name: roc_auc_score(part["label"], part["score"]) for name, part in large}, dtype=float)
    if real.any():
        cut = np.sort(score[real])[::-1][int(0.1 * real.sum())]  # the highest of the real images that may pass
        above, tied = (score[real] > cut).mean(), (score[real] == cut).mean()
        called = (score > cut) + (score == cut) * (0.1 - above) / tied  # of tied scores, a part is called fake
        tpr = called[~real].groupby(table[by]).mean()[lambda rates: enough[1].reindex(rates.index)]
    return [one.min() if len(one) > 1 else np.nan for one in (auc, tpr)]


honest = main_numbers(example, finest, settings)
display(show(interval_of_the_worst))
assert np.allclose(honest[list(WORST)].astype(float), worst_by_hand(example, finest), equal_nan=True)
(100 * pd.concat([honest.to_frame(chosen).T, no_face[example_key[2]][list(COLUMNS)]])).map("{:.1f}".format)

# %% [markdown] tags=["audit"]
# ## 5.5 Groups and their intervals
#
# The share of real images called fake (FPR, lower is better) and the share of fakes found (TPR, higher is better) of
# each group. The intervals rest on whole videos: frames of one video are near copies.

# %% [markdown]
# **Why.** A rate of 3 in 10 and one of 300 in 1,000 are the same number and not the same knowledge. If images were
# independent, $k$ of $n$ would tell of the rate $p$ how likely $k$ hits or more are. With half of the chance of exactly
# $k$ left out (the *mid-p*-value) and $I$ the incomplete beta function,
#
# $$ C(p; k, n) = \tfrac12 \left[ I_p(k, n - k + 1) + I_p(k + 1, n - k) \right] $$
#
# is the confidence that the rate is below $p$: the 95 % interval lies between $C = 0.025$ and $C = 0.975$. Images are
# not independent: a detector that fails on one frame fails on its neighbours. Let the errors of $V$ videos of $m$
# frames correlate by $\rho$ inside a video. With the mean squares between videos, $B$, and inside them, $W$,
#
# $$ \hat\rho = \frac{B - W}{B + (m - 1)\, W}, \qquad n(\rho) = \frac{V m}{1 + (m - 1)\, \rho} $$
#
# are the measured $\rho$ and the number of independent images that the frames are worth. But few videos hardly tell
# $\rho$, and other groups need not have the same. So $C$ is averaged over all $\rho$, each weighed by how well it
# explains the errors $e_v$ of the videos (the beta-binomial likelihood), and none counts for less than $\hat\rho$:
#
# $$ C(p) = \sum_\rho w(\rho \mid p)\; C\bigl(p;\, \hat p\, n, n\bigr), \quad n = n(\max(\rho, \hat\rho)), \qquad
# w(\rho \mid p) \propto \prod_v \frac{\mathrm{B}(e_v + a,\, m - e_v + b)}{\mathrm{B}(a, b)}, \quad
# \frac{a}{p} = \frac{b}{1 - p} = \frac1\rho - 1 . $$
#
# By hand, on twelve real videos of four frames; each number says how many of the four were called fake:

# %% tags=["nbval-check-output"]
alarms, m = np.array([4, 4, 3, 0, 0, 1, 0, 4, 0, 0, 0, 1]), 4
share = alarms / m
between = m * share.var(ddof=1)
inside = (alarms * (1 - share)).sum() / (len(alarms) * (m - 1))
measured = (between - inside) / (between + (m - 1) * inside)
p, rho = np.linspace(0.001, 0.999, 999)[:, None], confidence.CORRELATIONS  # every rate with every correlation
a, b = p * (1 / rho - 1), (1 - p) * (1 / rho - 1)
weight = np.exp(sum(betaln(e + a, m - e + b) - betaln(a, b) for e in alarms))
weight = weight / weight.sum(1, keepdims=True)
n = len(alarms) * m / (1 + (m - 1) * np.maximum(rho, measured))
k = share.mean() * n
below = (weight * (betainc(k, n - k + 1, p) + betainc(k + 1, n - k, p)) / 2).sum(1)
by_hand = np.interp([0.025, 0.975], below, p[:, 0])
print(f"measured rho {measured:.3f}: 48 frames are worth at most {n.max():.1f} images")
print(f"{100 * share.mean():.1f} % ({100 * by_hand[0]:.1f} to {100 * by_hand[1]:.1f})")

# %%
display(show(confidence.curve), show(confidence.log_likelihood, docstring=False))
package = uncertainty.interval_of_a_rate(alarms.astype(float), np.full(len(alarms), 4.0), 0.95)
assert np.allclose([package["low"], package["high"]], by_hand, atol=2e-3) and package["effective"] <= n.max()
print("as independent images: {:.3f} to {:.3f}".format(*metrics.rate_interval(alarms.sum(), 48)))

# %% tags=["audit"] alt="Dots with intervals: the false positive rate and the true positive rate of each group."
display(sizes)
keyed = [(*key, name) for key in found for name in found[key].bys]
groups = pd.concat({key: found[key[:3]].groups.loc[key[3]] for key in keyed}, names=[*names, "by"]).reset_index()
for key in shown:
    one = found[key]
    again = [found[other].groups.loc[one.primary] for other in tables if other != key and other[::2] == key[::2]]
    title = f"{key[0]} on {key[2]}, by {one.primary}"
    display(fairness.group_intervals(one.groups.loc[one.primary], level=level, title=title, others=again))
if style.key():
    display(HTML(style.key()))


# %% tags=["audit"]
def in_words(row):
    """A row of the table of groups, for people: each rate in percent with its interval, and what it rests on."""
    names = {"fpr": "FPR", "tpr": "TPR", "auc": "AUC"}
    words = {name: percent(row[rate]) + findings.between(row[f"{rate}_low"], row[f"{rate}_high"])
             for rate, name in names.items()}  # fmt: skip
    for what in ("real", "fake"):
        words |= {f"{what} images": row[f"n_{what}"], f"{what} {UNITS[cluster]}": row[f"clusters_{what}"]}
        words[f"{what}: worth"] = f"{np.nan_to_num(row[f'effective_{what}']):.0f}"
    return pd.Series(words)


display(pd.concat({key[2]: found[key].groups.apply(in_words, axis=1) for key in shown}, names=["dataset"]))
whole = groups.dropna(subset=["fpr"])
assert (whole["fpr_low"] <= whole["fpr"] + 1e-9).all() and (whole["fpr"] <= whole["fpr_high"] + 1e-9).all()
assert (groups["effective_real"].isna() == groups["fpr"].isna()).all()
assert (groups["n_real"] + groups["n_fake"] == groups["n"]).all()

# %% [markdown]
# **Which groups differ?** Not those whose intervals happen not to touch: each group is compared with all others
# together. The p-value asks how often the groups, dealt out anew among the videos of one class, differ by as many
# standard errors (5.6). With so many comparisons it is corrected for their number (Holm: the smallest of $m$ is
# multiplied by $m$, the next by $m - 1$, and so on, and none may fall below the one before it). The corrected p-value
# decides: an interval stands for itself alone, and of many some exclude zero by chance.

# %%
assert np.allclose(permutation.holm(np.array([0.01, 0.04, 0.03])), [3 * 0.01, 2 * 0.03, 2 * 0.03]), "0.04 follows 0.06"
against = uncertainty.against_rest(example, finest, settings).reset_index()
assert (against["p_holm"].dropna() >= against["p_value"].dropna()).all()
fairness.differences(
    against.rename(columns={finest: "name", "rate": "metric"}),
    f"{chosen} on {example_key[2]}: each group minus all others",
    level,
)

# %% [markdown]
# **What you should see.** Wide bars, even with a hundred images: they rest on far fewer independent ones. A group that
# differs from the others after correction (blue) has been found, not guessed. A group of fewer than ten videos has no
# p-value: it cannot be judged.

# %% [markdown] tags=["audit"]
# ## 5.6 Gaps between groups, the sampling floor and the band
#
# `estimate` with the band `low` to `high`, made to hold the true value in 95 of 100 test sets; `floor_q95` is what
# sampling alone exceeds in one of twenty test sets if the groups made no difference, and `p_holm` the corrected p-value
# of a difference. The gaps of FPR, TPR and AUC leave out the groups that are too small (`left_out`); the other metrics
# take all groups: F_FPR (`fpr_sum`) and F_EO (`eo`) add up over them and grow with their number, F_MEO (`meo`) may
# exceed the gaps for that reason; F_OAE (`oae`) and F_DP (`dp`) mix real images and fakes.

# %% [markdown]
# **Why.** $F_\mathrm{FPR}$ adds up absolute differences. It is zero only if all groups have exactly the same rate,
# which hardly ever happens in a sample. So ask what a detector *blind* to the group would show on this test set. Deal
# the group labels out anew among the videos of one class: with $X_g$ alarms among the $n_g$ real images that $g$ then
# gets,
#
# $$ F_\mathrm{FPR} = \sum_g \left| \frac{X_g}{n_g} - \frac{\sum_h X_h}{\sum_h n_h} \right| $$
#
# is a draw of what chance alone makes of it; its distribution over many deals is the *floor*.
#
# **A test needs more.** Frames of a video err together, in some groups more than in others. Then a gap to a group of
# noisy videos is no surprise, and the same gap to a quiet one is; but a deal mixes quiet and noisy videos. So each
# group is compared with the rest in standard errors, which each deal has of its own:
#
# $$ T_g = \frac{p_g - p_{-g}}{\sqrt{s_g^2 + s_{-g}^2}}, \qquad
# s^2 = \frac{u\, \frac{V}{V - 1} \sum_v (e_v - p\, m_v)^2 + 2\, \bar p\, (1 - \bar p) \sum_v m_v^2}
# {(u + 2) \left( \sum_v m_v \right)^2} $$
#
# for $V$ videos of $m_v$ frames, of which $e_v$ raise an alarm. A few videos without any alarm look quieter than they
# are: $u$ counts the videos with an alarm, or those with a frame spared if they are fewer, and two videos that are
# worth one frame each, at the rate $\bar p$ of all images, are mixed in. The p-value of a gap is the share of deals in
# which the largest $|T_g|$ is as large as that of the table; where this is too rare to be counted, the tail of their
# distribution is fitted. By hand, on three videos of each of two groups, four frames a video: there are twenty deals.

# %% tags=["nbval-check-output"]
alarms, m, deals = np.array([0, 1, 0, 4, 2, 4]), 4, []
pooled = alarms.mean() / m


def rate_and_variance(e):  # of videos with e alarms each
    u = min((e > 0).sum(), (e < m).sum())
    between = len(e) / (len(e) - 1) * ((e - e.mean()) ** 2).sum()
    return e.mean() / m, (u * between + 2 * pooled * (1 - pooled) * len(e) * m**2) / (u + 2) / (len(e) * m) ** 2


for members in combinations(range(6), 3):
    is_a = np.isin(range(6), members)
    (rate, s2), (rest, s2_rest) = rate_and_variance(alarms[is_a]), rate_and_variance(alarms[~is_a])
    deals.append([abs(rate - rest), abs(rate - rest) / np.sqrt(s2 + s2_rest)])
deals = pd.DataFrame(deals, columns=["gap", "T"])
p_by_hand = (deals["T"] >= deals["T"][0] - 1e-9).mean()
print(f"gap {deals['gap'][0]:.2f}, floor {deals['gap'].mean():.2f}; T {deals['T'][0]:.2f}, p-value {p_by_hand:.2f}")

# %%
display(show(permutation.studentised), show(permutation.floor_of_cells))
six = pd.DataFrame({"video": np.repeat(list("uvwxyz"), m), "group": np.repeat(list("ab"), 3 * m), "label": 0})
six["score"] = np.tile(np.arange(m), 6) < np.repeat(alarms, m)
package = permutation.sampling_floor(six, "group", uncertainty.Settings(permutations=4000), auc=False).loc["fpr_gap"]
assert np.isclose(package["estimate"], deals["gap"][0]) and abs(package["mean"] - deals["gap"].mean()) < 0.04
assert abs(package["p_value"] - p_by_hand) < 0.03
package.round(2)

# %% [markdown]
# **The band.** Noise widens gaps on average: gaps of rates that may be the truth lie above a true gap that is smaller
# than the noise, and so do their percentiles. But each metric $F$ of group rates $r$ obeys
#
# $$ |F(\hat r) - F(r)| \le F(\hat r - r) , $$
#
# the estimate is no further from the truth than $F$ of the error of the rates, and how large that is the curves of 5.5
# tell: draw for every group a rate $r^*$ with the confidence that its own videos give it, many times. The 95 %
# quantile of $F(\hat r^* - \hat r)$ is the half width of the band, wide on purpose. By hand, three groups:

# %% tags=["nbval-check-output"]
truth, estimated = np.array([0.20, 0.25, 0.22]), np.array([0.18, 0.30, 0.21])
spread = lambda rates: rates.max() - rates.min()  # noqa: E731
print(f"gap {spread(estimated):.2f}, truly {spread(truth):.2f}; gap of the errors {spread(estimated - truth):.2f}")
assert abs(spread(estimated) - spread(truth)) <= spread(estimated - truth)

# %%
show(uncertainty.interval_of_a_gap)

# %% tags=["audit"]
unfairness = pd.concat({key: found[key[:3]].fairness.loc[key[3]] for key in keyed}, names=[*names, "by"]).reset_index()
columns = ["estimate", "low", "high", "floor_q95", "p_value", "p_holm", "groups", "left_out"]
gaps = {key[2]: found[key].fairness[columns].drop(list(WORST), level="metric") for key in shown}
gaps = pd.concat(gaps, names=["dataset"])
if several:
    seeds = unfairness[unfairness["detector"] == chosen].groupby(gaps.index.names)["estimate"]
    gaps.insert(1, "all seeds (%)", seeds.agg(experiment.plus_minus).reindex(gaps.index))
display(gaps)
defined = unfairness.dropna(subset=["estimate", "floor_q95"])
assert (defined["low"] <= defined["estimate"] + 1e-9).all() and (defined["estimate"] <= defined["high"] + 1e-9).all()
assert (defined["floor_mean"] >= 0).all() and defined["p_value"].between(0, 1).all()
assert (defined["low"][defined["p_value"] >= 1 - level] == 0).all(), "no gap above zero that chance explains"

# %% [markdown]
# **What you should see.** A floor that is far from zero. A detector whose $F_\mathrm{FPR}$ lies under the 95 % quantile
# of its floor cannot be told from a group-blind one *on this test set*; that is not a proof of fairness, a larger test
# set may tell them apart. Where floor and p-value disagree, p decides: it knows how noisy each group is. The floor
# depends on the detector's own FPR: a rate near one half varies most, so a detector that raises fewer alarms has a
# lower floor and a lower $F_\mathrm{FPR}$ for free. The threshold decides on that.
#
# **The AUC needs no resamples.** One sort of the scores says for each image which share of the other class it is on the
# right side of; the mean of that is the AUC, its spread between videos the standard error. Groups may have the same AUC
# and yet unlike scores, which no deal of the groups would keep, so the floor of `auc_gap` draws the AUC of each group
# around a common one, with the error that its own videos speak for.
#
# **Wrong labels dilute a gap.** If a share $\varepsilon$ of the videos gets the label of another group at random, and
# the $G$ groups are of equal size, group $g$ shows $1 - \varepsilon$ of its rate and $\varepsilon / (G - 1)$ of each
# other. So a gap $\Delta$ becomes $(1 - \varepsilon \, G / (G - 1)) \, \Delta$ on average.

# %% [markdown] tags=["audit"]
# **If some group labels are wrong.** Labels are impressions of annotators. Here the share `label_noise` of the videos
# changes to another group at random, in 20 relabellings: the groups mix, gaps shrink, and a finding that rests on a few
# videos is lost. `estimate` is with the labels as given; `mean`, `low` and `high` are over the relabellings; `differs`
# counts those in which the corrected p-value stays below one minus the level, where it is with the labels as given.
# Other columns for the same attribute, such as `race_2` or `skin`, stand beside. These flips are blind to the detector:
# errors of annotators that go along with those of the detector are not covered.

# %% tags=["audit"]
noise = pd.concat({key: found[key].noise for key in found}, names=names).reset_index()
display(pd.concat({key[2]: found[key].noise.dropna(axis=1, how="all") for key in shown}, names=["dataset"]))
given = noise.merge(unfairness, on=[*names, "by", "metric"])
assert np.allclose(given["estimate_x"], given["estimate_y"]), "the labels as given"

# %% [markdown] tags=["audit"]
# ## 5.7 Other thresholds
#
# How the gaps move with the threshold, and what the detector does at two thresholds that were fitted: the equal error
# rate (EER), and the lowest threshold with a false positive rate of 10 %. They are fitted on *validation* scores where
# there are any; otherwise on the images that they are judged on, and `fitted_on` says so. The curves and this table
# take all groups, also those that the gaps of 5.6 leave out as too small: where there are such, gaps here are larger.
#
# With validation scores there is a second table: what *post-processing* would change, fitted on validation and judged
# here, against the detector as given. "Equal FPR" gives each group a threshold at which it has the false positive rate
# that all images have in use; "best worst group" chooses thresholds for the best accuracy of the worst-off group while
# as many fakes are found. Both need the group of a person for every decision: whether that may be used is a
# question of law. Where a gap closes and the worst-group TPR falls, a group was levelled down. `p_holm` is corrected
# within a metric. Chapter 8 of the book goes deeper.

# %% tags=["audit"] alt="Curves: the gap of the FPR, the FPR and the TPR of all images against the threshold."
for key in shown:
    same = [other for other in tables if other[::2] == key[::2]]
    curve = {
        f"{other[0]}-s{other[1]}" if several else key[2]: thresholds.metrics_by_threshold(of_all[other], finest)
        for other in same
    }
    assert all(one["fpr"].dropna().is_monotonic_decreasing for one in curve.values())
    title = f"{key[2]}, by {finest}" if several else f"by {finest}"
    figure = fairness.threshold_curves(curve, ("fpr_gap", "tpr_gap", "fpr", "tpr"), marked=threshold, title=title)
    figure.set_dpi(80)
    display(figure)

# %% tags=["audit"]
parts, changed = {}, {}
for key, table in tables.items():
    on, table = validation.get(key[:2]), table.dropna(subset=[finest])
    for point, target in verdicts.POINTS.items():
        try:
            part = thresholds.operating_points(table if on is None else on, table, finest, {point: target}, threshold)
            parts[(*key, found[key].fitted_on, point)] = part
        except ScoreTableError as error:
            print(f"{key[0]} on {key[2]} has no operating point {point}. {error}")
    if on is not None and key in shown:
        try:
            peers, borrowed = postprocessing.table_peers(on, table, finest, settings)
            changed[key] = postprocessing.changes(table, peers, finest, settings).assign(borrowed=", ".join(borrowed))
        except ScoreTableError as error:
            print(f"{key[0]} on {key[2]} is not post-processed. {error}")
operating = (
    pd.concat(parts, names=[*names, "fitted_on", "target"]).reset_index() if parts else pd.DataFrame(columns=names)
)
operating = operating.drop_duplicates([*names, *operating.columns.intersection(["point"])])
changed = pd.concat(changed or {key: pd.DataFrame(columns=["metric", "p_value"])}, names=names).reset_index(names)
changed["p_holm"] = changed["p_value"].astype(float).groupby(changed["metric"]).transform(permutation.holm)
mine = operating[operating["detector"] == chosen].drop(columns=["detector", "target"], errors="ignore")
display(mine.set_index([name for name in ("dataset", "seed", "point", "fitted_on") if name in mine]).round(3))
if len(changed):
    display(changed.set_index(["dataset", "peer", "metric"]).drop(columns=["detector", "seed", "p_value"]))

# %% [markdown] tags=["audit"]
# ## 5.8 Calibration
#
# Does a score of 0.8 mean that eight in ten such images are fake, whoever is shown? Dots under the diagonal mean scores
# that are too high: a group whose curve lies lower than the others' is suspected more than it deserves.

# %% tags=["audit"] alt="One panel for each group: the share of fakes against the mean score, in ten bins."
for key in shown:
    table = tables[key].dropna(subset=[finest])
    curve, numbers = (of(table, finest) for of in (calibration.reliability, calibration.calibration))
    display(fairness.reliability(curve, numbers, f"{key[0]} on {key[2]}"))
if style.key():
    display(HTML(style.key()))
calibrated = {
    (*key, name): calibration.calibration(table.dropna(subset=[name]), name)
    for key, table in tables.items()
    for name in found[key].bys
}
calibrated = pd.concat(calibrated, names=[*names, "by", "group"]).reset_index()
assert calibrated["brier"].dropna().between(0, 1).all()

# %% [markdown]
# **What you should see.** Dots near the diagonal where scores mean what they say. ECE, their mean distance from it,
# grows as groups get smaller: compare groups of like size. One asks of a *video* whether it is fake; with the mean
# score of its frames the gap between groups need not fall (5.2 says what it does), as averaging removes luck, not bias.
#
# ## 5.9 The detectors compared
#
# **Why.** A comparison needs both numbers, fairness *and* AUC: a detector that calls everything real has
# $F_\mathrm{FPR} = 0$. And it needs a simple competitor: `balanced`, the plain detector trained on batches with equal
# numbers of every group, is the first thing to try against an imbalanced training set.

# %%
overall = pd.concat({key: one.overall.rename_axis("metric") for key, one in found.items()}, names=names).reset_index()
unfairness = pd.concat([overall.assign(by="all"), unfairness], ignore_index=True)
drawn = unfairness[unfairness["by"].isin([finest, "all"])].rename(columns={"floor_q95": "floor"})
drawn = drawn.assign(n=[len(tables[key]) for key in zip(*(drawn[name] for name in names), strict=True)])
training.fairness_comparison(drawn, title=f"Fairness by {finest}, with {100 * level:g} % bands")

# %% [markdown]
# **What you should see.** The grey bar is what chance alone may show; a dot inside its bar is no finding. Of several
# training seeds each is a small dot with its band, and the large dot is their mean: where the seeds of two detectors
# lie among each other, another training may turn their order around. The figure of 5.2 says what the gaps cost: one
# with small gaps and an AUC near 50 % is fair because it guesses.
#
# **Paired differences.** Two detectors judge the same images; what is hard for both cancels in the *difference*. The
# rates that may be the truth are drawn for both at once, as alike as their errors in the videos are. What noise does to
# a gap depends on the truth: it widens a gap of zero and moves a large one either way. A detector with more alarms has
# more noise, and so a larger gap by noise alone. The interval of A - B is made for each of these
# cases, and the p-value is the level at which it would just touch zero. The lowest of the groups is such a case too:
# noise lowers it where several groups are alike. Least sure is the difference of two worst-group TPRs, which rests on
# the fakes of two groups alone.
#
# **At a common false positive rate.** A detector that raises fewer alarms has smaller gaps of the FPR for free. The
# second comparison therefore takes, on *validation*, the FPR of the reference at the threshold in use, and moves both
# thresholds to where each detector's own validation FPR is at most that. But thresholds need not *travel*: on another
# test set the two FPRs may lie far apart again, and then there is no common FPR to compare at. So this is a verdict
# only where the FPRs on the test set agree within five points; otherwise the sentence gives the two. A last reading
# fits both thresholds on the test set itself. It has seen the labels, as no user of a detector has, and is marked.
#
# The questions come in this order: the two numbers that nobody wins by calling everything real, AUC and TPR of the
# group that is served worst; then $F_\mathrm{FPR}$ at a common FPR and at the threshold in use; then the AUC.

# %%
display(show(uncertainty.interval_of_a_difference), show(comparisons.compared))
nothing = uncertainty.paired_difference(tiny, tiny, "group", settings, auc=False)
assert (nothing[["estimate", "low", "high"]].fillna(0) == 0).all().all(), "no detector differs from itself"
sentences = comparisons.comparison_sentences(judged)
print(*(sentences or ["There is no second detector here to compare with."]), sep="\n")

# %%
judged["name"] = judged["detector"] + " - " + judged["reference"] + ", " + judged["dataset"]
panels = judged[judged["at"] != comparisons.SEEN].assign(metric=lambda rows: rows["question"])
without = panels["p_holm"].isna()  # no common FPR, or no number at all
panels = panels.assign(**{name: panels[name].mask(without) for name in ("estimate", "low", "high")})
fairness.differences(panels, level=level) if len(panels) else None

# %% [markdown]
# **What you should see.** A difference below zero in $F_\mathrm{FPR}$ means fairer than the reference, below zero in
# AUC or TPR worse in detection; blue marks what stands after the correction for the number of comparisons. Training
# seeds share a row. A
# difference at a common FPR is undefined where the thresholds did not travel. An advantage that is gone at the common
# FPR was bought with fewer alarms. Compare the method with `balanced` too: if they cannot be told apart, the simpler
# one is the better answer. The intervals hold for the *trained* detectors; how much another training run would differ
# only several seeds can tell.

# %% [markdown] tags=["audit"]
# ## 5.10 One page, and what may be concluded
#
# In percent: the AUC of the group with the lowest, and the lowest share of fakes found (TPR) of a group where 10 % of
# all real images are called fake, with intervals; the AUC over all images; and the gaps F (smaller is fairer). Below,
# in parentheses, stand predictors that see no face: a score that they win says nothing about a detector.

# %% tags=["audit"]
layout = {"worst_auc": "worst-group AUC", "worst_tpr": "worst-group TPR", "auc": "AUC"}
layout |= {"fpr_sum": "F_FPR", "oae": "F_OAE", "dp": "F_DP", "meo": "F_MEO"}
blocks, means = {}, {}
for fidelity in ("corrected", "official")[: 1 if scores else 2]:
    rows = every_run
    if fidelity == "official":
        rows = {key: main_numbers(one, finest, replace(settings, fidelity=fidelity)) for key, one in of_all.items()}
        rows = pd.DataFrame(rows).T.rename_axis(names).reset_index()
    rows = rows.groupby(["dataset", "detector"], sort=False)[list(layout)]
    means[f"{fidelity}, by {finest} (%)"] = 100 * rows.mean().rename(columns=layout)
    blocks[f"{fidelity}, by {finest} (%)"] = rows.agg(experiment.plus_minus).rename(columns=layout)
summary, words = pd.concat(means, axis=1), pd.concat(blocks, axis=1).fillna("")
ends = unfairness[unfairness["by"] == finest].set_index(["metric", "dataset", "detector"])[["low", "high"]]
for name in WORST if not several else ():
    span = ends.loc[name].apply(lambda row: findings.between(*row), axis=1)
    words[next(iter(blocks)), layout[name]] += span.reindex(words.index).fillna("")
if not scores:
    for name in list(layout.values())[2:]:
        words["Lin et al. 2024, Table 1/2: to be filled in by the reader from the paper", name] = ""
words

# %% [markdown]
# **Why.** This is the table that papers print: detectors by test sets, means over the training seeds and, of several,
# their standard deviation; of one seed the main numbers have their intervals. It stands in both conventions, because
# the released script that made the published numbers is `official`. The last columns are empty: the paper's numbers are
# not ours to copy. Fill them in from the paper, and mind that they belong to other data than this run's. By
# $F_\mathrm{FPR}$ a constant comes first, by the main numbers it stands below every detector that tells fakes in all
# groups.
#
# Where the method stands first or last, it has won or lost *here*; on the embedded benchmark that is with a small
# network, rendered faces and the seeds of this run. It is no verdict on the method at the paper's size. 5.9 says in
# words what was found, and 5.11 what more seeds and other rendered people say.

# %% [markdown] tags=["audit"]
# **What may be concluded.** That this *trained* detector treats groups unlike on *this* test set at *this* threshold,
# where the corrected p-value says so. **What may not**: that a detector without a finding is fair, for the test set may
# be too small to see a difference; that a gap on one test set is the gap on another; why a group is treated worse; and,
# as group labels are annotators' impressions in coarse classes, anything about single people.

# %% [markdown]
# - That one detector has smaller gaps than another, only where the corrected p-value says so; that a *method* does so,
#   only where it holds in several training seeds, and at a common FPR as well.
# - That a gain in fairness has a price, or has none within the interval, when the AUC stands beside it.
# - Nothing about real people from the rendered faces: they come from a program whose groups differ as its author
#   decided; they test the method and the audit.
#
# ## 5.11 What the experiment found
#
# **Why.** All above holds for detectors that were trained once or a few times on one rendered world. What a *method*
# does is another question, and the experiment asks it: by a protocol that was written down first
# (`book/protocol.md`), every row is trained with several training seeds on several *data seeds*, rendered people and
# captures on which no recipe was chosen. Its results lie in `data_manifests/results/`: `experiment.csv` has a row for
# each run and test set, `comparisons.csv` the differences of two detectors on the same images, run by run. With $R$
# runs, differences $d_1, \dots, d_R$ with mean $\bar d$ and standard deviation $s$, Student's interval
#
# $$ \bar d \pm t_{R-1}\, \frac{s}{\sqrt R} $$
#
# says how far the mean may be from that of all trainings. A detector *wins* against another by the rule of the protocol
# if in the worst-group AUC, or in $F_\mathrm{FPR}$ where 10 % of all real images are called fake, this interval is off
# zero on the better side on at least three test sets, with six runs on each, and if the AUC is lower, in the same
# sense, on none. The hypotheses were written down before: a claim is shown if its detector wins, refuted if the other
# one does. What is not shown is not refuted.

# %%
committed = [Path("../data_manifests/results") / name for name in ("experiment.csv", "comparisons.csv")]
missing = [path.name for path in committed if not path.exists()]
if missing:
    print(f"{' and '.join(missing)} are made by `python -m fairdf_utils reproduce --params experiment --run RUN` and")
    print("`python -m fairdf_utils results RUN --out data_manifests/results/experiment.csv`; they are not there.")
else:
    trained = pd.read_csv(committed[0])
    seeds = {what: ", ".join(map(str, sorted(trained[what].unique()))) for what in ("seed", "data_seed", "bias")}
    print("Training seeds {seed}; data seeds {data_seed}; bias knob {bias}.".format(**seeds))
    seeing = trained[~trained["detector"].str.startswith("(")]  # the trivial predictors stand in the tables
    display(fairness.all_runs(seeing, title="All runs of the experiment"))
    print(*experiment.leaders(seeing), sep="\n")
    rows, order = trained.groupby(["detector", "dataset"]), list(trained["detector"].unique())
    cost = trained.groupby("detector")[["epochs", "seconds"]].mean().map("{:.0f}".format).replace("nan", "")
    cost.columns = pd.MultiIndex.from_tuples([("training, mean", name) for name in cost])
    for two in (["worst_auc", "fpr_sum_matched"], ["auc", "oae_matched"]):
        table = rows[two].agg(experiment.plus_minus).rename(columns=experiment.NUMBERS).unstack("dataset")
        table = table.reindex(columns=trained["dataset"].unique(), level="dataset").reindex(order)
        display(table.join(cost).rename_axis("%, mean ± sd over runs"))

# %%
if not missing:
    paired = pd.read_csv(committed[1])
    over_runs = experiment.pooled(paired, level)
    pair = over_runs.index[0]  # by hand
    d = paired.set_index(over_runs.index.names).loc[[pair], "estimate"].to_numpy()
    half = student.ppf((1 + level) / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else np.nan
    assert np.allclose(over_runs.loc[pair, ["low", "high"]].astype(float), d.mean() + [-half, half], equal_nan=True)
    won = experiment.wins(over_runs)
    points = (100 * over_runs["mean"]).map("{:+.1f}".format)
    points += [findings.between(*ends) for ends in over_runs[["low", "high"]].to_numpy()]
    points = points.where(over_runs["mean"].notna(), "").unstack("dataset")[list(paired["dataset"].unique())]
    points = points.reindex(won.index).join(won.drop(columns=["auc_higher", "lost"]))
    points = points[points.index.isin(["balanced", "balanced-long"], level="reference")]
    display(show(experiment.wins), points.rename(experiment.NUMBERS))
    print(*experiment.win_sentences(over_runs), sep="\n")
    for claim, verdict in experiment.hypotheses(over_runs).items():
        print(f"{claim}: {verdict}.")

# %% [markdown]
# **What you should see.** Points for each run, and how far apart the runs of one detector lie: where two clouds
# overlap, one training of each proves nothing. `balanced-long` gets as many passes through an encoder as the method
# without SAM could use at its cap; where patience stops the method earlier, it trains longer. The seconds compare rows
# only roughly, as other programs ran on the same machine. Two things make the intervals too narrow. Runs on one data
# seed share their people and captures, so that new people may change more than a new training; and among many
# comparisons some are off zero by chance, which the demand for three test sets makes rare, not impossible.
#
# The same seed gives other numbers on another machine: sums are rounded in another order, and the difference grows with
# every step. Take another machine for another training seed: of a single run only the order of magnitude carries over.
#
# ## 5.12 Save

# %%
wide = unfairness[unfairness["by"].isin([finest, "all"])]
results = wide.pivot(index=names, columns="metric", values="estimate").loc[list(tables)]
trivial = pd.concat(no_face, names=["dataset"]).reset_index().assign(seed=resampling_seed)[[*names, *COLUMNS]]
results = pd.concat([results[list(COLUMNS)].reset_index(), trivial], ignore_index=True)
results = results.sort_values("dataset", key=lambda column: column.map(sets.index), kind="stable")
long = trivial.melt(names, var_name="metric", value_name="estimate").assign(by=finest)
absent = [dict(zip(names, (*key, name), strict=True)) for name in left_out for key in runs]
results = pd.concat([results, pd.DataFrame(absent)], ignore_index=True) if absent else results  # rows without numbers
flat = summary.set_axis([f"{name} {block}" for block, name in summary.columns], axis=1).reset_index()
saved = {"results": results, "fairness": pd.concat([unfairness, long]), "groups": groups, "differences": differences}
saved |= {"label_noise": noise, "thresholds": operating, "postprocessing": changed, "calibration": calibrated}
saved |= {"summary": flat}
for name, table in saved.items():
    write_text(run.path(f"{name}.csv"), table.to_csv(index=False, lineterminator="\n", float_format="%.6f"))
said = [
    {**dict(zip(names, key, strict=True)), "images": len(tables[key]), "groupings": one.bys,
     "in_short": findings.in_short(one.findings), "cautions": one.cautions, "findings": one.findings}
    for key, one in found.items()
]  # fmt: skip
document = {"settings": vars(settings), "data_sets": said, "left_out": left_out, "comparisons": sentences}
document = pd.Series(document)
write_text(run.path("findings.json"), json.dumps(json.loads(document.to_json()), indent=2) + "\n")  # NaN becomes null
run.finish(read=[*filter(None, (scores, validation_scores)), *(committed if not missing else [])])
results

# %% [markdown]
# ## Summary
#
# - Every metric is made of group rates; a rate without images is undefined and reported with its n.
# - Rates have intervals that weigh every correlation of the frames of a video by how well it explains their errors.
# - The AUC and the TPR of the group that is served worst are no better for who does not look; every gap is.
# - Gaps are never negative: each is read against the floor of a group-blind detector, with a wide band.
# - Differences of detectors hold whether the groups differ or not; p-values are corrected for their number.
# - At a common FPR there is a verdict only where the FPRs on the test set agree: fitted thresholds need not travel.
# - Sentences are made by rule, severe cautions first; they say whether a gap stands if some group labels are wrong, and
#   what a group would need that cannot be judged.
#
# ## Exercises
#
# **1.** How many videos does a group need for an interval of 10 percentage points? Take the rates of the example, and
# find out first how many independent images its frames are worth.

# %% tags=["solution"]
worth = sample_size.design_effects(example, finest, settings).xs("pooled", level=1)
plan = worth.fillna({"correlation": 1.0, "frames": 1.0, "rate": 0.5})  # no error, or one frame a video: be careful
worth["videos_a_group"] = worth["clusters"] / example[finest].nunique()
worth["needed"] = [
    sample_size.videos_needed(0.1, row.rate, max(row.frames, 1), row.correlation, level) for row in plan.itertuples()
]
known = worth.dropna(subset=["effective"])
assert (known["effective"] <= known["images"] + 1e-9).all(), "frames are worth no more than images"
worth

# %% [markdown]
# Far more than there are: most test sets cannot measure a single group's rate to ten points.
#
# **2.** A person appears in a real and in a fake video. Run the chapter with `cluster = "identity"`: which intervals
# become wider, and why does that of the AUC change more than those of FPR and TPR, which rest on one class each?
