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
# # 3. Training with sharpness-aware minimisation
#
# | | |
# |---|---|
# | **Needs** | the manifests and images of chapter 1 (the embedded benchmark is rendered if missing) |
# | **Produces** | `03_sam_training/<detector>-s<seed>/`: `best.safetensors`, `last.pt`, `history.csv` |
# | **Time on 2 CPU cores** | about 4 minutes for the method with SAM, less than one for the plain detector |
# | **Time on one GPU** | depends on the corpus and the number of epochs; the history gives images per second |
#
# A detector can be fair on the data that it was trained on and unfair elsewhere. The paper blames sharp minima: the
# loss is low at the weights that were found and high a small step away, and a change of data set acts like such a
# step. This chapter draws the batches, derives sharpness-aware minimisation (SAM), trains one detector and looks at
# its curves. The parameters below choose which detector; papermill repeats this chapter once for each.

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # one sub-folder a data set
train_set: str = "ffpp"  # the data set to train on, a sub-folder of manifests
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
processes: int = 1  # GPUs to train on side by side, each with its share of a batch
threads: int = 1  # CPU threads of torch; 0 takes all cores. So small a network runs fastest on one
detector: str = "fairdf"  # name of the result in folders and tables
method: str = "fairdf"  # "ori", "balanced", "dag_fdd", "daw_fdd", "ucf" or "fairdf"
seed: int = 0  # initial weights, pairs, dropout masks, triplets
backbone: str = "tf_efficientnet_lite0"  # the name of a timm model, or "tiny"
weights: str = "embedded"  # "" random, "imagenet", "embedded" (installed with the package), or a state dict's path
frozen_stages: int = 2  # first stages of the backbone that keep these weights and are shared by all encoders
image_size: int = 64  # pixels
width: int = 64  # channels of the encoders' feature map (paper: 512)
fidelity: str = "corrected"  # "corrected" or "official"
demographic_branch: bool = True  # of fairdf; False drops the demographic encoder, head and loss
fairness_loss: str = "group_cvar"  # what trains the answer of fairdf: "group_cvar" or "cross_entropy"
initialisation: str = "kaiming"  # of 1 x 1 blocks and heads: "default" or "kaiming"
logit_dropout: float = 0.0  # dropout rate on the logits (released code: 0.2)
sam: bool = True  # sharpness-aware minimisation
rho: float = 0.05  # radius of SAM's ascent step
epochs: int = 10
patience: int = 3  # epochs without a higher validation AUC after which training ends; 0: never before `epochs`
batch_size: int = 32  # pairs of a fake and a real (paper: 16)
sampling: str = "natural"  # of the pairs; or "balanced": every group equally often
mixing: str = "none"  # or "across_groups": each image with one of the same forgery and another group
optimizer: str = "adamw"  # "sgd" (paper) or "adamw"
lr: float = 3e-3  # learning rate (paper: 5e-4 with sgd)
momentum: float = 0.9  # of sgd
weight_decay: float = 5e-3
schedule: str = "cosine"  # "step" (paper: x 0.9 every 60 epochs) or "cosine"
weight_specific: float = 0.1  # factor of the loss that tells forgeries apart
weight_reconstruction: float = 0.3  # factor of the reconstruction loss
weight_contrastive: float = 0.05  # factor of the triplet loss
weight_demographic: float = 0.1  # factor of the demographic margin loss
weight_fairness: float = 1.0  # factor of the bi-level fairness loss
alpha_in: float = 0.9  # CVaR level inside a group
alpha_across: float = 0.5  # CVaR level across the groups
margin_scale: float = 5.0  # scale of the margin loss (paper: 30)
max_margin: float = 0.5  # largest margin, of the rarest group
triplet_margin: float = 3.0
reconstruction_size: int = 32  # side of the reconstructions, pixels (paper: 256)
reconstruction_share: float = 0.125  # share of a batch's pairs that is reconstructed (paper: 1)
precision: str = "float32"  # "float32", "bfloat16" (autocast), or "auto": bfloat16 where the device is fast at it
micro_batch: int = 0  # pairs that are encoded, and held for the backward pass, at a time; 0: the whole batch
checkpoint_activations: bool = False  # encode again in the backward pass: one encoder's activations at a time
tensorboard: bool = False  # also write the history for TensorBoard

# %%
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import notebook_launcher
from IPython.display import display
from sklearn.metrics import roc_auc_score

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.data import batches
from fairdf_utils.data.manifests import read_split
from fairdf_utils.evaluation.scoring import predict
from fairdf_utils.figures import training
from fairdf_utils.model import stored
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import score
from fairdf_utils.rendered.images import image_folder
from fairdf_utils.training import loop
from fairdf_utils.training.sam import SAM

config = TrainingConfig(**{field.name: globals()[field.name] for field in fields(TrainingConfig)})
target = stored.choose_device(device, threads)
run = Run(run_dir, "03_sam_training", f"{detector}-s{seed}")
images_at = image_folder(image_root, data_dir, image_size, bias, data_seed)

# %% [markdown]
# ## 3.1 One epoch is a list of pairs
#
# **Why.** The reconstruction loss needs a fake and a real side by side, and a batch with as many reals as fakes keeps
# the detector from answering "fake" always. So an epoch shows every fake once, in random order, each with a real
# drawn at random. With $F$ fakes and $R$ reals, the epoch is the list
#
# $$ (f_{\pi(1)}, r_1), \dots, (f_{\pi(F)}, r_F), \qquad
#    \pi \text{ a permutation}, \quad r_i \sim \mathrm{Uniform}\{1..R\}. $$
#
# By hand, from the same random generator as the package:

# %%
train = read_split(f"{manifests}/{train_set}", "train", image_root)
validation = read_split(f"{manifests}/{train_set}", "val", image_root)
print(f"{len(train)} training and {len(validation)} validation images, {config.method!r} on {target.type}")

generator = np.random.default_rng([seed, 0])
fakes, reals = np.flatnonzero(train["label"] == 1), np.flatnonzero(train["label"] == 0)
by_hand = np.stack([generator.permutation(fakes), generator.choice(reals, len(fakes))], axis=1)
show(batches.epoch_pairs)

# %%
pairs = batches.epoch_pairs(train, "natural", np.random.default_rng([seed, 0]))
assert np.array_equal(pairs, by_hand)
assert np.array_equal(np.sort(pairs[:, 0]), fakes), "every fake exactly once"

balanced = batches.epoch_pairs(train, "balanced", np.random.default_rng([seed, 0]))
epochs_drawn = {"natural": pairs, "balanced": balanced}
share = {name: train["group"].iloc[drawn[:, 0]].value_counts(normalize=True) for name, drawn in epochs_drawn.items()}
pd.DataFrame(share).round(3)

# %% [markdown]
# **What you should see.** The natural epoch repeats the demographics of the training set: a few groups fill most of
# it. The balanced epoch, used by the baseline of that name, draws every group about equally often, and so shows the
# few images of the rare groups many times. A column that does not sum to one would be alarming, and so would a group
# that an epoch of thousands of pairs misses; one of a few dozen pairs may miss a small group by chance.
#
# ## 3.2 SAM on a surface that one can draw
#
# **Why.** Gradient descent looks at the loss at one point. SAM asks for weights whose whole neighbourhood is good:
#
# $$ \min_w \max_{\lVert \epsilon \rVert_2 \le \rho} L(w + \epsilon). $$
#
# To first order the worst $\epsilon$ points along the gradient, which gives two passes a step:
#
# $$ \hat\epsilon = \rho \, \frac{\nabla L(w)}{\lVert \nabla L(w) \rVert_2}, \qquad
#    w \leftarrow w - \eta \, \nabla L(w + \hat\epsilon). $$
#
# Source: Foret et al. 2021; Lin et al. 2024, optimisation.
#
# Here are a narrow hole on the left and a wide basin on the right, a little less deep. A mini-batch is not the whole
# data set: it tilts the surface by a random slope, the same in both passes of a step.


# %%
def valley(w):
    narrow = torch.exp(-((w[..., 0] + 0.8) ** 2 + w[..., 1] ** 2) / 0.03)
    wide = torch.exp(-((w[..., 0] - 0.8) ** 2 + w[..., 1] ** 2) / 0.8)
    return 1.2 - narrow - wide + 0.05 * (w**2).sum(-1)


def slope(w, tilt):
    w = w.detach().requires_grad_(True)
    return torch.autograd.grad(valley(w).sum(), w)[0] + tilt


def descend_by_hand(start, tilts, lr, rho):
    path = [start]
    for tilt in tilts:
        uphill = slope(path[-1], tilt)
        climbed = path[-1] + rho * uphill / (uphill.norm(dim=-1, keepdim=True) + 1e-12)
        path.append(path[-1] - lr * slope(climbed, tilt))
    return torch.stack(path)


# %%
display(show(SAM.first_step), show(SAM.second_step))


# %%
def descend(optimizer_of, start, tilts):
    w, path = torch.nn.Parameter(start.clone()), [start]
    optimizer = optimizer_of([w])
    for tilt in tilts:

        def closure(tilt=tilt):
            optimizer.zero_grad()
            loss = valley(w) + (tilt * w).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        path.append(w.detach().clone())
    return torch.stack(path)


start = torch.tensor([-1.0, 0.2], dtype=torch.float64)
tilts = 2 * torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
by_sgd = descend(lambda w: torch.optim.SGD(w, lr=0.03), start, tilts)
by_sam = descend(lambda w: SAM(w, torch.optim.SGD, rho=0.3, lr=0.03), start, tilts)
assert torch.allclose(by_sam, descend_by_hand(start, tilts, lr=0.03, rho=0.3), rtol=0, atol=1e-9)
assert torch.allclose(by_sgd, descend_by_hand(start, tilts, lr=0.03, rho=0.0), rtol=0, atol=1e-9)

axis = torch.linspace(-2, 2.2, 160, dtype=torch.float64)
grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
paths = {"SGD": by_sgd.numpy(), "SAM": by_sam.numpy()}
training.surface(axis.numpy(), axis.numpy(), valley(grid).numpy(), paths)

# %% [markdown]
# One pair of paths is an anecdote. Two hundred runs, from the same start with tilts of their own, for four radii:

# %% tags=["nbval-check-output"]
many = 2 * torch.randn(300, 200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ends = {rho: descend_by_hand(start.expand(200, 2), many, 0.03, rho)[-1] for rho in (0.0, 0.1, 0.2, 0.3)}
places = {"still in the narrow hole": ([-0.8, 0.0], 0.25), "in the wide basin": ([0.8, 0.0], 0.7)}
shares = pd.DataFrame(index=list(ends))
for place, (centre, radius) in places.items():
    shares[place] = [float(((w - torch.tensor(centre)).norm(dim=1) < radius).double().mean()) for w in ends.values()]
assert shares["still in the narrow hole"].is_monotonic_decreasing, "a larger radius leaves the hole more often"
shares.rename_axis("rho").round(1)

# %% [markdown]
# **What you should see.** Started at the rim of the narrow hole, gradient descent ($\rho = 0$) falls in and stays in
# nearly all runs. The larger the radius, the more runs of SAM leave: seen from a step further up, the hole's wall
# points the other way. What SAM does *not* do is also visible without the random tilts (exercise 1): it is pushed out
# of the hole and comes to rest on the ridge beside it; it is the noise of the mini-batches that carries it on. Five
# lines by hand and the package agree to nine decimals over 300 steps. This is a drawing, not evidence: whether SAM
# helps a detector is measured in chapters 4 and 5.
#
# ## 3.3 Both passes must see the same function
#
# **Why.** The second pass measures the gradient at $w + \hat\epsilon$ of the function whose worst neighbour
# $\hat\epsilon$ is. If dropout draws new masks, or the contrastive loss new triplets, it is another function, and the
# ascent no longer points uphill on it. The released code redraws both. Here a step has one seed: triplets are drawn
# once, dropout masks are drawn from the same seed in both passes, and the running statistics of batch norms move in
# the first only. (Inside a pass a batch norm still normalises by its own batch, whose activations did move.)

# %%
show(loop.training_step)

# %%
torch.manual_seed(0)
layer = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.BatchNorm1d(64), torch.nn.Dropout(0.5))
layer.append(torch.nn.Linear(64, 1))
inputs, seen = torch.randn(16, 4), []


def observed_terms():
    hidden = layer[:3](inputs)
    seen.append(hidden.detach() == 0)
    return {"square": layer[3](hidden).square().mean()}


optimizer_of_layer = SAM(layer.parameters(), torch.optim.SGD, rho=0.05, lr=0.0)
before = [p.detach().clone() for p in layer.parameters()]
loop.training_step(layer, optimizer_of_layer, observed_terms, seed=7)
assert len(seen) == 2 and torch.equal(seen[0], seen[1]), "two passes, one dropout mask"
assert all(map(torch.equal, before, layer.parameters())), "with lr = 0 the weights come back bit for bit"
assert layer[1].num_batches_tracked == 1, "batch-norm statistics moved once"
print(f"{int(seen[0].sum())} of {seen[0].numel()} units dropped, the same ones in both passes")

# %% [markdown]
# **What you should see.** About half of the units are dropped, the same ones twice. With a learning rate of zero the
# weights return to where they were, so that the ascent leaves no trace.
#
# ## 3.4 What is trained
#
# The table sets this run's parameters beside those of the published experiment. Like the paper's, the encoders start
# from ImageNet weights. To fit two cores they are cut from a small network, EfficientNet-Lite0, whose first stages
# are *frozen*: they keep their weights, all encoders share them as one `stem`, and what they make of an image is
# computed once for all epochs. Kaiming initialisation of the 1 x 1 blocks, no dropout on the logits, a smaller margin
# scale and AdamW make the rest learn in few epochs. `params/paper.yaml` holds the paper's values; so does
# `params/gpu.yaml`, apart from the corrected network and, where the device is fast at it, bf16 arithmetic.

# %%
paper, ours = asdict(TrainingConfig(fidelity="official")), asdict(config)
table = pd.DataFrame({"paper": paper, "this run": ours})
assert set(paper) == set(ours)
table[table["paper"].astype(str) != table["this run"].astype(str)]

# %%
show(loop.objective)

# %%
arguments = (config, train, validation, run.folder, images_at, data_dir, target, tensorboard)
if processes > 1:  # they leave a finished checkpoint behind, which the next lines find
    notebook_launcher(loop.train_detector, arguments, num_processes=processes)
trainer = loop.Training(*arguments)
history = trainer.run()
assert trainer.finished and np.isfinite(history["loss"]).all()

# %% [markdown]
# When training stops is the subject of 3.5. Training saves a whole checkpoint (weights, optimizer with its momentum,
# schedule, history) after each one and goes on from there when it was interrupted, or when this cell is run again. A
# checkpoint of another configuration or of other data is moved into `set_aside/`, and training starts anew. Validation
# scores every epoch on the same images; the epoch with the highest validation AUC is published. Several GPUs train one
# detector with `processes` above, or without the chapter: `torchrun --nproc-per-node 2 -m fairdf_utils train --params
# gpu --run-dir runs/gpu --detector fairdf --seed 0`.

# %%
parameters = sum(p.numel() for p in trainer.model.parameters())
print(
    f"{parameters / 1e6:.2f} million parameters, {trainer.steps_per_epoch} steps an epoch in {trainer.config.precision}"
)
history[["epoch", "loss", "val_auc", "val_fpr_sum", "val_oae"]].round(3)

# %%
training.history(history)

# %% [markdown]
# **What you should see.** The loss falls while the validation AUC rises well above 0.5; then the AUC levels off or
# falls a little, and training ends by the rule of 3.5 or at the cap. The term `fairness` stays above the agnostic term,
# although both ask real or fake with the same weight: it is a mean over the worst groups and their worst images, not
# over all. F_FPR is no quality by itself: an epoch that answers the same for everybody scores a perfect zero at an AUC
# of one half. The best epoch is chosen by AUC, so the published detector need not be the fairest one; F_FPR on
# validation rests on few videos a group, and choosing by it would choose noise. A flat AUC at 0.5 would mean collapse
# to a constant answer; an AUC that falls after its best means that the detector begins to overfit, and the epochs after
# the best are not published.
#
# ## 3.5 Trained to a rule
#
# **Why.** After the same number of epochs a plain detector may have learned all it can and a slow method half of it.
# Stopped early, many scores lie near one half, where a small shift of the threshold turns many verdicts round; such a
# comparison tells how fast two methods learn, not how fair they are. So all detectors are trained to the same *rule*
# instead. Let $a_e$ be the validation AUC after epoch $e$, and $b_e$ the first of the epochs up to $e$ with the highest
# one. Training ends after epoch
#
# $$ E = \min \bigl( \texttt{epochs},\; \min \{ e : e - b_e \ge \texttt{patience} \} \bigr), \qquad
#    b_e = \min \operatorname*{arg\,max}_{e' \le e} a_{e'}, $$
#
# as soon as the AUC has been flat for `patience` epochs (0: never), and at the cap `epochs` at the latest. Test sets
# have no part in it. The learning rate falls to zero at the cap, so an end before it is also an end at a higher rate.
# By hand:


# %%
def last_epoch(auc, patience, epochs):
    best = [1 + int(np.argmax(auc[:epoch])) for epoch in range(1, len(auc) + 1)]  # the first of the highest
    return min(e for e, b in enumerate(best, 1) if e == epochs or patience and e - b >= patience)


assert last_epoch([0.6, 0.8, 0.7, 0.8, 0.8, 0.9], patience=3, epochs=10) == 5, "as high as before is not higher"
assert last_epoch([0.6, 0.7, 0.8, 0.9], patience=3, epochs=4) == 4
assert last_epoch(history["val_auc"].to_numpy(), config.patience, config.epochs) == len(history)
show(loop.Training.finished.fget)

# %%
flat = bool(config.patience) and len(history) - trainer.best_epoch >= config.patience
print(f"{len(history)} of at most {epochs} epochs, the best is {trainer.best_epoch}: ", end="")
print(f"the AUC was flat for {config.patience} epochs." if flat else "the cap ended it, not the rule.")
curve = Path("../data_manifests/results/budget.csv")
if curve.exists():
    budget = pd.read_csv(curve).query("not detector.str.startswith('(')", engine="python")
    budget["tests"] = np.where(budget["dataset"] == "ffpp", "ffpp", "mean of the other sets")
    display(training.response(budget, "epochs", "Epochs, none left out (logarithmic scale)"))
    change = budget.groupby(["tests", "detector", "epochs"])[["auc", "worst_auc", "fpr_sum_matched"]].mean().mul(100)
    before, after = sorted(budget["epochs"].unique())[-2:]
    print(f"From {before:g} to {after:g} epochs, in points:")
    display((change.xs(after, level="epochs") - change.xs(before, level="epochs")).map("{:+.1f}".format))
else:
    print("There is no budget curve: `python -m fairdf_utils reproduce --params budget --run runs/budget` and")
    print("`python -m fairdf_utils results runs/budget --out data_manifests/results/budget.csv` make it.")

# %% [markdown]
# **What you should see.** The curves show the same detectors with other numbers of epochs, each with a schedule of its
# own and `patience: 0`. Where a line is still steep at its right end, the budget is too short for that detector, and a
# comparison there is one of states. Where lines cross, the order of two detectors belongs to the budget. The curves
# rest on one training each, so a step of a line that is smaller than the spread of training seeds (5.11) says nothing.
#
# ## 3.6 What was kept is what was trained
#
# **Why.** A checkpoint is useful when it stands alone: weights, and the configuration that rebuilds the network.

# %%
show(stored.load_detector)

# %%
published, its_config = stored.load_detector(run.path("best.safetensors"), target)
logits = predict(published, trainer.validation_images, target, trainer.config.precision)
assert replace(its_config, precision=trainer.config.precision) == trainer.config
if validation["label"].nunique() > 1:
    scores, label = score(torch.from_numpy(logits)).numpy(), validation["label"].to_numpy()
    rounding = 1e-3 if trainer.config.precision == "float32" else 2e-2  # may turn two images round that are this close
    least, auc, most = (roc_auc_score(label, scores + shift * label) for shift in (-rounding, 0, rounding))
    assert least <= history.set_index("epoch").loc[trainer.best_epoch, "val_auc"] <= most
    print(f"epoch {trainer.best_epoch} published; its validation AUC, computed again from the file: {auc:.4f}")
else:
    print(f"epoch {trainer.best_epoch} published. No AUC chose it: the validation images are of one class.")

# %% [markdown]
# **What you should see.** The published file gives the validation AUC of the best epoch. A difference would mean that
# the file holds other weights, or that scoring depends on how images are batched.

# %% [markdown]
# **How close did it come?** Sums are rounded otherwise on another machine, and a training carries each difference on to
# all later steps: the same seed does not end at the same weights everywhere. `data_manifests/detectors` holds detectors
# that were trained elsewhere. Where one has this name, configuration and data, both score the validation images:

# %%
shipped = stored.SHIPPED / f"{detector}.safetensors"
theirs, told = stored.read_config(shipped) if shipped.is_file() else (config, {})
alike = replace(theirs, precision=trainer.config.precision) == trainer.config
if not alike or image_root or not {"bias": bias, "data_seed": data_seed}.items() <= told.items():
    print("None of them has this name, configuration and data: there is nothing to compare with.")
else:
    other = predict(stored.load_detector(shipped, target)[0], trainer.validation_images, target)
    ours, theirs = (score(torch.from_numpy(each)).numpy() for each in (logits, other))
    apart, both = np.abs(ours - theirs), validation["label"].nunique() > 1
    aucs = [f"{roc_auc_score(validation['label'], each) if both else np.nan:.4f}" for each in (ours, theirs)]
    print(f"In this run: validation AUC {aucs[0]}, of the detector trained elsewhere {aucs[1]}.")
    print(f"Their scores of an image are {apart.mean():.3f} apart in the mean, {apart.max():.3f} at most.")

# %% [markdown]
# **What you should see.** The AUC rests on the order of all images, so two networks may agree in it while their scores
# of single images lie apart: about as good, and not the same one. What differs between two trainings of one recipe is
# no difference of methods; several seeds (chapter 5) tell how large it is.

# %% [markdown]
# ## 3.7 What a step costs
#
# **Why.** The method costs three encoders, a decoder and two passes a step. `python -m fairdf_utils speed` measures on
# your machine what the form of the code adds to that: the package's training step in float32, with less memory and in
# bfloat16, its scoring, its loader, its metrics and its resampling, each beside the plain form that libraries offer,
# with a check that both compute the same numbers.
#
# **Memory.** The activations of the encoders, kept for the backward pass, are nearly all that a step holds. The losses
# compare the images of a batch (worst groups, triplets, pairs), so a batch cannot be cut into smaller steps. But the
# encoders can be cut: the loss needs only their 8 x 8 maps, of all images at once, and whatever the backward pass wants
# to know of an encoder can be computed a second time when it gets there (`Encoder.forward`, shown in chapter 2). The
# price is a forward pass more, a third of the time or a little more. Counted from the tensors that PyTorch keeps for
# one and two pairs, for Xception at 256 px and 16 pairs, beside 1 GiB for the weights, their gradient, their momentum
# and SAM's copy of them:
#
# | parameters | float32 | bfloat16 | what it changes |
# |---|---|---|---|
# | as they are | 16.8 GiB | 8.9 GiB | |
# | `checkpoint_activations: true` | 6.3 GiB | 3.3 GiB | nothing: the same weights, on a CPU to the last bit |
# | `micro_batch: 4` | 2.4 GiB | 1.3 GiB | batch norms see 4 pairs at a time, and count 4 times a step |
#
# With batch norms that use running statistics, or without any, micro-batches give the gradient of the whole batch up
# to rounding; as they are used here, they normalise by fewer images, which adds noise: another training, so that
# `checkpoint_activations` is to be preferred where it is enough. Convolutions need working memory on top of that.
#
# `precision: auto` takes bfloat16 where the device has instructions for it; the checkpoint says which it was.

# %%
run.finish(device=target.type, read=[f"{manifests}/{train_set}"])

# %% [markdown]
# ## Summary
#
# - An epoch pairs every fake with a random real; the `balanced` baseline draws every group equally often.
# - SAM takes the gradient at the worst point of a small neighbourhood; the package equals five lines by hand.
# - Both passes of a step see the same dropout masks and triplets; running batch-norm statistics move once.
# - Training ends when the validation AUC is flat, or at a cap: the same rule for all, not the same number of epochs.
# - Checkpoints are whole and atomic; an interrupted run goes on where it stopped.
# - The best epoch is chosen on validation images alone; test sets are first opened in chapter 4.
#
# ## Exercises
#
# **1.** Take the random tilts away. Where does SAM come to rest, and is that a minimum?

# %% tags=["solution"]
rest = descend(lambda w: SAM(w, torch.optim.SGD, rho=0.3, lr=0.03), start, torch.zeros(2000, 2, dtype=torch.float64))
near = rest[-500:].mean(0)
hessian = torch.autograd.functional.hessian(valley, near)
curvature = torch.linalg.eigvalsh(hessian)
assert curvature[0] < 0 < curvature[1]
print("rests around", [round(float(v), 1) for v in near], "- curvature", [round(float(v), 1) for v in curvature])
print("One curvature is negative: a saddle between the two minima, not a minimum.")

# %% [markdown]
# **2.** SAM's ascent step has length $\rho$ whatever the gradient. Show it for a network with several parameter
# tensors: the *global* norm is $\rho$, not each tensor's.

# %% tags=["solution"]
network = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
ascending = SAM(network.parameters(), torch.optim.SGD, rho=0.05, lr=0.1)
network(torch.randn(9, 5)).square().mean().backward()
before = [p.detach().clone() for p in network.parameters()]
ascending.first_step()
moved = [(p.detach() - b).norm() for p, b in zip(network.parameters(), before, strict=True)]
assert torch.isclose(torch.stack(moved).norm(), torch.tensor(0.05))
print("norms by tensor:", [f"{float(m):.3f}" for m in moved], "- together 0.050")

# %% [markdown]
# **3.** Stop a training after one of two epochs and resume it. Are the weights equal to those of a run that never
# stopped, to the last bit?

# %% tags=["solution"]
import contextlib
import io
import tempfile
from dataclasses import replace

few = pd.concat([train[train["label"] == 1][:32], train[train["label"] == 0][:32]])
short = replace(config, epochs=2, batch_size=16)


def trained(folder, stop_after=2):
    with contextlib.redirect_stdout(io.StringIO()):
        attempt = loop.Training(short, few, few, Path(folder), images_at, data_dir, target)
        attempt.run(stop_after)
    return attempt


with tempfile.TemporaryDirectory() as straight, tempfile.TemporaryDirectory() as stopped:
    whole = trained(straight)
    trained(stopped, stop_after=1)
    resumed = trained(stopped)
states = zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True)
largest = max(float((a.double() - b.double()).abs().max()) for a, b in states)
assert largest == 0 or target.type != "cpu"
print(f"largest difference of any weight: {largest}")
