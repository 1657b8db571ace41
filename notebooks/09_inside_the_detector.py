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
# # 9. Inside the detector
#
# | | |
# |---|---|
# | **Needs** | detectors of chapter 3, or those that come with the repository; test and training manifests, images |
# | **Produces** | `09_inside_the_detector/`: `probes.csv`, `heat.csv`, `sharpness.csv` |
# | **Time on 2 CPU cores** | about a minute for four detectors |
# | **Time on one GPU** | seconds on the embedded benchmark; the probes run on the CPU |
#
# Chapter 5 says whether a detector errs more often for some groups; this one looks for the place in the network where
# that begins. Four questions: which attributes can be read from the features (*linear probes*), which part of the face
# speaks for a fake (*Grad-CAM*), how flat the loss is around the weights (*loss landscape and sharpness*), and what
# each part of the method does for the answer (*swaps*). Nothing else in the book needs what is computed here.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
train_set: str = "ffpp"  # the data set that the detectors were trained on
test_sets: list = ["ffpp", "dfdc", "celebdf", "dfd"]  # sub-folders of manifests with a test.csv, that of training first
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
threads: int = 1  # CPU threads of torch; 0 takes all cores. So small a network runs fastest on one
reference: str = "ori"  # detector that the others are compared with
explained: list = ["ori", "balanced", "fairdf-nosam", "fairdf"]  # detectors whose inside is looked at, first seed
explained_images: int = 200  # of each test set, for probes and embeddings; Grad-CAM takes four times as many of one

# %%
import copy
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from torch.nn.functional import softplus

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.data.batches import SAMPLING, codes, decode, epoch_pairs, group_sizes, to_device
from fairdf_utils.data.manifests import read_split
from fairdf_utils.evaluation.perturbations import subsample
from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.explanation import grad_cam, interventions, landscape, probes
from fairdf_utils.fairness.metrics import overall_metrics
from fairdf_utils.fairness.worst_group import COMMON_FPR
from fairdf_utils.figures import explanation
from fairdf_utils.model import losses
from fairdf_utils.model.detectors import build, score
from fairdf_utils.model.layers import adain
from fairdf_utils.model.stored import choose_device, load_detector, shipped_instead
from fairdf_utils.rendered.images import image_folder

pd.options.display.float_format = "{:.3f}".format
target = choose_device(device, threads)
run = Run(run_dir, "09_inside_the_detector")

# %% [markdown]
# ## 9.1 Detectors and images
#
# The detectors named in `explained` are opened, each with its first seed; where the run has none of these names, all
# of its detectors are, and where it has none at all, those in `data_manifests/detectors`. The images come from the test
# sets, which no detector has seen: as many of each group and label as there are, and each video once before any is
# taken twice.

# %%
folder, stored = run.run_dir / "03_sam_training", {}
for name in [] if any(folder.glob("*/best.safetensors")) else explained:
    if shipped := shipped_instead(folder / f"{name}-s0" / "best.safetensors", image_root):
        stored[name] = shipped
for path in [] if stored else run.require_all("03_sam_training/*/best.safetensors"):
    stored.setdefault(re.sub(r"-s\d+$", "", path.parent.name), path)  # sorted: the first seed
names = [name for name in explained if name in stored] or list(stored)
models, configs = {}, {}
for name in names:
    models[name], configs[name] = load_detector(stored[name], target)
shown = next(name for name in ("fairdf", *reversed(names)) if name in names)
side = configs[shown].image_size
if others := [name for name in names if configs[name].image_size != side]:
    print(f"not explained, because {shown} sees images of {side} px and they do not: {', '.join(others)}")
names = [name for name in names if name not in others]
models = {name: models[name] for name in names}
beside = reference if reference in names else names[0]
pd.DataFrame({name: [configs[name].method, configs[name].sam] for name in names}, ["method", "SAM"]).T

# %%
images_at = image_folder(image_root, data_dir, side, bias, data_seed)
tests = {dataset: read_split(f"{manifests}/{dataset}", "test", image_root) for dataset in test_sets}
sample = pd.concat([frame.iloc[subsample(frame, explained_images)] for frame in tests.values()], ignore_index=True)
sample["identity"] = sample["identity"].where(sample["identity"] != "", sample["video"])  # unknown: of its own
images = decode(sample, images_at, side, data_dir)
sizes = sample.groupby("dataset", sort=False).agg(
    images=("label", "size"), fakes=("label", "sum"), videos=("video", "nunique"), groups=("group", "nunique")
)
assert sizes["images"].sum() == len(images) == len(sample)
sizes

# %% [markdown]
# ## 9.2 Features
#
# **Why.** The method splits what it sees into features: forgery in general (*domain-agnostic*), the particular forgery
# (*domain-specific*), the person (*demographic*). A feature is a map $F$ of $C$ channels on a grid of 8 x 8; a head
# sees no more of it than the mean of each channel, the *pooled* vector
#
# $$ f_c = \frac{1}{HW} \sum_{x, y} F_{c, x, y} . $$
#
# These vectors are what a probe reads. Here is where each comes from:

# %%
show(grad_cam.feature_maps, docstring=False)

# %%
vectors = {name: grad_cam.features(model, images, target) for name, model in models.items()}
rows = {name: {feature: vector.shape[1] for feature, vector in found.items()} for name, found in vectors.items()}
pd.DataFrame(rows).T.astype("Int64").rename_axis("numbers in a pooled vector")

# %% [markdown]
# By hand, for the first eight images of one detector: pool the map that the answering head gets, apply the layers of
# that head, and the result must be the logits that the detector answers with.

# %%
model = models[shown]
with torch.inference_mode():
    seen = grad_cam.answering_map(model, to_device(images[:8], target))  # (8, C, 8, 8)
    by_hand = grad_cam.answering_head(model).layers(seen.mean((2, 3))).cpu().numpy()  # (8, 2)
assert np.allclose(by_hand, predict(model, images[:8], target), rtol=1e-2, atol=1e-3)
pooled = next(vectors[shown][key] for key in ("fused", "encoder", "domain_agnostic") if key in vectors[shown])
assert np.allclose(pooled[:8], seen.mean((2, 3)).cpu().numpy(), rtol=1e-2, atol=1e-3)
print(f"{shown}: a map of {tuple(seen.shape[1:])}, pooled to {seen.shape[1]} numbers, gives the two logits")

# %% [markdown]
# **What you should see.** Plain detectors have one feature, `encoder`. The detectors with disentanglement have four or
# five; `content` serves only the reconstruction, and the answer comes from `fused`.
#
# ## 9.3 Linear probes
#
# **Why.** Did the split succeed? A *linear probe* is a logistic regression that tries to read an attribute from a
# frozen feature. If the group can be read from the domain-agnostic feature as well as from the demographic one, they
# were not disentangled. The measure is the *balanced accuracy*, the mean of the classes' recalls,
#
# $$ \frac{1}{K} \sum_k \frac{|\{i : y_i = k,\ \hat y_i = k\}|}{|\{i : y_i = k\}|} , $$
#
# of which chance reaches $1/K$, whatever the shares of the classes. By hand, on a feature of one number with one image
# on the wrong side:

# %% tags=["nbval-check-output"]
feature = np.array([[-2.0], [-1.5], [-1.0], [1.0], [1.5], [-1.2]])  # the last one lies on the wrong side
label = np.array([0, 0, 0, 1, 1, 1])
by_hand = (3 / 3 + 2 / 3) / 2
print(f"{by_hand:.3f}, and 0.500 by chance")

# %%
show(probes.linear_probe)

# %%
everything = np.arange(6)
(package,) = probes.linear_probe(feature, label, [(everything, everything)])
assert np.isclose(package, by_hand)
assert np.isclose(balanced_accuracy_score(label, [0, 0, 0, 1, 1, 0]), by_hand)

# %% [markdown]
# **Identity-disjoint folds.** A probe must not recognise a *person* whose group it learnt by heart. Nobody whose face
# is tested, as the person shown or as the source of a swap, may occur among the images that the probe is fitted on.

# %%
show(probes.identity_folds)

# %% [markdown]
# By hand: six images of four people; b's face was put on c. Two folds of two people each: where b is tested, the image
# of c that wears b's face must not train.

# %% tags=["nbval-check-output"]
identity = np.array(["a", "a", "b", "b", "c", "d"])
source = np.array(["", "", "", "", "b", ""])
group = np.array([0, 0, 1, 1, 0, 1])
for train, test in probes.identity_folds(group, identity, source, folds=2):
    hidden = set(identity[test]) | set(source[test]) - {""}
    by_hand = [i for i in range(6) if identity[i] not in hidden and source[i] not in hidden]
    assert list(train) == by_hand
    print(f"tests {' and '.join(sorted(set(identity[test])))}, trains on images {by_hand}")

# %% [markdown]
# Every attribute is read from every feature. An attribute with a class of fewer than five people is left out: it could
# not be in every fold; so is one of a single class.

# %%
people = sample["dataset"] + "/" + sample["identity"].astype(str)
counts = {name: people.groupby(sample[name]).nunique() for name in probes.TARGETS if name in sample}
targets = [name for name, classes in counts.items() if len(classes) > 1 and classes.min() >= 5]
read = {name: probes.probes(found, sample, targets) for name, found in vectors.items()}
read = pd.concat(read, names=["detector"]).reset_index(level=0).reset_index(drop=True)
assert read["accuracy"].dropna().between(0, 1).all() and np.allclose(read["chance"], 1 / read["classes"])
print("attributes:", ", ".join(targets), "| left out:", ", ".join(set(probes.TARGETS) - set(targets)) or "none")
explanation.probe_table(read, "Attributes (columns) read from features (rows)") if len(read) else None

# %% [markdown]
# Two questions of disentanglement: how far above chance is the group, of what lies between chance and perfect? And how
# much of the forgery *method*, which the domain-specific feature is for, has the domain-agnostic one kept?

# %%
above = read.assign(above=(read["accuracy"] - read["chance"]) / (1 - read["chance"]))
of_people = above[above["target"].isin(["gender", "race", "group"])]
of_people = of_people.pivot(index=["detector", "feature"], columns="target", values="above")
order = [(name, feature) for name in names for feature in vectors[name]]
of_people = of_people.reindex(pd.MultiIndex.from_tuples(order, names=of_people.index.names))
if "group" in of_people:
    of_groups = of_people.loc[shown, "group"]
    assert set(of_groups.index) == set(vectors[shown])
    print(
        f"In this run: from {of_groups.idxmax()} the group is read best, {of_groups.max():.0%} of the way up ({shown}),"
    )
    print(f"from {of_groups.idxmin()} worst, {of_groups.min():.0%}.")
of_methods = above[above["target"] == "forgery"].pivot(index="detector", columns="feature", values="above")
if {"domain_agnostic", "domain_specific"} <= set(of_methods):
    for name, way in of_methods[["domain_agnostic", "domain_specific"]].dropna().iterrows():
        print(f"In this run: the method is read {way.iloc[0]:.0%} of the way up from the agnostic feature of {name},")
        print(f"{way.iloc[1]:.0%} from the specific one. A clean split would leave 0% to the agnostic one.")
of_people

# %% [markdown]
# **What you should see.** In each column of the figure dark where the attribute belongs and white elsewhere would be
# perfect disentanglement. Group, gender and race should be read best from the demographic feature. From the
# domain-agnostic one they can still be read above chance, as they can from the plain detector's only feature: part of
# that is the bias itself, for where poor captures belong to certain groups, seeing the capture is seeing the group. The
# fused feature carries the group *on purpose*. Where the method is read from the agnostic feature about as well as from
# the specific one, the split did not disentangle the two: no term of the loss keeps the method out of the agnostic
# feature, which has only to tell real from fake. Nearly white in the column of the label would be alarming. A probe at
# chance says that no linear rule finds the attribute, not that it is absent.
#
# ## 9.4 Principal components and t-SNE
#
# **Why.** A number says how much can be read, a picture how. The first two *principal components* are the directions in
# which the standardised feature varies most; with the singular value decomposition $X = U S V^\top$ of its $N$ rows the
# coordinates are the first two columns of $U S$. They keep distances. *t-SNE* keeps neighbours and nothing else: the
# sizes of its clusters and the distances between them mean nothing. By hand, and by scikit-learn:

# %%
feature = vectors[shown][list(vectors[shown])[0]]
spread = feature.std(0)
standard = (feature - feature.mean(0)) / np.where(spread > 0, spread, 1)
left, strength, _ = np.linalg.svd(standard.astype(np.float64), full_matrices=False)
by_hand = left[:, :2] * strength[:2]  # (N, 2), each column up to its sign
package = probes.embed(feature, "pca")
library = PCA(2).fit_transform(standard)
for coordinates in (by_hand, library, package.to_numpy()):
    assert np.allclose(np.linalg.norm(coordinates, axis=0), strength[:2], atol=1e-3 * strength[0])
if (-np.diff(strength[:3]) > 0.05 * strength[0]).all():  # directions that vary equally are not unique
    for coordinates in (by_hand, library):
        assert np.allclose(np.abs(coordinates), np.abs(package), atol=1e-2 * np.abs(package).to_numpy().max())
print(package.attrs["words"])

# %%
kept = [name for name in vectors[shown] if name in ("domain_agnostic", "domain_specific", "demographic", "encoder")]
embedded = {name: probes.embed(vectors[shown][name], "pca") for name in kept}
figures = [explanation.embeddings(embedded, sample, ("label", "group"), shown)]
rows = subsample(sample, 2 * explained_images)
embedded = {name: probes.embed(vectors[shown][name][rows], "tsne") for name in kept}
figures.append(explanation.embeddings(embedded, sample.iloc[rows], title=shown))
for figure in figures:
    figure.set_dpi(62)
    display(figure)

# %% [markdown]
# **What you should see.** If the split succeeded, real images and fakes lie apart in the domain-agnostic feature and
# the groups are mixed; in the demographic one it is the other way round. Groups that look mixed here may still be read
# by a probe (9.3). A data set that stands alone in the t-SNE of the domain-agnostic feature is a data set whose looks
# the detector recognises, and its threshold need not fit there (chapter 8).
#
# ## 9.5 Grad-CAM
#
# **Why.** A detector that looks at the whole picture for one group and at the mouth for another treats them unlike,
# whatever its rates. The evidence of a place of a map $A$ is what it adds to the log odds
# $z = z_\text{fake} - z_\text{real}$ to first order, and what speaks for a fake is kept:
#
# $$ \mathrm{heat}_{x, y} = \max\Big(0, \sum_c \frac{\partial z}{\partial A_{c, x, y}} A_{c, x, y}\Big) . $$
#
# Where a head pools the map at once, the slope is the same at all places of a channel, and this is Grad-CAM.
# *Which* map matters. The answer of the method comes from AdaIN(demographic map, agnostic map), which has the *places*
# of the demographic map; from the agnostic map it takes two numbers a channel, mean and standard deviation. Taken
# after AdaIN, the heat says where the demographic branch looks, and would stay where it is if the forgery map were
# shuffled. So it is taken at the agnostic map, before AdaIN, and the slopes go through these two numbers. By hand: two
# channels on a map of four cells, with $z = 3 m_1 - m_2$ of their means, so that the slopes are $(3/4, -1/4)$.

# %% tags=["nbval-check-output"]
maps = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])  # (2, 2, 2)
by_hand = np.maximum(0, 3 / 4 * maps[0] - 1 / 4 * maps[1])
print(by_hand.tolist())

# %%
show(grad_cam.class_activation)

# %%
seen = torch.tensor(maps[None], requires_grad=True)
first, second = seen.mean((2, 3)).T
package = grad_cam.class_activation(torch.stack([torch.zeros_like(first), 3 * first - second], 1), seen)
assert np.allclose(package[0], by_hand)

# %% [markdown]
# For an image the heat is enlarged to its size and divided by its largest value. Single images first: those of the
# first test set that the detector finds most suspicious, real and fake. Where the answer has a demographic branch, its
# heat, taken after AdaIN, is the other row: it shows where the *demographic* map looks.

# %%
faces = tests[test_sets[0]]
faces = faces.iloc[subsample(faces, 4 * explained_images)].reset_index(drop=True)
pixels = decode(faces, images_at, side, data_dir)
heat = {name: grad_cam.grad_cam(model, pixels, target) for name, model in models.items()}
branched = [name for name in names if "demographic" in vectors[name] and configs[name].fidelity == "corrected"]
demographic_heat = {name: grad_cam.grad_cam(models[name], pixels, target, "demographic") for name in branched}
for maps in (*heat.values(), *demographic_heat.values()):
    assert set(maps.max((1, 2)).round(4)) <= {0.0, 1.0}, "the largest value is 1, or all are 0"

# %%
logits = predict(models[shown], pixels, target)
order = pd.Series(logits[:, 1] - logits[:, 0]).sort_values(ascending=False).index
few = np.concatenate([order[faces.loc[order, "label"] == label][:3] for label in (0, 1)])
own = {"forgery": heat[shown][few]} | ({"demographic": demographic_heat[shown][few]} if shown in branched else {})
table = faces.loc[few].assign(image=[f"{faces['forgery'][i]}\nno. {i}" for i in few])
table = pd.concat([table.assign(branch=branch) for branch in own])
both = np.concatenate([pixels[few]] * len(own)), np.concatenate(list(own.values()))
single = [grad_cam.mean_by(values, table, "branch", "image") for values in both]
assert (single[0].count == 1).all(), "a mean of one image is that image"
figure = explanation.grad_cam_grid(*single, f"The most suspicious of {test_sets[0]}: {shown}")
figure.set_size_inches(9.2, 0.7 + 1.5 * len(own))
figure.axes[1].set_ylabel("heat")
figure

# %% [markdown]
# **Whose places are these?** Turn the agnostic map left to right inside the detector. Its mean and its standard
# deviation stay, so the answer stays; the heat has to turn with the map, and that of the demographic branch must not.

# %%
turned = copy.deepcopy(models[shown])
last = turned.agnostic_split if "domain_agnostic" in vectors[shown] else turned.encoder
last.register_forward_hook(lambda _, inputs, maps: maps.flip(-1))
assert np.allclose(predict(turned, pixels[few], target), logits[few], rtol=1e-2, atol=1e-2)
assert np.allclose(grad_cam.grad_cam(turned, pixels[few], target), own["forgery"][..., ::-1], atol=5e-2)
if shown in branched:
    stays = grad_cam.grad_cam(turned, pixels[few], target, "demographic")
    assert np.allclose(stays, own["demographic"], atol=5e-2)
y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
inside = (x / 0.28) ** 2 + (y / 0.375) ** 2 <= 1  # a face, in crops with the margin of the book
rows = {(name, "forgery"): maps for name, maps in heat.items()}
rows |= {(name, "demographic"): maps for name, maps in demographic_heat.items()}
in_face = {}
for key, maps in rows.items():
    share = pd.Series((maps * inside).sum((1, 2))) / np.where(maps.any((1, 2)), maps.sum((1, 2)), np.nan)
    in_face[key] = share.groupby(faces["label"].map({0: "real", 1: "fake"})).mean()
in_face = pd.DataFrame(in_face).T.sort_index().rename_axis(["detector", "branch"])
assert in_face.stack().dropna().between(0, 1 + 1e-6).all()
print(f"Share of the heat inside the ellipse of a face, which covers {inside.mean():.0%} of the image:")
in_face

# %% [markdown]
# Now the means over all images of a group and forgery, beside the mean face:

# %%
mean_faces = grad_cam.mean_by(pixels, faces)
assert mean_faces.count.sum() == len(faces)
for name in dict.fromkeys((shown, beside)):
    figure = explanation.grad_cam_grid(mean_faces, grad_cam.mean_by(heat[name], faces), f"{name} on {test_sets[0]}")
    figure.set(size_inches=(6.6, 6.4), dpi=75)
    figure.axes[0].tick_params(axis="x", labelsize=7.5)
    display(figure)

# %% [markdown]
# The same in one number a cell: the share of the image that is hot (at least half of the largest heat of that image),
# in real and in fake images of each group.

# %%
hot = {}
for name, maps in heat.items():
    share = (maps >= 0.5).mean((1, 2))  # (N,)
    by_class = pd.Series(share).groupby([faces["group"], faces["label"].map({0: "real", 1: "fake"})]).mean().unstack()
    assert by_class.stack().between(0, 1).all()
    hot[name] = by_class.reindex(columns=["fake", "real"])
of_reals = hot[shown]["real"].dropna()
if len(of_reals):
    print(
        f"In this run: {shown} finds the most evidence against real images in {of_reals.idxmax()}, {of_reals.max():.0%}"
    )
    print(f"of the image; the mean of the groups is {of_reals.mean():.0%}.")
pd.concat(hot, axis=1)

# %% [markdown]
# **What you should see.** The heat of each image is divided by its largest value, so these numbers say where and how
# widely the evidence is spread, not how much there is. Where the shares of a group's real and fake images are alike,
# the map treats them alike; whether its real images are called fake is for the rates of chapter 5 to say. Rows that
# differ show a detector that looks at groups differently, and heat beside the face evidence that no forgery left there.
# A share inside the ellipse as large as the ellipse is what a detector reaches that looks at no place in particular;
# read it of the forgery branch, because the demographic one is asked who is shown, not what was forged. The map has 8 x
# 8 cells, so read regions, not pixels, and mean faces hide what single ones do.
#
# ## 9.6 Loss landscape
#
# **Why.** SAM looks for weights around which the loss stays low, in the hope that what is flat travels better. Did it
# find them? The loss is drawn on two random directions $d$ through the weights. Since a filter can be scaled without
# changing what the network says (batch norm takes it out again), each filter of a direction gets the length of that
# filter of the weights (*filter normalisation*):
#
# $$ d_f \leftarrow \frac{\lVert w_f \rVert}{\lVert d_f \rVert} d_f . $$
#
# By hand, for two filters of lengths 5 and 1:

# %% tags=["nbval-check-output"]
weights, direction = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])
lengths = [np.linalg.norm(each, axis=1, keepdims=True) for each in (weights, direction)]
by_hand = direction * lengths[0] / lengths[1]
print(by_hand.tolist())

# %%
show(landscape.normalised)

# %%
(package,) = landscape.normalised([torch.tensor(direction)], [torch.tensor(weights)])
assert np.allclose(package, by_hand)

# %% [markdown]
# The loss is the cross-entropy of the answer on training images, because that is the loss that SAM flattened. Each
# detector that was trained with SAM is drawn beside its twin, which differs in nothing else; without such a pair all
# detectors are drawn.

# %%
twins = [
    (plain, flat)
    for flat, plain in product(names, names)
    if configs[flat].sam and replace(configs[flat], sam=False, detector=plain) == configs[plain]
]
drawn = list(dict.fromkeys(name for pair in twins for name in pair)) or names
training = read_split(f"{manifests}/{train_set}", "train", image_root)
trained = training.iloc[subsample(training, 128)]
loss = landscape.answer_loss(decode(trained, images_at, side, data_dir), trained["label"].to_numpy(), target)
surfaces = {name: landscape.landscape(models[name], loss, steps=9) for name in drawn}
print("with and without SAM:", twins or "no such pair in this run")
explanation.landscapes(surfaces, f"Loss of {len(trained)} training images")

# %% [markdown]
# **What you should see.** Valleys with the detector, the star, near the bottom. The axes are in lengths of a filter: at
# 0.5 every filter that is trained has moved by half of its length (frozen ones stay), far more than an optimiser ever
# moves it in one step.
#
# ## 9.7 Sharpness
#
# **Why.** A picture of two directions out of thousands convinces nobody. *Sharpness* says how much the loss rises
# within a small distance $r$ (in lengths of a filter): along the filter-normalised gradient $n(g)$, the worst way to
# first order, and in the mean over random directions $d$, walked both ways so that the slope cancels:
#
# $$ \mathrm{ascent} = L(w + r\, n(g)) - L(w) , \qquad
#    \mathrm{random} = \mathbb{E}_d \big[ \tfrac12 L(w + r d) + \tfrac12 L(w - r d) \big] - L(w) . $$
#
# By hand for $L(w) = \frac12 \lVert w \rVert^2$: the gradient is $w$ itself, so the ascent step goes to $(1 + r) w$,
# and
# $d$ has the length of $w$:


# %%
class Bowl(torch.nn.Module):
    """One filter of two weights."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))


r = 0.1
by_hand = {"loss": 25 / 2, "ascent": 25 / 2 * ((1 + r) ** 2 - 1), "random": 25 / 2 * r**2}

# %%
show(landscape.sharpness, docstring=False)

# %% tags=["nbval-check-output"]
package = landscape.sharpness(Bowl(), lambda bowl: [bowl.weight.square().sum() / 2], radius=r)
assert all(np.isclose(package[name], value) for name, value in by_hand.items())
print({name: round(value, 4) for name, value in by_hand.items()})

# %%
rises = {name: landscape.sharpness(models[name], loss) for name in drawn}
for name, surface in surfaces.items():
    middle = len(surface.x) // 2
    assert np.isclose(surface.loss[middle, middle], rises[name]["loss"], rtol=1e-3), "the centre is the detector"
rises = pd.DataFrame(rises).T.rename_axis("detector")
for plain, flat in twins:
    ratio = rises.loc[plain, "ascent"] / rises.loc[flat, "ascent"]
    fits = f"{rises.loc[flat, 'loss']:.2f} against {rises.loc[plain, 'loss']:.2f}"
    print(f"In this run: the worst rise around {plain} is {ratio:.1f} times that around {flat}.")
    print(f"On these training images {flat} has a loss of {fits}.")
rises

# %% [markdown]
# **What you should see.** `ascent` is the rise when each filter moves by a twentieth of its length the worst way, what
# SAM works against; `random` the rise in random directions. Smaller is flatter. Read them beside `loss`: a detector
# that has learnt less is often flatter for that reason alone. One pair of trainings is an anecdote; a claim about SAM
# needs several seeds, and flatter weights are no proof of fairer ones: the comparison of chapter 5 has the answer to
# that.
#
# ## 9.8 What each part does
#
# **Why.** A method of six losses, three encoders and a fusion may work, or fail, for another reason than the one it was
# built for. So one part at a time is changed in the trained detectors of the run, and the answer is watched.
#
# **Swap test.** The fusion is there so that the answer takes the person's group into account. Show the demographic
# encoder an image of a person of *another group*, and compare the score $s_i'$ with the one before: the share of
# verdicts that hang on this branch at threshold $t$ is
#
# $$ \frac{1}{n} \sum_i \big[\, (s_i \ge t) \ne (s_i' \ge t) \,\big] . $$
#
# The same is then done to the forgery encoder, with the same images. By hand, for eight of them: AdaIN of the other
# images' demographic map with their own agnostic map, and the layers that follow it.

# %%
show(interventions.swapped)

# %%
flips, rng, own_group = {}, np.random.default_rng(0), faces["group"].to_numpy(str)
swappable = branched if len(set(own_group)) > 1 else []
partner = [rng.choice(np.flatnonzero(own_group != own)) for own in own_group] if swappable else []
for name in swappable:
    model, others = models[name], pixels[partner]
    with torch.inference_mode():
        own, other = (grad_cam.feature_maps(model, to_device(each[:8], target)) for each in (pixels, others))
        by_hand = model.fused(model.fusion(adain(other["demographic"], own["domain_agnostic"]))).logits
    package = interventions.swapped(model, pixels[:8], others[:8], "demographic", target)
    assert np.allclose(by_hand.cpu(), package, rtol=1e-2, atol=1e-2)
    given = np.diff(predict(model, pixels, target))[:, 0]  # log odds, (N,)
    reals = given[faces["label"] == 0]
    cuts = {"0.5": 0.0} | ({f"FPR {COMMON_FPR:.0%}": np.quantile(reals, 1 - COMMON_FPR)} if len(reals) else {})
    for branch in ("demographic", "forgery"):
        moved = np.diff(interventions.swapped(model, pixels, others, branch, target))[:, 0]
        row = {f"flips at {at}": ((given >= cut) != (moved >= cut)).mean() for at, cut in cuts.items()}
        flips[name, branch] = row | {"mean move / sd of log odds": np.abs(moved - given).mean() / given.std()}
        print(f"In this run: another image's {branch} features flip {row['flips at 0.5']:.1%} of verdicts ({name}).")
pd.DataFrame(flips).T if flips else print("No answer here has a demographic branch and more than one group.")

# %% [markdown]
# **What can reach the answer.** AdaIN takes mean and spread out of each channel of the demographic map $d$ and puts
# those of the agnostic map $f$ in:
#
# $$ \mathrm{AdaIN}(a\, d + b,\, f) = \mathrm{AdaIN}(d, f) \qquad \text{for } a > 0 . $$
#
# But the mean is all that the demographic head pools, so all that the demographic loss asks for: what it trains is
# taken out again before the fusion. What gets through is the pattern over the places, and that loss does not ask for
# one. Below the identity by hand, and in the detectors, whose answers stay where they are with 1 added to the whole
# demographic map. Then the AUC of the *agnostic head*, which sees the forgery branch alone, beside that of the answer.

# %%
d, f = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, 5.0]]]])
by_hand = (d - 3) * (2 / (20 / 3) ** 0.5) + 2  # d has mean 3 and variance 20 / 3, f has mean 2 and variance 4
assert all(torch.allclose(adain(same, f), by_hand, atol=1e-4) for same in (d, 3 * d + 7))
for name in branched:
    raised = copy.deepcopy(models[name])
    raised.demographic_split.register_forward_hook(lambda _, inputs, maps: maps + 1)
    answers = (predict(each, pixels[:8], target) for each in (models[name], raised))
    assert np.allclose(*answers, rtol=1e-2, atol=1e-2), "a mean of the demographic map reaches the answer"
told = {(name, "answer"): torch.from_numpy(predict(model, images, target)) for name, model in models.items()}
with torch.inference_mode():
    for name in (name for name in names if "fused" in vectors[name]):
        pooled = torch.from_numpy(vectors[name]["domain_agnostic"]).to(target)
        told[name, "agnostic head"] = models[name].agnostic.layers(pooled).cpu()
told = {key: sample.assign(score=score(logits).numpy()) for key, logits in told.items()}
auc = pd.DataFrame(
    {key: {one: overall_metrics(own)["auc"] for one, own in table.groupby("dataset")} for key, table in told.items()}
).T.reindex(columns=test_sets)
for name in (name for name, head in auc.index if head == "agnostic head"):
    lead = 100 * (auc.loc[(name, "answer")] - auc.loc[(name, "agnostic head")]).mean()
    print(f"In this run: in the mean of the sets the answer of {name} is {lead:+.1f} points above its agnostic head.")
auc

# %% [markdown]
# **CVaR and weak evidence.** Let the log odds $z_i$ be given and only their scale $s$ be learnt. With the margin $m_i$,
# which is $z_i$ for a fake and $-z_i$ for a real image, the loss is $\log(1 + e^{-s m_i})$. At $s = 0$ all answers are
# one half, and from there CVaR changes by
#
# $$ \frac{d}{ds}\, \mathrm{CVaR}_\alpha = - \tfrac{1}{2} \cdot \text{mean of the } \alpha n \text{ lowest margins} : $$
#
# it falls only if the worst images are right on average. Weak evidence is wrong there, so the best answer is one half,
# which has no worst image.
#
# **CVaR and small groups.** Across the groups of a batch the worst half is taken once more, and it may be groups of one
# or two images, whose loss is luck. CVaR is a weighted mean, and its gradient is the weights: they say how much of the
# loss falls on such images. By hand, for groups of 1, 2 and 6 images: the worst 1.5 groups count, so the single image,
# if it is the worst, has the weight 1 / 1.5. In the run, twenty batches of each sampling, with the losses of the
# detector and with the same losses dealt out at random, where no group is worse than another.

# %%
margins = torch.tensor([1.5, 1.0, 0.5, -1.0], dtype=torch.float64)
for alpha, by_hand in {1.0: -(2.0 / 4) / 2, 0.5: -(-0.5 / 2) / 2}.items():
    s = torch.tensor(1e-6, dtype=torch.float64, requires_grad=True)  # at 0 itself no image is worse than another
    (slope,) = torch.autograd.grad(losses.cvar(softplus(-s * margins), alpha), s)
    assert np.isclose(slope, by_hand, atol=1e-5)
normal = norm.ppf((np.arange(500) + 0.5) / 500)
margins = torch.from_numpy(normal + norm.ppf(0.64) / 2**0.5)  # of evidence with an AUC of 0.64, alike in both classes
scales = torch.linspace(0, 1, 101, dtype=torch.float64)
for alpha in (1.0, 0.9, 0.5):
    best = scales[torch.stack([losses.cvar(softplus(-s * margins), alpha) for s in scales]).argmin()]
    print(f"evidence with an AUC of 0.64, alpha {alpha}: the best scale is {best:.2f}")
for name in names:
    near = (told[name, "answer"]["score"] - 0.5).abs().lt(0.05).mean()
    print(f"In this run: {near:.0%} of the scores of {name} lie within 0.05 of one half.")

# %%
luck, group = torch.tensor([2.0, 1.0, 1.0] + [0.5] * 6, requires_grad=True), torch.tensor([0, 1, 1] + [2] * 6)
(weight,) = torch.autograd.grad(losses.group_cvar(luck, group), luck)
assert np.isclose(weight[0], 1 / 1.5) and np.isclose(weight.sum(), 1)
size, code, groups = configs[shown].batch_size, codes(training)["group"], len(group_sizes(training))
shares = []
for sampling in SAMPLING:
    drawn = epoch_pairs(training, sampling, np.random.default_rng(0))[: 20 * size]
    used, place = np.unique(drawn, return_inverse=True)
    seen = torch.from_numpy(predict(models[shown], decode(training.iloc[used], images_at, side, data_dir), target))
    errors = losses.cross_entropy(seen, torch.from_numpy(training["label"].to_numpy()[used]))
    for batch in np.array_split(place.reshape(-1, 2), max(1, len(drawn) // size)):
        rows = batch.reshape(-1)
        group = torch.from_numpy(code[used[rows]])
        few = torch.bincount(group)[group] <= 2
        row = {"sampling": sampling, "images of groups with 1 or 2": float(few.float().mean())}
        for dealt, order in {"": rows, ", losses dealt at random": rng.permutation(rows)}.items():
            luck = errors[order].requires_grad_()
            (weight,) = torch.autograd.grad(losses.group_cvar(luck, group, groups=groups), luck)
            assert np.isclose(weight.sum(), 1, atol=1e-4)
            row["their weight" + dealt] = float(weight[few].sum())
        shares.append(row)
pd.DataFrame(shares).groupby("sampling", sort=False).mean()

# %% [markdown]
# **SAM's pace.** SAM follows the gradient of a point further up. With a fixed number of epochs a slower training may
# end too early; with patience each ends when its validation AUC no longer rises. So the validation AUC stands beside
# the loss, which may go on falling when nothing is gained: both for each pair of twins, epoch by epoch, and what they
# lose on the way to the data sets that they were not trained on.

# %%
pace = {}
for plain, flat in twins:
    for name in (plain, flat) if len(test_sets) > 1 else ():
        lost = 100 * (auc.loc[(name, "answer")].iloc[0] - auc.loc[(name, "answer")].iloc[1:].mean())
        print(f"In this run: {name} loses {lost:.1f} points of AUC from {test_sets[0]} to the other test sets.")
    paths = {name: stored[name].with_name("history.csv") for name in (plain, flat)}
    if all(path.exists() for path in paths.values()):
        pace |= {name: pd.read_csv(path, index_col="epoch")[["loss", "val_auc"]] for name, path in paths.items()}
        lowest = pace[flat]["loss"].min()
        ahead = pace[plain].index[pace[plain]["loss"] <= lowest]
        when = f"after epoch {ahead[0]}" if len(ahead) else "in no epoch"
        print(f"In {len(pace[flat])} epochs of two passes {flat} comes down to a training loss of {lowest:.2f};")
        print(f"{plain} is as low {when}, of one pass each.")
table = pd.concat(pace, axis=1) if pace else pd.DataFrame()
table.iloc[np.unique(np.linspace(0, len(table) - 1, 8).round().astype(int))] if len(table) else None

# %% [markdown]
# **What you should see.** If another group's demographic features flip next to no verdict while another image's forgery
# features flip many, the fusion is nearly dead: the answer is the forgery branch's, and an agnostic head that does as
# well says the same in another way. The scales show what a loss that looks at the worst images alone can do to weak
# evidence: its best answer is then *no* answer. Whether that happens in a run is told by the share of scores near one
# half; where it is no larger than a plain detector's, the evidence was strong enough. Images of small groups weigh far
# more than their share; what they weigh with losses dealt at random is luck that is trained on, the rest is that rare
# groups are served worse. Group-balanced pairs leave few small groups. SAM should be judged by what it gains abroad,
# not by its flatness, and an epoch with SAM costs two passes: at equal epochs the comparison favours it. All this is
# one training of each detector.
#
# ## 9.9 Save

# %%
warm = pd.concat(hot, names=["detector"]).reset_index()
for name, table in {"probes.csv": read, "heat.csv": warm, "sharpness.csv": rises.reset_index()}.items():
    table.to_csv(run.path(name), index=False, lineterminator="\n", float_format="%.6f")
assert len(warm) == len(names) * faces["group"].nunique()
sets = [f"{manifests}/{name}" for name in dict.fromkeys([*test_sets, train_set])]
run.finish(device=target.type, read=[*sets, *(path for path in stored.values() if path.parent.parent != folder)])

# %% [markdown]
# ## Summary
#
# - A head sees the pooled vector of a map; a probe reads the same vector, so it measures what the answer could use.
# - Probes are judged by balanced accuracy on people whom they have not seen; chance is one over the classes.
# - Grad-CAM shows where on an 8 x 8 map the evidence lies, for single images and as means over groups.
# - Sharpness is comparable between networks of one architecture, because directions are filter-normalised.
# - A part is judged by what changes without it: swap it, shift it, or ask the head beside it.
# - All of these describe; none of them says what *causes* an error, and none replaces the rates of chapter 5.
#
# ## Exercises
#
# **1.** Forget that people must be disjoint: deal the images out to the folds one by one. How much better does the
# probe for the group seem to be?

# %% tags=["solution"]
group = sample["group"].to_numpy(str)
alone = np.full(len(sample), "")
splits = (
    {
        "people apart": probes.identity_folds(group, people.to_numpy(str), alone),
        "images apart": probes.identity_folds(group, np.arange(len(sample)).astype(str), alone),
    }
    if "group" in targets
    else {}
)  # else a group has too few people
seems = {
    feature: {how: probes.linear_probe(vector, group, folds).mean() for how, folds in splits.items()}
    for feature, vector in vectors[shown].items()
}
seems = pd.DataFrame(seems).T
assert seems.stack().between(0, 1).all()
seems

# %% [markdown]
# Where the second number is the higher one, the probe has recognised people whom it knew from other images.
#
# **2.** Does Grad-CAM need a trained network? Compute the heat of the same detector with random weights. (Adebayo et
# al. 2018 found explanations that hardly change when the weights are drawn anew, and so explain the image, not the
# network.)

# %% tags=["solution"]
untrained = [build(replace(configs[shown], seed=seed, weights="")).to(target).eval() for seed in range(1, 5)]
alike = [
    np.corrcoef(trained_map.ravel(), random_map.ravel())[0, 1]
    for model in untrained
    for trained_map, random_map in zip(heat[shown], grad_cam.grad_cam(model, pixels, target), strict=True)
    if trained_map.std() > 0 and random_map.std() > 0  # one that calls everything real has no heat
]
assert (np.abs(alike) <= 1 + 1e-6).all()
print(f"correlation of trained and random heat in {len(alike)} pairs: {np.mean(alike or np.nan):.2f}; 1 is alarming")
