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
# # 8. Thresholds and robustness
#
# | | |
# |---|---|
# | **Needs** | score tables of chapter 4, or one of any detector (parameter `scores`); 8.6 and 8.7 also detectors |
# | **Produces** | `thresholds`, `calibration`, `videos`, `robustness`, `postprocessing` (.csv) |
# | **Time on 2 CPU cores** | about four minutes, most of it for 8.6 and 8.7; ten seconds for one table |
# | **Time on one GPU** | under a minute: only 8.6 and 8.7 use one |
#
# Chapter 5 judged every detector at one threshold, on single frames, with images as they are. Who uses a detector
# decides differently: at a threshold that was chosen, on whole videos, on images that were compressed on their way.
# This chapter changes one of these after the other and looks at what becomes of detection and fairness; then it asks
# what decisions that are changed on purpose, by post-processing, buy and cost.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
scores: str = ""  # score table of any detector (.parquet or .csv); empty takes all tables of the run
validation_scores: str = ""  # beside scores: table of the same detector on other images, to fit thresholds on
by: list = []  # columns that name groups; empty takes gender, race and group as far as they are there
threshold: float = 0.5  # an image is called fake when its score reaches it, from 0 to 1
accepted_fpr: float = 0.1  # operating point: the share of false alarms that a user would accept, 0..1
permutations: int = 1000  # of the sampling floor
resamples: int = 1000  # of the paired differences of 8.7; more are made where many are tested
resampling_seed: int = 0  # of permutations and resamples
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
threads: int = 1  # CPU threads of torch; 0 takes all cores. So small a network runs fastest on one
perturbed: list = ["ori", "fairdf"]  # detectors that are shown damaged images, first seed
robustness_images: int = 400  # images of the intra test set that are perturbed; all when there are no more

# %%
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display
from sklearn.metrics import brier_score_loss

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.corpora import persons
from fairdf_utils.data.batches import decode
from fairdf_utils.data.manifests import read_split
from fairdf_utils.evaluation import perturbations
from fairdf_utils.explanation.grad_cam import final_layer
from fairdf_utils.fairness import calibration, metrics, permutation, postprocessing, thresholds, uncertainty, verdicts
from fairdf_utils.fairness.score_table import ScoreTableError, read_scores, video_level
from fairdf_utils.figures import explanation, fairness
from fairdf_utils.figures.training import contact_sheet
from fairdf_utils.model.stored import choose_device, load_detector
from fairdf_utils.rendered.images import image_folder

pd.options.display.float_format = "{:.3f}".format
run = Run(run_dir, "08_thresholds_and_robustness")
settings = uncertainty.Settings(threshold, resamples, permutations, seed=resampling_seed)

# %% [markdown]
# ## 8.1 Score tables
#
# A score table has one row an image: who is shown, what the truth is, what the detector said (chapter 5 explains every
# column). Beside the tables of the test sets stand those of the *validation* images, where there are any: thresholds
# are fitted on them.

# %%
paths = [Path(scores)] if scores else run.require_all("04_cross_dataset_evaluation/*/scores.parquet")
tables, validation = {}, {}
for path in paths:
    name = path.parent.name if path.stem == "scores" and path.parent.name else path.stem
    for dataset, rows in read_scores(path, by).groupby("dataset", sort=False):
        tables[name, dataset] = rows.reset_index(drop=True)
    beside = f"04_cross_dataset_evaluation/{name}/validation/scores.parquet"
    if validation_scores:
        validation[name] = read_scores(validation_scores, by)
    elif not scores and (run.run_dir / beside).exists():
        validation[name] = read_scores(run.require(beside), by)

# %%
bys = verdicts.groupings(pd.concat(tables.values()), by)
everywhere = [name for name in bys if all(table[name].notna().any() for table in tables.values())]
finest = verdicts.finest(pd.concat(tables.values()), everywhere or bys)  # the intersection, where the table has it
for (name, dataset), table in tables.items():
    if unknown := int(table[finest].isna().sum()):
        print(f"{name} on {dataset}: {unknown} of {len(table)} rows have no {finest} and are left out here")
tables = {key: table.dropna(subset=[finest]).reset_index(drop=True) for key, table in tables.items()}
tables = {key: table for key, table in tables.items() if len(table)}
names, sets = (list(dict.fromkeys(key[part] for key in tables)) for part in (0, 1))
chosen = next((name for name in names if name.startswith("fairdf-s")), names[0])
home = sets[0]  # the data set of training comes first in a run's tables
example = tables[chosen, home]
print(f"detectors: {', '.join(names)}\ndata sets: {', '.join(sets)}\ngroups by: {', '.join(bys)}")
print(f"validation scores: of {len(validation)} of {len(names)} detectors\nexample: {chosen} on {home}")

# %%
for (name, dataset), table in tables.items():
    assert table["score"].between(0, 1).all(), "a score is a probability"
    if not scores and name in validation:
        tested = set(zip([dataset] * len(table), table["img_path"], strict=True))
        held_out = set(zip(validation[name]["dataset"], validation[name]["img_path"], strict=True))
        if also_tested := len(tested & held_out):
            print(f"{name}: {also_tested} images of {dataset} are validation images, too: thresholds have seen them")
sizes = {
    dataset: table.groupby("label").agg(images=("img_path", "size"), videos=("video", "nunique")).stack()
    for (_, dataset), table in tables.items()
}
pd.DataFrame(sizes).T.rename(columns={0: "real", 1: "fake"}).astype("Int64")

# %% [markdown]
# ## 8.2 Thresholds
#
# **Why.** At a threshold of one half a detector may raise alarms on a third of all real images; nobody would use it
# there. Fairness is a function of the threshold $t$, and so are the false positive rate and the false negative rate
#
# $$ \mathrm{FPR}(t) = \frac{|\{i : y_i = 0,\ s_i \ge t\}|}{|\{i : y_i = 0\}|} , \qquad
#    \mathrm{FNR}(t) = \frac{|\{i : y_i = 1,\ s_i < t\}|}{|\{i : y_i = 1\}|} : $$
#
# the first falls, the second rises. Where they meet is the *equal error rate*; an *operating point* is the lowest $t$
# whose FPR a user accepts. By hand, on sixteen images of four groups:

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
tiny["img_path"] = tiny["video"] = [f"tiny/{row:02d}" for row in range(len(tiny))]
real, some = tiny["label"] == 0, (0.35, 0.5, 0.65, 0.75, 0.85)
by_hand = pd.DataFrame(
    {
        "fpr": [(tiny["score"] >= t)[real].mean() for t in some],
        "fnr": [(tiny["score"] < t)[~real].mean() for t in some],
    },
    index=pd.Index(some, name="threshold"),
)
by_hand

# %%
show(thresholds.fit_threshold)

# %%
assert np.isclose(thresholds.fit_threshold(tiny, "fpr", 0.25), by_hand.index[by_hand["fpr"] <= 0.25][0])
assert np.isclose(thresholds.fit_threshold(tiny, "eer"), (by_hand["fpr"] - by_hand["fnr"]).abs().idxmin())
package = thresholds.metrics_by_threshold(tiny, "group", by_hand.index)
assert np.allclose(package["fpr"], by_hand["fpr"]) and np.allclose(1 - package["tpr"], by_hand["fnr"])

# %% [markdown]
# **All thresholds at once.** Each metric needs the counts of called and uncalled images of every group at every
# threshold, which one sort of the scores gives:

# %%
show(thresholds.counts_at)

# %% [markdown]
# The example's detector on all of its data sets:

# %%
own = {dataset: table for (name, dataset), table in tables.items() if name == chosen}
curves = {dataset: thresholds.metrics_by_threshold(table, finest) for dataset, table in own.items()}
assert all(curve["fpr"].dropna().is_monotonic_decreasing for curve in curves.values())
assert all((curve["tpr"].diff().dropna() <= 1e-12).all() for curve in curves.values())
figure = fairness.threshold_curves(curves, marked=threshold, title=f"{chosen}, by {finest}")
figure.set_dpi(80)
figure

# %% [markdown]
# And all detectors on one data set, against the FPR that a threshold brings. Here they are compared where they raise
# equally many false alarms; dashed lines mark where the threshold in use puts each.

# %%
same_set = {name: table for (name, dataset), table in tables.items() if dataset == home}
curves = {name: thresholds.metrics_by_threshold(table, finest) for name, table in same_set.items()}
at_use = {name: metrics.overall_metrics(table, threshold)["fpr"] for name, table in same_set.items()}
for curve in curves.values():
    everybody = curve.loc[0.0].dropna()  # NaN where a class is missing, or all but one group
    for metric, value in {"fpr": 1, "tpr": 1, "fpr_sum": 0}.items():
        assert np.isclose(everybody.get(metric, value), value), "at threshold 0 everybody is called fake"
fairness.threshold_curves(curves, ("fpr_sum", "tpr"), against="fpr", marked=at_use, title=f"Matched FPR, on {home}")

# %%
worst = {name: curve["fpr_sum"].idxmax() for name, curve in curves.items() if curve["fpr_sum"].notna().any()}
for name in sorted(curves.keys() - worst.keys()):
    print(f"{name} has no F_FPR on {home}: fewer than two groups have real images.")
for name, cut in worst.items():
    at = metrics.fairness_metrics(same_set[name], finest, cut)["fpr_sum"]
    assert np.isclose(at, curves[name]["fpr_sum"].max())
    print(f"In this run: {name} has its largest F_FPR, {at:.2f}, at threshold {cut:.2f}.")

# %% [markdown]
# **What you should see.** $F_\mathrm{FPR}$ rises and falls with the alarms and is zero at both ends, where everybody or
# nobody is called fake; a cliff at the threshold in use means that many scores pile up there (chapter 4). So a detector
# can look fair because it was judged at a threshold where it calls nearly everybody the same.
#
# ## 8.3 Operating points
#
# **Why.** A threshold that is chosen on the test set has seen the answers. So each is fitted on the *validation* scores
# of the detector and then judged on all test sets.

# %%
show(thresholds.operating_points, docstring=False)

# %%
points = {"EER": ("eer", None), f"FPR {100 * accepted_fpr:g} %": ("fpr", accepted_fpr)}
parts = []
for (name, dataset), table in tables.items():
    fitted_on = "validation" if name in validation else "the test set itself"
    for point, goal in points.items():
        try:
            part = thresholds.operating_points(validation.get(name, table), table, finest, {point: goal}, threshold)
        except ScoreTableError as error:
            print(f"{name} on {dataset} has no operating point {point}. {error}")
            continue
        parts.append(part.reset_index().assign(detector=name, dataset=dataset, fitted_on=fitted_on))
columns = ["detector", "dataset", "fitted_on", "point"]
numbers = ["threshold", "acc", "fpr", "tpr", "fpr_sum", "oae", "dp", "meo"]
operating = pd.concat(parts or [pd.DataFrame(columns=[*columns, *numbers])], ignore_index=True)
operating = operating.drop_duplicates(["detector", "dataset", "point"])
assert operating["threshold"].between(0, 1).all()
if len(validation) < len(names):
    print("Without validation scores thresholds are fitted on the test set that judges them: those numbers flatter.")

# %%
mine = operating[operating["detector"] == chosen].set_index(["dataset", "point"])
mine[["fitted_on", *numbers]]

# %%
asked = operating[operating["point"].str.startswith("FPR")]
for (name, dataset), table in tables.items():
    row = asked[(asked["detector"] == name) & (asked["dataset"] == dataset)]
    for cut, fpr in zip(row["threshold"], row["fpr"], strict=True):
        assert np.isclose(fpr, (table.loc[table["label"] == 0, "score"] >= cut).mean(), equal_nan=True)
reached = asked.pivot(index="detector", columns="dataset", values="fpr").reindex(columns=sets)
if reached.notna().any(axis=None):
    span = f"{reached.min().min():.0%} to {reached.max().max():.0%}"
    print(f"In this run: where a FPR of {accepted_fpr:.0%} was asked for, the test sets show {span}.")
reached

# %% [markdown]
# **What you should see.** On the data set of training the FPR reached on the test set lies near the one that was asked
# for; on the others it may drift: thresholds travel badly, and part of a gap there is a gap of thresholds.
#
# ## 8.4 Calibration
#
# **Why.** A score of 0.8 should mean that eight in ten such images are fake, whoever is shown. In bins $b$ of the
# score, with $n_b$ images, mean score $s_b$ and share of fakes $f_b$, the *expected calibration error* and the *Brier
# score* are
#
# $$
# \mathrm{ECE} = \sum_b \frac{n_b}{n} |f_b - s_b| , \qquad
# \mathrm{Brier} = \frac{1}{n} \sum_i (s_i - y_i)^2 .
# $$
#
# By hand, with two bins:

# %% tags=["nbval-check-output"]
bins = tiny.groupby(tiny["score"] >= 0.5)[["score", "label"]].agg(["size", "mean"])
weight = bins["score", "size"] / len(tiny)
by_hand = {
    "ece": float((weight * (bins["label", "mean"] - bins["score", "mean"]).abs()).sum()),
    "brier": float(((tiny["score"] - tiny["label"]) ** 2).mean()),
}
print({name: round(value, 4) for name, value in by_hand.items()})

# %%
show(calibration.calibration, docstring=False)

# %%
package = calibration.calibration(tiny, bins=2).loc["all"]
assert all(np.isclose(package[name], value) for name, value in by_hand.items())
assert np.isclose(package["brier"], brier_score_loss(tiny["label"], tiny["score"]))
parts = package[["reliability", "uncertainty", "within"]].sum() - package["resolution"]
assert np.isclose(package["brier"], parts), "the parts of the Brier score add up"

# %%
numbers = calibration.calibration(example, finest)
fairness.reliability(calibration.reliability(example, finest), numbers, f"{chosen} on {home}")

# %%
found = {
    (name, dataset, over): calibration.calibration(table, None if over == "all" else over).rename_axis("group")
    for (name, dataset), table in tables.items()
    for over in ("all", finest)
}
calibrated = pd.concat(found, names=["detector", "dataset", "by"]).reset_index()
overall = calibrated[calibrated["by"] == "all"].set_index(["dataset", "detector"])
ends = calibrated[calibrated["by"] == finest].groupby(["dataset", "detector"], sort=False)["ece"]
assert np.allclose(
    [brier_score_loss(table["label"], table["score"]) for table in tables.values()],
    [overall.loc[key[::-1], "brier"] for key in tables],
)
overall[["ece", "brier"]].join(ends.agg(**{"ECE of the best group": "min", "of the worst group": "max"}))

# %% [markdown]
# **What you should see.** Dots under the diagonal mean scores that are too high: a group whose curve lies lower than
# the others' is suspected more than it deserves. ECE is never negative and grows as groups get smaller, so compare
# groups of like size. It depends on the share of fakes as well: where one image in a hundred is fake, none of these
# scores means what it says.
#
# ## 8.5 Whole videos
#
# **Why.** One asks of a video, not of a frame, whether it is fake. Its score is the mean of its frames' scores,
# $s_v = \frac{1}{m} \sum_{i \in v} s_i$: errors that differ from frame to frame average out, errors that come from the
# person or the camera stay. Every function above takes a table of videos as it takes one of frames. Beside each
# $F_\mathrm{FPR}$ stands the 95 % quantile of its *floor*: what a detector that treats all groups alike would show by
# chance (chapter 5).

# %%
of_videos = {key: video_level(table) for key, table in tables.items()}
by_hand = example.groupby("video", sort=False)["score"].mean()
package = of_videos[chosen, home].set_index("video")["score"]
assert np.allclose(package, by_hand.loc[package.index])
parts = {}
for (name, dataset), videos in of_videos.items():
    for unit, table in (("frames", tables[name, dataset]), ("videos", videos)):
        floor = permutation.sampling_floor(table, finest, settings, auc=False)
        overall = metrics.overall_metrics(table, threshold)[["auc", "fpr", "tpr"]]
        unfair = {"fpr_sum": floor.loc["fpr_sum", "estimate"], "floor_q95": floor.loc["fpr_sum", "q95"]}
        parts[dataset, name, unit] = {"n": len(table), **overall, **unfair}
compared = pd.DataFrame(parts).T.rename_axis(["dataset", "detector", "unit"]).astype({"n": int})
compared

# %%
gain = compared["auc"].unstack()
gain = (gain["videos"] - gain["frames"]).dropna()
assert all(videos["frames"].sum() == len(tables[key]) for key, videos in of_videos.items())
print(f"In this run: {(gain > 0).sum()} of {len(gain)} AUCs are higher for videos, by {gain.mean():.3f} in the mean.")

# %% [markdown]
# **What you should see.** A higher AUC for videos than for frames, as means are less noisy. $F_\mathrm{FPR}$ need not
# fall with it: averaging removes luck, not bias. (In a table without videos the two rows are the same.)
#
# ## 8.6 When images get worse
#
# **Why.** A picture that reaches a detector has been resized, compressed, cropped and filtered on its way. A detector
# that lives on traces of a few pixels forgets them first, and it need not forget them alike for all groups. Seven kinds
# of damage, five severities each, made by torchvision. *Contrast*, for one, pulls every pixel towards the mean grey
# $\mu$ of the image by a factor $c$, which is 0.55 at severity 3:
#
# $$ x' = \mu + c\,(x - \mu). $$

# %%
grey = np.array([[10, 60], [110, 220]], np.uint8)[None, :, :, None].repeat(3, axis=3)  # one grey image, 2 x 2
by_hand = 100 + 0.55 * (grey.astype(float) - 100)  # their mean is 100
package = perturbations.perturb(grey, "contrast", 3)
assert np.abs(package - by_hand).max() <= 1, "torchvision rounds down, to whole grey levels"
print("by hand", by_hand[0, :, :, 0].round(1).tolist(), "torchvision", package[0, :, :, 0].tolist())

# %%
show(perturbations.transform)

# %%
pd.DataFrame(perturbations.STRENGTHS, index=pd.Index(range(1, 6), name="severity")).T

# %% [markdown]
# The detectors named in `perturbed` are shown damaged images of the first test set: as many of each group and label as
# there are, and each video once before any twice. What is drawn at random (noise, place of the crop) depends on the
# image alone, so that all detectors see the same damaged images.

# %%
stored, target = {}, choose_device(device, threads)
for name in [] if scores else names:
    detector, file = re.sub(r"-s\d+$", "", name), f"03_sam_training/{name}/best.safetensors"
    if detector in perturbed and detector not in stored and (run.run_dir / file).exists():
        stored[detector] = (name, *load_detector(run.require(file), target))
rows, pixels = pd.DataFrame(), {}
if stored:
    frame = read_split(f"{manifests}/{home}", "test", image_root)
    rows = frame.iloc[perturbations.subsample(frame, robustness_images)].reset_index(drop=True)
    for size in {config.image_size for _, _, config in stored.values()}:
        pixels[size] = decode(rows, image_folder(image_root, data_dir, size, bias, data_seed), size, data_dir)
    print(f"{', '.join(stored)}: {len(rows)} images of {rows['video'].nunique()} videos")
else:
    print("Skipped: there are scores, but none of the detectors named in `perturbed` in this run.")

# %%
figure = None
if stored:
    first = next(iter(pixels.values()))[:1]
    kinds, shown = perturbations.KINDS, (1, 3, 5)
    sheet = [np.hstack([perturbations.perturb(first, kind, severity)[0] for kind in kinds]) for severity in shown]
    figure = contact_sheet(np.vstack(sheet), [f"severity {severity}" for severity in shown], kinds)
figure

# %%
damaged = {
    (detector, kind, severity): table
    for detector, (_, model, config) in stored.items()
    for kind, severity, table in perturbations.perturbed_scores(
        model, rows, pixels[config.image_size], target, precision=config.precision
    )
}
for detector, (name, _, config) in stored.items():  # the unchanged images have the scores of chapter 4
    before = tables[name, home].set_index("img_path")["score"].reindex(rows["img_path"])
    unchanged = damaged[detector, "jpeg", 0]["score"].to_numpy()
    assert config.precision != "float32" or np.allclose(unchanged, before, atol=2e-3), (
        "run chapter 4 again: other images"
    )

# %% [markdown]
# From each score table follow the numbers of chapter 5, one row a number:


# %%
def judged(table):
    """Metrics of all images and rates of the groups: a Series over (metric, group)."""
    everybody = [metrics.overall_metrics(table, threshold)[["auc", "fpr", "tpr"]]]
    everybody = pd.concat([*everybody, metrics.fairness_metrics(table, finest, threshold)])
    of_all = pd.concat({explanation.ALL: everybody}).swaplevel()
    return pd.concat([of_all, metrics.group_rates(table, finest, threshold)[["auc", "fpr", "tpr"]].unstack()])


columns = ["detector", "kind", "severity", "metric", "group"]
robust = pd.DataFrame(columns=[*columns, "value"])
if damaged:
    robust = pd.concat({key: judged(table) for key, table in damaged.items()}, names=columns)
    robust = robust.rename("value").reset_index()
everyone = robust[robust["group"] == explanation.ALL]
auc = everyone[everyone["metric"] == "auc"].pivot(index=["detector", "kind"], columns="severity", values="value")
assert (auc[0].groupby("detector").nunique() <= 1).all() if damaged else True, "severity 0 is the same of every kind"
(100 * auc).round(1).rename_axis(columns="AUC (%) by severity")

# %%
drawn = everyone[everyone["metric"].isin(["auc", "fpr_gap"])]
explanation.severity_curves(drawn, "detector") if damaged else None

# %% [markdown]
# **What you should see.** Which damage costs most depends on the detector. Noise and scaling change every pixel a
# little, and can cost AUC where a person hardly sees a difference. Blur costs little while it is weak, and much when it
# is strong. The forgeries of the embedded benchmark smooth faces as well, and so do its poor cameras: a detector that
# has learnt "smooth is fake" takes smoothed real images for fakes, and noisy fakes for real images. The lower row needs
# care. A gap that opens says that damage does not meet all groups alike. Where it closes while the AUC falls to one
# half, nothing has become fair: a detector that calls everything fake treats all groups alike.

# %%
figure = None
if damaged:
    detector = next(name for name in ("fairdf", *stored) if name in stored)
    fewest = int((rows["label"] == 0).groupby(rows[finest]).sum().min())
    print(f"{detector}: a group has at least {fewest} real images here, and one of them moves its FPR by 1 / {fewest}.")
    drawn = robust[(robust["detector"] == detector) & robust["metric"].isin(["fpr", "auc"])]
    figure = explanation.severity_curves(drawn, "group", f"{detector}, by {finest}")
figure

# %%
kept = auc.div(auc[0], axis=0).dropna() if damaged else auc  # a test set of one class has no AUC
for severity in range(1, 6 if len(kept) else 1):
    name, kind = kept[severity].idxmin()
    lost = 100 * (auc.loc[(name, kind), 0] - auc.loc[(name, kind), severity])
    print(f"In this run: at severity {severity} {kind} costs most, {lost:.0f} points of AUC ({name}).")

# %% [markdown]
# **What you should see.** At severity 0, the left end of each panel, the groups start apart. Where all lines of the FPR
# meet at the top, the detector calls everybody fake, at the bottom everybody real. The AUC needs no threshold: a group
# whose AUC falls sooner than that of the others loses more than its place on the scale. All lines start from a few
# dozen images a group: what is smaller than the worth of two or three of them is noise.
#
# ## 8.7 Post-processing
#
# **Why.** Can a trained detector be made fairer without training? The peers below are fitted on validation scores and
# judged on the test sets, always against the detector *as given*, at the threshold in use. A peer that raised fewer
# alarms in sum would have a smaller $F_\mathrm{FPR}$ for free, so each keeps, on validation, either the false alarms or
# the found fakes of the detector as given.
#
# | peer | what it changes | the group of a person is needed |
# |---|---|---|
# | equal FPR | the thresholds of the groups: all at the FPR that all images have in use | for every decision |
# | best worst group | the same: best accuracy of the worst-off group, as many fakes found | for every decision |
# | Fair-FLIP | the last layer: what varies little inside the groups counts more | for the fit |
# | remapped by face | the score: a regression on its log odds and a face embedding | never |
#
# They follow Hardt et al. (2016), OxonFair (Delaney et al. 2024), the released code of Szandala et al. (2025), and the
# idea of FFT (Brown and Russell 2026), of which only the abstract was at hand: the regression is this book's own.
# Whether a person's group may be used for a decision about that person is a question of law, which no table answers.
# Hardt et al. also draw lots between two thresholds, so that FPR *and* TPR agree in all groups. That lowers every group
# to the ROC curve of the worst and leaves an accusation to chance; it is not done here.
#
# With thresholds $t_g$, an image is called fake if $s_i \ge t_{g_i}$, and the second peer solves
#
# $$ \max_{(t_g)} \ \min_g \ \tfrac{1}{2} \big( \mathrm{TPR}_g(t_g) + 1 - \mathrm{FPR}_g(t_g) \big)
#    \quad \text{with at least as many fakes found as in use.} $$
#
# By hand: thresholds at which no real image of the tiny table is called fake, and a search through all thresholds of
# its four groups.

# %% tags=["nbval-check-output"]
fitted = thresholds.fit_group_thresholds(tiny, "group", "fpr", 0.0)
highest = tiny[real].groupby("group")["score"].max()  # the threshold lies just above, half-way to the next score
for group, cut in fitted.items():
    above = tiny.loc[(tiny["group"] == group) & (tiny["score"] > highest[group]), "score"]
    assert np.isclose(cut, (highest[group] + above.min()) / 2)
called = tiny["score"] >= tiny["group"].map(fitted)  # one threshold an image
rates = metrics.group_rates(tiny, "group", fitted)
assert (rates["fpr"] == 0).all() and np.allclose(rates["tpr"], called[~real].groupby(tiny["group"]).mean()[rates.index])
each = metrics.fairness_metrics(tiny, "group", tiny["group"].map(fitted).to_numpy())
assert np.allclose(metrics.fairness_metrics(tiny, "group", fitted), each, equal_nan=True)
curves = [thresholds.metrics_by_threshold(part) for _, part in tiny.groupby("group")]
options = [
    list(zip(2 * one["tpr"], (one["tpr"] + 1 - one["fpr"]) / 2, strict=True)) for one in curves
]  # two fakes each
floor = (~real & (tiny["score"] >= 0.5)).sum()
best = max(min(accuracy for _, accuracy in four) for four in product(*options) if sum(n for n, _ in four) >= floor)
searched = metrics.group_rates(tiny, "group", postprocessing.fit_worst_group(tiny))
assert np.isclose(((searched["tpr"] + searched["tnr"]) / 2).min(), best)
rates[["n_real", "n_fake", "fpr", "tpr"]].assign(threshold=fitted)

# %%
show(postprocessing.fit_worst_group, docstring=False)

# %% [markdown]
# The new scores have the threshold one half, so that all of this book judges them as it judges any table. A group with
# fewer than ten real or ten fake validation videos borrows the threshold of all. What needs images (the input of the
# last layer, and dlib's embedding of the first frame of each video) is done for the detectors and the data set of 8.6.

# %%
peers, borrowed = {}, {}
for (name, dataset), table in tables.items():
    if name in validation:
        try:
            peers[name, dataset], borrowed[name, dataset] = postprocessing.table_peers(
                validation[name], table, finest, settings
            )
        except ScoreTableError as error:
            print(f"{name} on {dataset}: {error}")
for key, peer in peers.items():
    for table in peer.values():
        assert table["score"].between(0, 1).all() and table["img_path"].equals(tables[key]["img_path"])
    if borrowed[key]:
        print(f"{key[0]} on {key[1]}: the threshold of all holds for {', '.join(borrowed[key])}")
print(f"{len(peers)} of {len(tables)} tables have validation scores that thresholds of groups can be fitted on.")

# %%
splits = ("val", "test")
able = {detector: own for detector, own in stored.items() if (own[0], home) in peers}
able = {detector: own for detector, own in able.items() if set(validation[own[0]]["dataset"]) == {home}}
frames = {split: read_split(f"{manifests}/{home}", split, image_root) for split in splits if able}
faces = {}
for name, model, config in able.values():
    pair, inputs, seen = (validation[name], tables[name, home]), [], []
    folder = image_folder(image_root, data_dir, config.image_size, bias, data_seed)
    for split, table in zip(splits, pair, strict=True):
        if split not in faces:
            first = frames[split].sort_values("frame").drop_duplicates("video")
            faces[split] = persons.embed(first, folder)
        rows_of = frames[split].set_index("img_path", drop=False).loc[table["img_path"]].reset_index(drop=True)
        given, *layer = final_layer(model, decode(rows_of, folder, config.image_size, data_dir), target)
        inputs.append(given)
        seen.append(faces[split].loc[rows_of["video"]].to_numpy())
    peers[name, home]["Fair-FLIP"] = postprocessing.prioritised(*pair, inputs, layer, finest, settings)
    peers[name, home]["remapped by face"] = postprocessing.remapped(*pair, seen, settings)
    blind = postprocessing.remapped(*(table.assign(score=0.5) for table in pair), seen, settings)
    alone = metrics.overall_metrics(blind)["auc"]
    print(f"{name} on {home}: AUC {alone:.3f} for the face embedding alone, without the detector's score")

# %%
tests = sum(map(len, peers.values()))  # of each metric; as many resamples as a corrected p needs to get below 0.05
ample = replace(settings, resamples=max(settings.resamples, 50 * tests))
parts = {key: postprocessing.changes(tables[key], peer, finest, ample) for key, peer in peers.items()}
none = pd.DataFrame(columns=["peer", "metric", "given", "processed", "estimate", "low", "high", "p_value"])
changed = pd.concat(parts or {("", ""): none}, names=["detector", "dataset"]).reset_index(["detector", "dataset"])
changed["p_holm"] = changed["p_value"].astype(float).groupby(changed["metric"]).transform(permutation.holm)
index, shown = ["dataset", "detector", "peer"], list(postprocessing.SHOWN)
given, processed = (changed.pivot(index=index, columns="metric", values=side) for side in ("given", "processed"))
given = given.rename(lambda _: "as given", level="peer")
change = changed[changed["metric"] == "fpr_sum"].set_index(index)[["estimate", "low", "high", "p_holm"]]
processed = processed.reindex(columns=shown).join(change.rename(columns={"estimate": "change of fpr_sum"}))
values = pd.concat([given[~given.index.duplicated()], processed]).sort_index(level=[0, 1], sort_remaining=False)
values[processed.columns].loc[sets] if len(values) else None

# %%
mine = changed[changed["detector"] == chosen]
mine = mine.assign(name=mine["dataset"] + ": " + mine["peer"])
for (peer, metric), rows in changed.groupby(["peer", "metric"]):
    certain = rows.loc[rows["p_holm"] < 1 - settings.level, "estimate"]
    lower, higher = (certain < 0).sum(), (certain > 0).sum()
    if metric in ("worst_tpr", "auc", "fpr_sum"):
        print(f"In this run: {peer}, {metric}: lower in {lower} and higher in {higher} of {len(rows)} tables.")
    if metric == "worst_auc" and peer in ("equal FPR", "best worst group"):
        assert np.allclose(rows["estimate"].fillna(0), 0, atol=1e-9), "one threshold keeps the order of a group"
fairness.differences(mine, f"{chosen}: processed minus given", settings.level) if len(mine) else None

# %% [markdown]
# **What you should see.** Thresholds of groups never change a group's AUC: they move its scores and leave their order
# alone. Equal false alarms on validation need not be equal on a test set, least of all on one that was made otherwise;
# and what a group with poor scores wins in FPR it pays in TPR, so see whether the worst-group TPR falls where
# $F_\mathrm{FPR}$ does: that is levelling down. The best worst group of validation need not be it on the test set, for
# it rests on a few videos of each group. Fair-FLIP may lower $F_\mathrm{FPR}$ by raising fewer alarms; here there are
# as many as before on validation, and what then changes, if anything does, is its own doing. A face embedding should
# say who is shown and nothing else. If it tells fakes from real images without the detector (its AUC is printed above),
# then the remapping is a second detector, and a higher AUC is no mended bias. The intervals take what was fitted as
# given: other validation images would fit something else.

# %% [markdown]
# ## 8.8 Save

# %%
saved = {
    "thresholds.csv": operating.set_index(["detector", "dataset", "fitted_on"]).reset_index(),
    "calibration.csv": calibrated,
    "videos.csv": compared.reset_index(),
    "robustness.csv": robust,
    "postprocessing.csv": changed,
}
for name, table in saved.items():
    table.to_csv(run.path(name), index=False, lineterminator="\n", float_format="%.6f")
assert len(compared) == 2 * len(tables)
outside = [path for path in (scores, validation_scores) if path]
run.finish(device=target.type, read=[*outside, *[f"{manifests}/{home}"] * bool(stored)])

# %% [markdown]
# ## Summary
#
# - Fairness is a function of the threshold; compare detectors where they raise equally many false alarms.
# - Thresholds are fitted on validation scores and travel badly.
# - Calibration asks whether scores mean the same in every group, and depends on the share of fakes.
# - Means over a video's frames remove luck, not bias.
# - Damaged images cost AUC, and a gap between groups that closes on the way is no gain.
# - Post-processing is judged where it was not fitted, and at as many false alarms or found fakes as before.
#
# ## Exercises
#
# **1.** A false alarm costs ten times as much as a missed fake, and one image in a hundred is fake. Which threshold
# costs least on validation, and what does it cost on the test set?

# %% tags=["solution"]
share, price = 0.01, 10
expected = lambda fpr, tpr: price * (1 - share) * fpr + share * (1 - tpr)  # noqa: E731
curve = thresholds.metrics_by_threshold(validation.get(chosen, example), "dataset")  # without groups
cost = expected(curve["fpr"], curve["tpr"]).dropna()  # none where a class is missing
print(f"{expected(0, 0):.4f} for a detector that never raises an alarm")
if len(cost):
    tested = metrics.overall_metrics(example, cost.idxmin())
    here, there = cost.min(), expected(tested["fpr"], tested["tpr"])
    assert np.isclose(here, expected(*curve.loc[cost.idxmin(), ["fpr", "tpr"]]))
    on = "validation" if chosen in validation else "the test set itself"
    print(f"threshold {cost.idxmin():.3f}: cost {here:.4f} on {on}, {there:.4f} on the test set")

# %% [markdown]
# Where fakes are rare and alarms dear, a detector must be very good to beat silence.
#
# **2.** ECE depends on the number of bins. Compute it with 5, 10, 20 and 50; what happens to the Brier score?

# %% tags=["solution"]
by_bins = pd.DataFrame({bins: calibration.calibration(example, bins=bins).loc["all"] for bins in (5, 10, 20, 50)})
assert np.allclose(by_bins.loc["brier"], by_bins.loc["brier"].iloc[0]), "the Brier score knows no bins"
by_bins.loc[["ece", "brier", "reliability", "resolution"]].astype(float)

# %% [markdown]
# **3.** How much of the damage is a matter of the threshold? Fit a new one on the damaged images themselves, and
# compare the accuracy with that at the threshold in use.

# %% tags=["solution"]
mended = {
    (detector, kind): {
        "in use": metrics.overall_metrics(table, threshold)["acc"],
        "fitted anew": metrics.overall_metrics(table, thresholds.fit_threshold(table, "eer"))["acc"],
    }
    for (detector, kind, severity), table in damaged.items()
    if severity == 3
}
mended = pd.DataFrame(mended).T
assert mended.stack().between(0, 1).all()
mended  # what stays low has lost the order of the scores, which no threshold brings back

# %% [markdown]
# ## Appendix: do the intervals hold?
#
# An interval of 95 % should hold the truth in 95 of 100 test sets. Whether it does can be known only where the truth
# is known: in a simulation. `python -m fairdf_utils coverage` makes test sets with as many real videos a group as the
# released test lists have (Celeb-DF 2 to 132, FF++ 6 to 109), of about 10 or 30 frames that err together, equally in
# all groups or not; groups alike at a low, a middle and a high rate, or different. For each set it asks every interval
# of chapter 5 whether it holds the truth. The table below was made once and is read here; the command makes it anew,
# and `--sets` says from how many test sets of each kind.
#
# Gaps are counted without the permutations, which pull the low end to zero: the bands of chapter 5 hold at least as
# often. `of two` are paired differences with a second detector that is alike in all groups. For the tests, of groups
# that are truly alike, the share is of those that say so.

# %% alt="Dots over a grey strip: the share of intervals that hold the truth, by the number of videos of a group."
study = pd.read_csv("../data_manifests/results/coverage.csv")
assert study["coverage"].between(0, 1).all() and (study["sets"] > 0).all()
display(fairness.coverage(study[study["metric"].isin(["fpr", "auc"])]))
parts = study.groupby(["method", "metric", "size"], sort=False)
held = parts[["coverage", "width"]].mean().assign(lowest=parts["coverage"].min(), sets=parts["sets"].sum())
held.loc[["videos", "independent images"], ["coverage", "lowest", "width", "sets"]]

# %% [markdown]
# **What you should see.** Whoever takes images for independent holds the truth in five or six of ten sets. The
# intervals of chapter 5 hold it in 95 of 100 or more on average, in every class of groups. `lowest` is the worst of all
# kinds of test sets; it varies by chance, the standard error of each is in the table. Above the strip lie small groups
# and low rates: an interval from two videos can only be careful, and its width, about 70 points, says how little is
# known. The bands hold more often than they need to on average; least where groups have two and three videos and a rate
# of one half, in the Celeb-DF list: F_FPR of all groups and its difference between two detectors in 90 of 100, in the
# worst kind of set in 80 to 83. That is below what an interval should do, so read F_FPR with such groups as a rough
# number. Groups of fewer than ten videos have intervals and no tests: so few do not tell how alike their frames are.
# The test of a gap between the larger ones says "differs" in 6 of 100, at worst in 12, in place of 5.
