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
# # 7. What the released code computes
#
# | | |
# |---|---|
# | **Needs** | a score table of chapter 4 (or any other, parameter `scores`); nothing else |
# | **Produces** | `07_released_code/`: `differences.csv` (what was measured), `released/` (score files) |
# | **Time on 2 CPU cores** | under half a minute |
# | **Time on one GPU** | the same: all networks here are tiny and run on the CPU |
#
# The authors of the method published their code. At six places it computes something else than the paper describes,
# and each time a few lines of arithmetic show it. This chapter derives them, measures them on small networks, and
# shows how this book repairs them. The switch `fidelity="official"` computes what the released code computes,
# `fidelity="corrected"` (the default everywhere) what it set out to compute: published checkpoints and numbers can then
# be compared with ours. Sections 7.9 and 7.10 read and write the files of the released code.
#
# You need this chapter only if you compare with published numbers, or wonder why the book's detector has two blocks
# more than the released one.
#
# Source of the method: Lin et al., "Preserving Fairness Generalization in Deepfake Detection", CVPR 2024
# (arXiv 2402.17229). The behaviour of the released code was observed by running it, and is described in our words.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
scores: str = ""  # a score table (.parquet or .csv) with both logits; "" takes the first of this run
checkpoint: str = ""  # a checkpoint that the released code has written; "" makes a small file of the same names

# %%
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.data.batches import Batch
from fairdf_utils.data.vocabulary import GROUPS
from fairdf_utils.fairness import metrics, score_table
from fairdf_utils.model import detectors, layers, losses
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.released import checkpoints, score_files
from fairdf_utils.training import loop, sam

run = Run(run_dir, "07_released_code")
torch.set_num_threads(1)
torch.manual_seed(0)
measured = {}  # what the sections find: (part, what) -> released, ours

# %% [markdown]
# ## 7.1 Two detectors with the same weights
#
# Whatever differs below shall be the work of `fidelity` alone. So both detectors get the same weights (the corrected
# one has two blocks more, which sections 7.2 and 7.3 explain), and dropout is off, so that two passes can be compared.
# The pictures are soft colour patterns: what is shown here holds for any input.
#
# Two instruments serve all sections. The first puts noise in the place of one part's result, to see whether what
# follows moves. The second is the norm of a loss's gradient with respect to the weights of each part: what gets no
# gradient cannot learn.

# %%
pairs, size, width = 16, 64, 64
config = TrainingConfig(
    backbone="tiny", weights="", image_size=size, width=width, reconstruction_size=size,
    initialisation="kaiming", logit_dropout=0.0,
)  # fmt: skip
ours = detectors.FairDetector(config)
released = detectors.FairDetector(replace(config, fidelity="official"))
released.load_state_dict(ours.state_dict(), strict=False)  # not strict: it lacks two blocks
both = {"released": released, "ours": ours}
for detector in both.values():
    detector.decoder.dropout.p = 0.0

coarse = torch.rand(2 * pairs, 3, 9, 9) * 2 - 1
batch = Batch(
    images=F.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1),
    label=torch.arange(2 * pairs) // pairs == 0,
    forgery=torch.cat([torch.arange(pairs) % 5 + 1, torch.zeros(pairs, dtype=torch.int64)]),
    group=torch.arange(2 * pairs) % 8,
    rows=np.arange(2 * pairs),
)
batch = replace(batch, label=batch.label.long())  # fakes first
with torch.no_grad():
    h_f, h_c, h_d = (getattr(ours, part)(batch.images) for part in ("forgery", "content", "demographic"))
    f_a, d = ours.agnostic_split(h_f), ours.demographic_split(h_d)
print("encoders' maps", tuple(h_f.shape), " agnostic map f_a and demographic map d", tuple(d.shape))


# %%
def with_noise(detector, part):
    """Outputs of a detector one of whose parts returns noise instead of features."""
    hook = getattr(detector, part).register_forward_hook(lambda module, inputs, result: torch.randn_like(result))
    outputs = detector(batch.images)
    hook.remove()
    return outputs


def gradient_norms(loss, detector, parts=("forgery", "content", "demographic")):
    """Norm of a loss's gradient with respect to the weights of each part; 0 for a part that it does not see."""
    weights = [(part, weight) for part in parts for weight in getattr(detector, part).parameters()]
    gradients = torch.autograd.grad(loss, [w for _, w in weights], retain_graph=True, allow_unused=True)
    squares = dict.fromkeys(parts, 0.0)
    for (part, _), gradient in zip(weights, gradients, strict=True):
        squares[part] += 0.0 if gradient is None else float(gradient.square().sum())
    return {part: square**0.5 for part, square in squares.items()}


# %% [markdown]
# ## 7.2 Fusion: pooling cancels the demographic features
#
# **Why.** The detector's answer is meant to know the demographic features, so that it can allow for them. The
# demographic map $d$ takes the statistics of the agnostic map $f_a$ (adaptive instance normalisation, chapter 2), with
# mean $\mu$ and standard deviation $\sigma$ over the positions of a channel. The released code pools the result at
# once, that is, it takes its mean over the positions:
#
# $$ \mu\big(\mathrm{AdaIN}(d, f_a)\big)
#  = \mu\Big(\sigma(f_a)\,\frac{d - \mu(d)}{\sigma(d)} + \mu(f_a)\Big)
#  = \sigma(f_a)\,\frac{\mu(d) - \mu(d)}{\sigma(d)} + \mu(f_a) = \mu(f_a). $$
#
# The demographic map is gone. Not weakened: absent from the formula. By hand, with two demographic maps of four
# positions that could not differ more:


# %% tags=["nbval-check-output"]
def normalised(values):
    """Mean 0 and standard deviation 1."""
    return (values - values.mean()) / values.std(ddof=1)


y = np.array([10.0, 20.0, 30.0, 40.0])  # f_a
for name, x in {"a ramp": np.arange(4.0), "a spike": np.array([0.0, 0.0, 0.0, 900.0])}.items():
    by_hand = normalised(x) * y.std(ddof=1) + y.mean()
    print(f"d = {name:8} AdaIN(d, f_a) = {by_hand.round(1)!s:26} pooled {by_hand.mean():.1f}")

# %% [markdown]
# The repair is to look at the map before it is pooled, through three 1 x 1 convolutions with LeakyReLU between them. A
# bend at zero makes the mean depend on *how* the values are spread. (The bend is essential: exercise 1.) The released
# code defines such a block under the name `block_fused`, with a number of inputs that does not fit, and never calls it.
# First the formula on this chapter's maps, then two experiments with the whole network: noise in the place of $d$, and
# the gradient of the fairness loss.

# %%
show(detectors.FairDetector._fuse)

# %%
with torch.no_grad():
    pooled = released._fuse(d, f_a).mean((2, 3))
    assert torch.allclose(pooled, f_a.mean((2, 3)), atol=1e-5)
    assert torch.allclose(released._fuse(torch.randn_like(d), f_a).mean((2, 3)), pooled, atol=1e-5)
    assert torch.equal(ours._fuse(d, f_a), ours.fusion(layers.adain(d, f_a)))
print(f"pooled AdaIN(d, f_a) and pooled f_a differ by {(pooled - f_a.mean((2, 3))).abs().max():.0e} at most")

# %%
report = {}
for name, detector in both.items():
    outputs = detector(batch.images)
    with torch.no_grad():
        moved = with_noise(detector, "demographic_split").fused.logits - outputs.fused.logits
        spread = outputs.fused.logits.std()
    errors = losses.cross_entropy(outputs.fused.logits, batch.label)
    norms = gradient_norms(losses.group_cvar(errors, batch.group), detector)
    report[name] = {
        "change of logits, d = noise (share of spread)": float(moved.std() / spread),
        "fairness gradient, E_d / E_f": norms["demographic"] / norms["forgery"],
    }
report = pd.DataFrame(report)
assert (report["released"] < 1e-4).all() and (report["ours"] > 0.01).all()
measured |= {("7.2 fusion", what): row for what, row in report.iterrows()}
report.map("{:.1e}".format)

# %% [markdown]
# **What you should see.** In the released form, noise in the place of the demographic map moves the logits by rounding
# errors, and the fairness loss sends the demographic encoder a gradient that is rounding, too. In ours the logits move
# visibly, and both encoders get gradients of similar size.
#
# ## 7.3 The decoder: its condition erases the content
#
# **Why.** The decoder draws a picture again from forgery features $f$ and a *condition* that should carry everything
# else, content $h_c$ and demographics $h_d$. Its first act gives the condition the statistics of $f$. The released
# condition is $\mathrm{AdaIN}(h_d, h_c)$: of the content it holds two numbers per channel, mean and standard deviation.
# And these two numbers are what the first act replaces:
#
# $$ \mathrm{AdaIN}\big(\mathrm{AdaIN}(h_d, h_c),\, f\big) = \mathrm{AdaIN}(h_d, f). $$
#
# The content has left before the first convolution. By hand, one channel of four positions, two contents that could
# not differ more:

# %% tags=["nbval-check-output"]
h_demographic, forgery = np.array([1.0, 1.0, 3.0, 3.0]), np.array([0.0, 1.0, 1.0, 2.0])
for content in (np.array([10.0, 20.0, 30.0, 40.0]), np.array([-7.0, 0.0, 0.0, 900.0])):
    condition = normalised(h_demographic) * content.std(ddof=1) + content.mean()
    drawn = normalised(condition) * forgery.std(ddof=1) + forgery.mean()
    print(f"condition {condition.round(1)!s:30} after the first AdaIN {drawn.round(2)}")

# %% [markdown]
# The repair: the content lends its *pattern* and the demographics their statistics, and a block with bends writes both
# into the pattern before the decoder normalises it, $S_c\big(\mathrm{AdaIN}(h_c, h_d)\big)$.

# %%
show(detectors.FairDetector._reconstruct)

# %%
one, two, three = torch.randn(3, 4, width, 8, 8)
assert torch.allclose(layers.adain(layers.adain(one, two), three), layers.adain(one, three), atol=1e-3)
report = {}
for name, detector in both.items():
    outputs = detector(batch.images)
    with torch.no_grad():
        moved = with_noise(detector, "content").self_reconstruction - outputs.self_reconstruction
        spread = outputs.self_reconstruction.std((2, 3)).mean()  # inside a picture
    error = losses.reconstruction(batch.images, outputs.self_reconstruction, outputs.cross_reconstruction)
    norms = gradient_norms(error, detector)
    report[name] = {
        "change of pictures, h_c = noise (share of spread)": float(moved.std() / spread),
        "reconstruction gradient, E_c / E_f": norms["content"] / norms["forgery"],
    }
report = pd.DataFrame(report)
assert (report["released"] < 0.05 * report["ours"]).all() and (report["ours"] > 0.01).all()
measured |= {("7.3 decoder", what): row for what, row in report.iterrows()}
report.map("{:.1e}".format)

# %% [markdown]
# **What you should see.** In the released form one may replace the content of every picture by noise, and next to
# nothing changes. The rest comes from the $10^{-5}$ under the square root of AdaIN, which matters in channels that are
# almost flat. That encoder cannot learn, and it holds a third of the network's weights. In ours the pictures change
# by a visible part of what they vary.
#
# **Both together.** The norm of the gradient of each term of the loss, weighted as in the paper, into each encoder:

# %%
triplets = losses.draw_triplets(batch.label, batch.forgery, torch.Generator().manual_seed(0))
counts = torch.bincount(batch.group, minlength=8)
heat = {}
for name, detector in both.items():
    settings = config if detector is ours else replace(config, fidelity="official")
    terms = losses.fairdf_terms(detector(batch.images), batch, triplets, counts, settings)
    terms = {term: config.weight(term) * value for term, value in terms.items()}
    terms["whole loss"] = sum(terms.values())
    heat[name] = pd.DataFrame({term: gradient_norms(value, detector) for term, value in terms.items()}).T
whole = {name: table.loc["whole loss"] for name, table in heat.items()}
assert whole["released"]["content"] < 0.01 * whole["released"]["forgery"]
assert (whole["ours"] > 1e-6 * whole["ours"].max()).all()

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axis, (name, table) in zip(axes, heat.items(), strict=True):
    colours = {"norm": LogNorm(1e-9, 1e2), "cmap": "viridis", "cbar": name == "ours"}
    sns.heatmap(table.where(table > 0), annot=True, fmt=".0e", linewidths=1, ax=axis, **colours)
    axis.set(title=name, xlabel="encoder")
figure.suptitle("Gradient norm of each weighted term into each encoder")
plt.close(figure)
figure

# %% [markdown]
# **What you should see.** On the left the content column holds next to nothing, and the demographic encoder learns from
# its own head and a little from the reconstruction, never from the fairness loss: the forgery encoder does all the work
# for the answer. On the right the fairness loss reaches the demographic encoder, and the reconstruction the content
# encoder. White cells have no path from the term to the encoder, which alone is no fault.
#
# ## 7.4 Conditional value at risk: a search that stops early
#
# **Why.** The fairness loss takes the worst share of the groups' losses $L_g$ (chapter 2), the minimum over a threshold
# $\eta$. One sort gives it exactly. The released code searches for $\eta$ on a smoothed form,
#
# $$ \eta + \frac{\tau_2}{2\alpha}\eta^2 + \frac{1}{\alpha G}\sum_g \tau_1 \log\big(1 + e^{(L_g - \eta)/\tau_1}\big),
# \qquad \tau_1 = 10^{-3},\ \tau_2 = 10^{-4}. $$
#
# In float32 the exponential overflows when $L_g - \eta > 88.7\,\tau_1 = 0.0887$, and a guard stops the search there. So
# $\eta$ never falls more than 0.0887 below the worst group, and a group further below contributes nothing. By hand, six
# images of three groups, whose exact form has the worst 1.5 of three groups; then 32 images of
# eight groups, whose losses are spread as those of a trained detector are:

# %%
loss = torch.tensor([2.0, 0.4, 0.1, 1.6, 0.8, 0.3])
group = torch.tensor([0, 0, 0, 4, 4, 7])
inside = np.array([(2.0 + 0.4 + 0.7 * 0.1) / 2.7, (1.6 + 0.8 * 0.8) / 1.8, 0.3])  # L_g: the worst 0.9 of each group
exact_by_hand = (inside[1] + 0.5 * inside[0]) / 1.5

eta = max(inside) - 1e-3 * np.log(np.finfo(np.float32).max)
smooth = 1e-3 * np.log1p(np.exp((inside - eta) / 1e-3))
released_by_hand = eta + 1e-4 / (2 * 0.5) * eta**2 + smooth.sum() / (0.5 * 3)

# %%
show(losses.official_group_cvar)

# %% tags=["nbval-check-output"]
leaf = loss.clone().requires_grad_()
values = {"released": losses.official_group_cvar(leaf, group), "ours": losses.group_cvar(leaf, group)}
assert np.isclose(values["released"].item(), released_by_hand, atol=1e-4)
assert np.isclose(values["ours"].item(), exact_by_hand)
slopes = {name: torch.autograd.grad(value, leaf)[0] for name, value in values.items()}
assert (slopes["released"][group == 4] > 0).all() and (slopes["released"][group != 4] == 0).all()  # the worst group
assert torch.isclose(slopes["ours"].sum(), torch.tensor(1.0))
for name, slope in slopes.items():
    print(f"{name:8}  gradient of the six images {slope.numpy().round(3)}, in all {slope.sum():.2f}")

# %%
errors = -torch.rand(2 * pairs, generator=torch.Generator().manual_seed(0)).log()  # as of a trained detector
errors.requires_grad_()
shares = pd.DataFrame({"L_g": [losses.cvar(errors[batch.group == code], 0.9).item() for code in range(8)]}, GROUPS)
for name, form in {"released": losses.official_group_cvar, "ours": losses.group_cvar}.items():
    (slope,) = torch.autograd.grad(form(errors, batch.group), errors)
    shares[name] = [slope[batch.group == code].sum().item() for code in range(8)]
shares = shares.sort_values("L_g", ascending=False)
assert (shares.loc[shares["L_g"] < shares["L_g"].max() - 0.1, "released"] < 1e-4).all()
assert np.allclose(shares["ours"], [1 / 4] * 4 + [0] * 4, atol=1e-5), "the worse half of eight groups, evenly"
measured["7.4 CVaR", "groups that get gradient, of 8"] = (shares[["released", "ours"]] > 1e-4).sum().astype(float)

axes = shares[["released", "ours"]].plot.bar(figsize=(9, 3), rot=0, xlabel="", ylabel="gradient into the group")
axes.set_xticklabels([f"{name}\n$L_g$ = {value:.2f}" for name, value in shares["L_g"].items()], fontsize=8)
axes.set_title("Which groups the fairness loss hears")
plt.close(axes.figure)
axes.figure

# %% [markdown]
# **What you should see.** Bars are the gradient summed over a group's images. The exact form spreads its gradient
# evenly over the worse half of the groups. The released form gives gradient to the worst group, and to another only if
# it happens to lie within 0.09 of it; its total is smaller as well, because its threshold is a constant that passes no
# gradient on. A batch holds a handful of images per group, so which group is the worst is partly chance, and a loss
# that hears one group follows that chance.
#
# ## 7.5 The score: a sigmoid of one logit
#
# **Why.** Two logits make a probability by their softmax, which depends on their difference. The released test script
# takes the sigmoid of the fake logit alone:
#
# $$ P(\text{fake}) = \frac{e^{z_1}}{e^{z_0} + e^{z_1}} = \sigma(z_1 - z_0)\ \text{ (ours)}, \qquad
# \sigma(z_1)\ \text{ (released)}. $$
#
# A threshold of one half then asks for $z_1 \ge 0$ instead of $z_1 \ge z_0$. By hand, with more evidence for "real";
# and how often it changes a decision in a score table of this run, which holds both logits:

# %%
z_real, z_fake = 2.0, 0.5
softmax_by_hand = np.exp(z_fake) / (np.exp(z_real) + np.exp(z_fake))
sigmoid_by_hand = 1 / (1 + np.exp(-z_fake))

# %%
show(detectors.score)

# %% tags=["nbval-check-output"]
logits = torch.tensor([z_real, z_fake])
for by_hand, fidelity in ((softmax_by_hand, "corrected"), (sigmoid_by_hand, "official")):
    p = detectors.score(logits, fidelity).item()
    assert np.isclose(p, by_hand)
    print(f"{fidelity:9} P(fake) = {p:.3f}: called {'fake' if p >= 0.5 else 'real'}")

# %%
path = Path(scores) if scores else run.require_all("04_cross_dataset_evaluation/*/scores.parquet")[0]
table = score_table.read_scores(path)
forms = {"released": 1 / (1 + np.exp(-table["logit_fake"])), "ours": table["score"]}
called = pd.DataFrame({name: score >= 0.5 for name, score in forms.items()})
rates = called.groupby(table["label"].map({0: "real images called fake", 1: "fakes called fake"})).mean()
for name, fidelity in {"released": "official", "ours": "corrected"}.items():
    package = metrics.overall_metrics(table, fidelity=fidelity)
    by_hand = called.loc[table["label"] == 0, name].mean()
    assert np.isclose(package["fpr"], by_hand, equal_nan=True)
measured["7.5 score", "images that the other form decides otherwise"] = pd.Series(
    (called["released"] != called["ours"]).mean(), ["released", "ours"]
)
print(f"{path}: {(called['released'] != called['ours']).mean():.1%} of {len(table):,} images are decided otherwise")
rates.round(3)

# %% [markdown]
# **What you should see.** Training makes the two logits nearly opposite numbers, so the two forms agree in most cases;
# nothing makes them do so, and the rates of false alarms and of fakes found differ by points.
#
# ## 7.6 Groups with one class are dropped
#
# **Why.** A group without fakes has no true-positive rate, but it does have a false-positive rate. The released metric
# script steps over such a group altogether, in the sum $F_\mathrm{FPR} = \sum_g |\mathrm{FPR}_g - \mathrm{FPR}|$, too,
# although its images count in the overall $\mathrm{FPR}$. Celeb-DF and DFD are annotated so that this happens. By hand,
# eight images of three groups, of which the last has only real images, all called fake:

# %%
tiny = pd.DataFrame(
    {
        "video": list("abcdefgh"),
        "group": ["male-white"] * 3 + ["female-white"] * 3 + ["female-others"] * 2,
        "label": [0, 0, 1, 0, 0, 1, 0, 0],
        "score": [0.2, 0.7, 0.9, 0.1, 0.3, 0.8, 0.6, 0.9],
    }
).assign(logit_fake=lambda x: np.log(x["score"] / (1 - x["score"])))
everybody = 3 / 6  # real images called fake
kept = abs(1 / 2 - everybody) + abs(0 / 2 - everybody)  # the two groups that have both classes
dropped = abs(2 / 2 - everybody)  # the third

# %%
show(metrics.rates_and_overall)

# %% tags=["nbval-check-output"]
sums = {
    name: metrics.fairness_metrics(tiny, "group", fidelity=fidelity)["fpr_sum"]
    for name, fidelity in {"released": "official", "ours": "corrected"}.items()
}
assert np.isclose(sums["released"], kept) and np.isclose(sums["ours"], kept + dropped)
measured["7.6 one-class groups", "F_FPR of the example"] = pd.Series(sums)
print(pd.Series(sums, name="F_FPR").to_string())
metrics.group_rates(tiny, "group")[["n_real", "n_fake", "fpr", "tpr"]]

# %% [markdown]
# **What you should see.** The group with the most false alarms disappears, and the detector looks twice as fair. Ours
# counts every rate that is defined, reports the others as undefined, and says on how many groups a number rests.
#
# ## 7.7 Sharpness-aware minimisation: two passes, two functions
#
# **Why.** SAM (chapter 3) climbs from the weights $w$ to the worst point nearby, and takes the gradient there. To first
# order the climb raises the loss by
#
# $$ f(w + \hat\epsilon) - f(w) \approx \rho\, \lVert \nabla f(w) \rVert, \qquad
# \hat\epsilon = \rho\, \frac{\nabla f(w)}{\lVert \nabla f(w) \rVert}. $$
#
# That holds for the function whose gradient was taken. Dropout masks and triplets are part of that function, and the
# released code draws both again for the second pass: the climb goes uphill on a function that nobody asks any more. By
# hand, a linear model with dropout on its inputs, whose squared error is convex, so that a climb along the gradient
# cannot raise it by less than the formula says:


# %%
def error(weights, mask):
    """Squared error of a linear model with that dropout mask."""
    return ((inputs * mask) @ weights - answers).square().mean()


generator = torch.Generator().manual_seed(0)
inputs, answers, weights = (torch.randn(shape, generator=generator) for shape in ((32, 64), (32,), (64,)))
masks = (torch.rand(201, 32, 64, generator=generator) >= 0.5) / 0.5
leaf = weights.clone().requires_grad_()
(gradient,) = torch.autograd.grad(error(leaf, masks[0]), leaf)
promised = 0.05 * gradient.norm()
climbed = weights + promised * gradient / gradient.norm() ** 2  # w + rho * g / |g|
rises = torch.stack([error(climbed, mask) - error(weights, mask) for mask in masks]) / promised
assert rises[0] >= 1 - 1e-4, "the same mask: at least what the gradient promises"
measured["7.7 SAM", "rise by the climb, share of the promise"] = pd.Series(
    {"released": rises[1:].mean().item(), "ours": rises[0].item()}
)
print(
    f"the climb raises the loss by {rises[0]:.0%} of the promise with the same mask, {rises[1:].mean():.0%} with others"
)

# %% [markdown]
# Our step has one seed, from which both passes draw; triplets are drawn once, before. The running statistics of batch
# norms count the batch in the first pass only.

# %%
show(loop.training_step)

# %%
layer = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(64, 1))
optimizer, seen = sam.SAM(layer.parameters(), torch.optim.SGD, rho=0.05, lr=0.0), []
layer[0].register_forward_hook(lambda module, inputs, result: seen.append(result.detach() == 0))
loop.training_step(layer, optimizer, lambda: {"error": (layer(inputs)[:, 0] - answers).square().mean()}, seed=7)
assert len(seen) == 2 and torch.equal(*seen), "two passes, one dropout mask"
print(f"{int(seen[0].sum())} of {seen[0].numel()} inputs dropped, the same ones in both passes")

# %% [markdown]
# **What you should see.** With the mask that gave the gradient the loss rises at least as promised. With other masks
# it rises by a part of that: the more dropout decides, the less of SAM is left.
#
# ## 7.8 What else differs
#
# | in the released code | in this book |
# |---|---|
# | validation images are drawn anew every epoch, no epoch is chosen | a fixed set chooses the epoch (chapter 3) |
# | a resumed training gets back the weights only | optimizer, schedule, history and randomness, too (chapter 3) |
# | an answer runs three encoders, four heads and the decoder | `detect` runs what the fused logits depend on |
# | counts of the groups for the margin loss are constants of FF++ | they come from the training manifest (chapter 2) |
# | dropout on logits, rate 0.2 | kept, a parameter: `logit_dropout` |
#
# Which parts does an answer depend on? Those whose weights get a gradient from it:

# %%
parts = [name for name, _ in ours.named_children()]
used = {}
for name, detector in both.items():
    own = [part for part in parts if hasattr(detector, part)]
    detector.eval()
    norms = gradient_norms(detector.detect(batch.images).sum(), detector, own)
    used[name] = [part for part in own if norms[part] > 0]
    with torch.no_grad():
        assert torch.allclose(detector.detect(batch.images), detector(batch.images).fused.logits, atol=1e-3)
assert used["released"] == ["forgery", "agnostic_split", "fused"]
assert set(used["ours"]) == {*used["released"], "demographic", "demographic_split", "fusion"}
print(*(f"{name}: {', '.join(needed)}" for name, needed in used.items()), sep="\n")

# %% [markdown]
# **What you should see.** Taken together, the released detector is one encoder with a real/fake head, a forgery head
# and a second real/fake head under a worst-group loss, trained with SAM. The two other encoders do not touch its
# answer.
#
# ## 7.9 Its checkpoints
#
# **Why.** Whoever has a checkpoint of the released code wants its scores from the same chapters as those of our own
# detectors. Its state dict has the same entries as our detector in official fidelity, under other names:

# %% tags=["nbval-check-output"]
with torch.device("meta"):  # shapes without numbers: the paper's network costs nothing here
    paper = detectors.FairDetector(TrainingConfig(weights="", fidelity="official"))
rows = []
for our_part, their_part in checkpoints.PARTS.items():
    entries = {name: value for name, value in paper.named_parameters() if name.startswith(f"{our_part}.")}
    in_answer = any(our_part.startswith(f"{part}.") or our_part == part for part in used["released"])
    million = sum(map(torch.numel, entries.values())) / 1e6
    rows.append((their_part, our_part, round(million, 3), "yes" if in_answer else ""))
unused = sum(map(torch.Size.numel, checkpoints.unused_shapes().values())) / 1e6
assert np.isclose(sum(row[2] for row in rows), sum(map(torch.numel, paper.parameters())) / 1e6, atol=0.01)
print(f"{sum(row[2] for row in rows):.1f} million weights, and {unused:.1f} that are never used")
pd.DataFrame(rows, columns=["released name", "our name", "million weights", "in the answer"]).set_index("released name")

# %%
show(checkpoints.load_released_checkpoint, docstring=False)

# %% [markdown]
# A file of that form, as people have them: under "net", every name behind DataParallel's "module.", without the parts
# that are never used. Every entry is one number, spread over the entry's shape, so that the file stays small. After it
# two files that do not fit: a missing encoder, and weights that are not finite.

# %%
names = {checkpoints.released_name(name): value for name, value in paper.state_dict().items()}
made = {name: torch.tensor(i % 97, dtype=x.dtype).expand(x.shape) for i, (name, x) in enumerate(names.items())}
if checkpoint:
    file = Path(checkpoint)
else:
    file = run.path("made_checkpoint.pth")
    torch.save({"net": {f"module.{name}": value for name, value in made.items()}, "epoch": 3}, file)
loaded = checkpoints.load_released_checkpoint(file)
if not checkpoint:
    found = loaded.state_dict()
    assert all(torch.equal(found[name], made[checkpoints.released_name(name)]) for name in found)
million = sum(map(torch.numel, loaded.parameters())) / 1e6
print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, {million:.1f} million weights, fidelity {loaded.fidelity!r}")

# %%
broken = {
    "lacks": {name: value for name, value in made.items() if not name.startswith("encoder_c.")},
    "diverged": made | {"head_fused.mlp.2.bias": torch.tensor([torch.nan, 0.0])},
}
for name, state in broken.items():
    file = run.path(f"{name}.pth")
    torch.save(state, file)
    try:
        checkpoints.load_released_checkpoint(file)
    except ValueError as refusal:
        print(str(refusal).replace(str(file.parent), "..."), end="\n\n")
    else:
        raise AssertionError("it was accepted")
    file.unlink()
run.path("made_checkpoint.pth").unlink(missing_ok=True)
del loaded, made, broken

# %% [markdown]
# **What you should see.** With the weights that are never used the network has the paper's 69.5 million. Then two
# refusals, which name the first five of what is wrong. A checkpoint that is accepted gives a
# detector with the logits and reconstructions of the released model, which the package's tests compare with an
# independent description of it. Its batches begin with the real images, ours with the fakes.
#
# ## 7.10 Its score files
#
# **Why.** The released test script leaves two NumPy files per group, labels and logits of the fake class, and its
# metric script starts from them. Written in that form, our scores can be judged by their script; read from it, theirs
# can be judged by chapter 5. Their $F_\mathrm{FPR}$ of the first test set by hand, from the files:

# %%
folders = score_files.write_released(table, run.path("released"))
first = next(iter(folders))
stored = [
    [np.load(folders[first] / f"{name}{what}.npy") for what in ("labels", "predictions")]
    for name in score_files.RELEASED_GROUPS.values()
]
alarms = [1 / (1 + np.exp(-logit[label == 0])) >= 0.5 for label, logit in stored]
everybody = np.concatenate(alarms)
kept = [own for own, (label, _) in zip(alarms, stored, strict=True) if len(set(label)) == 2]  # one class: dropped
f_fpr_by_hand = sum(abs(own.mean() - everybody.mean()) for own in kept) if len(kept) > 1 else np.nan

# %%
show(score_files.read_released, docstring=False)

# %% [markdown]
# The files name neither images nor videos. The manifest that was tested on gives them back, because the script keeps
# its order; here the score table itself serves as one.

# %%
parts = dict(list(table.groupby("dataset", sort=False, observed=True)))
back = {name: score_files.read_released(folder, manifest=parts[name]) for name, folder in folders.items()}
judged = {
    (form, name): metrics.fairness_metrics(part, "group", fidelity="official")
    for form, tables in (("our table", parts), ("their files", back))
    for name, part in tables.items()
}
judged = pd.DataFrame(judged).T
assert np.isclose(judged.loc[("their files", first), "fpr_sum"], f_fpr_by_hand, equal_nan=True)
assert np.allclose(judged.loc["our table"], judged.loc["their files"], equal_nan=True)
assert all((back[name]["img_path"].to_numpy() == part["img_path"].to_numpy()).all() for name, part in parts.items())
judged[["fpr_sum", "oae", "dp", "meo"]].round(3)

# %% [markdown]
# **What you should see.** $F_\mathrm{FPR}$ and three more fairness metrics, which chapter 5 defines: gaps of accuracy
# (`oae`), of the share called fake (`dp`), and the largest gap of an error rate (`meo`). Both halves are equal to the
# last digit. They are not the numbers of chapter 5: fidelity "official" takes the sigmoid of one logit for the score
# (7.5) and drops groups with one class (7.6), as the released scripts do.
#
# Beside them the paper reports how well everybody, and each group, is told apart, with the error rate and the
# precision at one half, and the equal error rate. By hand, the error rate of everybody in the first test set:

# %%
error_by_hand = np.concatenate([(1 / (1 + np.exp(-logit)) >= 0.5) != label for label, logit in stored]).mean()
rates = score_files.detection_rates(back[first])
assert np.isclose(rates.loc["overall", "error"], error_by_hand)
rates.round(3)

# %% [markdown]
# **What you should see.** Groups with one class are missing, as in the released form. Not here are the numbers that
# the released script calls F_COV, F_G, F_S and F_A: this book has no definition of them to check its own against.
#
# ## 7.11 What is kept
#
# | file | content |
# |---|---|
# | `differences.csv` | what the sections measured: released and ours |
# | `released/<data set>/` | the score table in the files of the released form, two per group |

# %%
differences = pd.DataFrame(measured).T.rename_axis(["section", "what"])
differences.to_csv(run.path("differences.csv"))
run.finish(device="cpu", read=[path for path in (scores, checkpoint) if path])
differences.map("{:.2g}".format)

# %% [markdown]
# ## Summary
#
# - The mean over space of $\mathrm{AdaIN}(d, f_a)$ is the mean of $f_a$: pooled at once, the answer is blind to the
#   demographic features. A block with bends between the two repairs it.
# - AdaIN after AdaIN forgets the statistics that the first one gave, and these were all that the released decoder's
#   condition held of the content. Content as pattern repairs it.
# - The released search for the worst groups stops early and hears little but the worst one; a sort is exact.
# - The released score ignores one logit, its metrics drop groups with one class, its SAM climbs on another function.
# - Checkpoints and score files of the released code can be read, and score files be written.
#
# ## Exercises
#
# **1.** Is one 1 x 1 convolution between AdaIN and pooling enough to repair the fusion? Argue with the equation of 7.2,
# then test it.

# %% tags=["solution"]
# A 1 x 1 convolution is linear, so it commutes with the mean: mean(W m + b) = W mean(m) + b. Demographics stay lost.
linear = torch.nn.Conv2d(width // 2, width // 2, 1)
with torch.no_grad():
    for name, block in {
        "linear": linear,
        "LeakyReLU, linear": torch.nn.Sequential(torch.nn.LeakyReLU(), linear),
    }.items():
        pooled, noisy = (block(layers.adain(m, f_a)).mean((2, 3)) for m in (d, torch.randn_like(d)))
        change = ((pooled - noisy).abs().max() / pooled.std()).item()
        assert (change < 1e-4) == (name == "linear")
        print(f"{name:18} change with d = noise: {change:.0e} of the spread")

# %% [markdown]
# **2.** The repaired decoder must not forget the demographics in return. Replace the demographic encoder's features by
# noise and show that our reconstructions change.

# %% tags=["solution"]
ours.train()  # batch norms normalise by the batch again, as in 7.2 and 7.3
with torch.no_grad():
    before, after = ours(batch.images).self_reconstruction, with_noise(ours, "demographic").self_reconstruction
change = (after - before).std() / before.std((2, 3)).mean()
assert change > 0.1
print(f"change: {change:.0%} of the spread inside a picture")
