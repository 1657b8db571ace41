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
# # 2. The model and its losses
#
# | | |
# |---|---|
# | **Needs** | the manifests and images of chapter 1 (the embedded benchmark is rendered if missing) |
# | **Produces** | `02_model/`: `parameters.csv` (size of every part), `margins.csv` (margin of every group) |
# | **Time on 2 CPU cores** | under a minute |
# | **Time on one GPU** | under a minute; nothing is trained here |
#
# A deepfake detector that is right on average can be wrong more often for some groups of people. The method of this
# book separates what betrays a forgery from what a picture shows and from whom it shows, puts the last back in a
# controlled way, and trains so that the groups with the largest losses count most. This chapter builds the network and
# its six losses, piece by piece, on one batch of pictures. Training is chapter 3.
#
# At two places of the released code one step undoes another. The detector has a switch for this: `fidelity="official"`
# computes network, condition, fairness loss and score as the released code does, `fidelity="corrected"` (the default)
# as it set out to. This chapter builds the corrected one and derives what makes it necessary; chapter 7 measures what
# the released code computes instead.
#
# Source of the method: Lin et al., "Preserving Fairness Generalization in Deepfake Detection", CVPR 2024
# (arXiv 2402.17229).

# %% tags=["parameters"]
run_dir: str = "../runs/cpu"  # folder of this run, relative to notebooks/
manifests: str = "../data_manifests/synthetic"  # a folder with one sub-folder a data set
train_set: str = "ffpp"  # the data set to draw the batch from, a sub-folder of manifests
image_root: str = ""  # folder that img_path starts from; "" renders the embedded benchmark
data_dir: str = "../runs/data"  # rendered images and decoded caches, shared by runs
bias: float = 1.0  # bias knob of the embedded benchmark, 0..1
data_seed: int = 0  # of the people and captures that the embedded benchmark renders
device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", ...
seed: int = 0  # the batch, the initial weights, the triplets
backbone: str = "tf_efficientnet_lite0"  # the name of a timm model, or "tiny"
weights: str = "embedded"  # "" random, "imagenet", "embedded" (installed with the package), or a state dict's path
frozen_stages: int = 2  # first stages of the backbone that keep these weights and are shared by all encoders
image_size: int = 64  # pixels
width: int = 64  # channels of the encoders' feature map (paper: 512)
pair_count: int = 16  # pairs of a fake and a real, at least 8 (paper: 16)

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from IPython.display import display
from matplotlib.colors import LogNorm

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show
from fairdf_utils.data import batches
from fairdf_utils.data.manifests import read_split
from fairdf_utils.data.vocabulary import FORGERIES, GROUPS, scheme_of
from fairdf_utils.figures import style, training
from fairdf_utils.model import detectors, encoders, layers, losses
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.stored import choose_device
from fairdf_utils.rendered.images import image_folder

run = Run(run_dir, "02_model")
target = choose_device(device)
torch.backends.cudnn.allow_tf32 = False  # this chapter compares by hand with the package, digit by digit
sns.set_theme(style="whitegrid", palette="colorblind", rc=style.STYLE)
torch.manual_seed(seed)
print(f"torch {torch.__version__} on {target.type}")

# %% [markdown]
# ## 2.1 One batch
#
# **Why.** A batch has as many fakes as reals, fakes first, and fake $i$ is paired with real $i$: the reconstruction
# loss of section 2.10 will exchange parts inside a pair. Pictures are bytes $p$ in 0..255 on disk and travel as
# bytes; the network sees
#
# $$ x = \frac{p}{127.5} - 1 \in [-1, 1]. $$
#
# By hand, three bytes:

# %%
pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)  # one picture of one pixel
by_hand = [0 / 127.5 - 1, 51 / 127.5 - 1, 255 / 127.5 - 1]
show(batches.to_device)

# %% tags=["nbval-check-output"]
package = batches.to_device(pixels, torch.device("cpu")).flatten()
assert torch.allclose(package, torch.tensor(by_hand))
print("by hand", np.round(by_hand, 3), "  package", package.numpy().round(3))

# %% [markdown]
# Now a real batch from the training manifest. Only here the pairs are drawn so that all groups are equally likely; a
# small batch drawn as in training would hold some groups never, others many times, and there would be less to see.

# %%
train = read_split(f"{manifests}/{train_set}", "train", image_root)
scheme = scheme_of(train["group"])  # its groups in the order of their codes, here the eight
train["group"] = pd.Categorical(train["group"], scheme)  # so that a sample keeps the codes
generator = np.random.default_rng(seed)
pairs = batches.epoch_pairs(train, "balanced", generator)
while len(pairs) < pair_count:  # fewer fakes than that: they are drawn again
    pairs = np.concatenate([pairs, batches.epoch_pairs(train, "balanced", generator)])
pairs = pairs[:pair_count]
rows = train.iloc[pairs.T.reshape(-1)].reset_index(drop=True)  # fakes, then the reals they are paired with
root = image_folder(image_root, data_dir, image_size, bias, data_seed)
pictures = batches.decode(rows, root, image_size, data_dir)
order = np.arange(2 * pair_count).reshape(2, pair_count).T
batch = next(batches.batches(rows, pictures, order, pair_count, target))
assert (batch.label[:pair_count] == 1).all() and (batch.label[pair_count:] == 0).all()
assert (batch.forgery[pair_count:] == 0).all() and batch.images.abs().max() <= 1
print("images", tuple(batch.images.shape), " groups present", len(batch.group.unique()))

first = [*range(8), *range(pair_count, pair_count + 8)]  # eight fakes, then their reals
titles = [f"{rows['forgery'][row]}\n{rows['group'][row]}" for row in first]
training.image_grid(pictures[first], titles, columns=8)

# %% [markdown]
# **What you should see.** Eight fakes above, the reals they are paired with below. The two of a pair need not share
# person or group: the real is drawn at random. With the embedded benchmark the faces are drawn by a program; they are
# made to exercise the method and say nothing about real people. Alarming would be a forgery other than "real" in the
# lower row, or the same picture everywhere.
#
# ## 2.2 Three encoders
#
# **Why.** A picture mixes three kinds of information: traces of a forgery, content (pose, background, light), and the
# person's demographic appearance. The method gives each kind an encoder of its own: $E_f$ for forgery, $E_c$ for
# content, $E_d$ for demographics. They have the same architecture and separate weights; only the losses make them
# different. An encoder is a backbone $\phi$, then a matrix $W$ applied at every position (a 1 x 1 convolution), batch
# norm and ReLU:
#
# $$ h = \max\!\Big(0,\ \mathrm{BN}\big(W \phi_s(x) + b\big)\Big) \in \mathbb{R}^{C \times 8 \times 8}, \qquad
# s = \frac{\text{image size}}{8}. $$
#
# $\phi_s$ is the stage of the backbone whose stride is $s$: one step on the map is $s$ pixels in the picture. So the
# map is 8 x 8 for a picture of any size. The next sections take means and standard deviations over the map. 64
# positions are enough for that; on a 1 x 1 map a standard deviation does not exist.
#
# Where the first stages of the backbone are *frozen* (on the CPU, to save time), all encoders share them: they are one
# `stem`, with pretrained weights that nothing trains, and an encoder starts from its map instead of the picture.
#
# By hand, starting from the backbone's map:

# %%
stem = encoders.build_stem(backbone, image_size, weights, frozen_stages).to(target)
encoder = encoders.Encoder(backbone, image_size, width, weights, frozen_stages=frozen_stages).to(target)
with torch.no_grad():
    seen = stem(batch.images)  # the images themselves where no stage is frozen
    features = encoder.features(seen)  # (32, channels, 8, 8)
    matrix, bias_vector = encoder.adjust[0].weight[:, :, 0, 0], encoder.adjust[0].bias[:, None, None]
    mixed = torch.einsum("oc,nchw->nohw", matrix, features) + bias_vector  # the same matrix at every position
    variance, mean = torch.var_mean(mixed, (0, 2, 3), correction=0, keepdim=True)  # of the batch, per channel
    by_hand = ((mixed - mean) / (variance + 1e-5).sqrt()).relu()
show(encoders.Encoder, docstring=False)

# %% tags=["nbval-check-output"]
with torch.no_grad():
    assert torch.allclose(by_hand, encoder(seen), atol=1e-4)
assert by_hand.shape == (2 * pair_count, width, 8, 8)

choices = {"tiny": 64, "mobilenetv3_small_050": 64, "resnet50": 256, "efficientnet_b3": 256, "legacy_xception": 256}
table = {}
for name, size in choices.items():
    with torch.device("meta"):
        built = encoders.Encoder(name, size, width=512)
        shapes = [tuple(part(torch.zeros(1, 3, size, size)).shape[1:]) for part in (built.features, built)]
    million = sum(p.numel() for p in built.parameters()) / 1e6
    table[name] = (size, size // 8, *shapes, round(million, 2))
columns = ["image, px", "stride", "backbone's map", "encoder's map", "million weights"]
table = pd.DataFrame.from_dict(table, orient="index", columns=columns)
assert (table["encoder's map"] == (512, 8, 8)).all()
table

# %% [markdown]
# **What you should see.** Any convolutional backbone of `timm` will do, by name. The table builds some on PyTorch's
# `meta` device, which computes shapes but holds no numbers, so that even the large ones cost nothing here. Every
# backbone's map is 8 x 8, whatever the size of the picture; only the number of channels differs, and the 1 x 1
# convolution brings it to the chosen width. A backbone that has no stage of the right stride is refused with the sizes
# that would work. Xception's last number is the paper's 21.9 million parameters an encoder.
#
# ## 2.3 Disentanglement: the split blocks
#
# **Why.** Forgery features themselves mix two kinds: traces of one forgery (useful to tell FaceSwap from
# NeuralTextures, harmful on a forgery never seen) and traces that all forgeries share. Two blocks split them; a third
# turns the demographic features into a map of the same size:
#
# $$ f_s = S_s(h_f), \qquad f_a = S_a(h_f), \qquad d = S_d(h_d) \qquad \in \mathbb{R}^{C/2 \times 8 \times 8} $$
#
# with $S(h) = W_3\,\lambda(W_2\,\lambda(W_1 h + b_1) + b_2) + b_3$ at every position, where
# $\lambda(z) = \max(z, 0.01 z)$ is LeakyReLU.
# By hand, for one position of the map, $S$ is three matrix products:

# %%
block = layers.pointwise_block(6, 4, 4)
vector = torch.randn(6)  # one position of a map of 6 channels
lower, middle, upper = (layer for layer in block if hasattr(layer, "weight"))
step = F.leaky_relu(lower.weight[:, :, 0, 0] @ vector + lower.bias, 0.01)
step = F.leaky_relu(middle.weight[:, :, 0, 0] @ step + middle.bias, 0.01)
by_hand = upper.weight[:, :, 0, 0] @ step + upper.bias
show(layers.pointwise_block)

# %%
small_map = torch.randn(1, 6, 8, 8)
small_map[0, :, 3, 5] = vector
assert torch.allclose(by_hand, block(small_map)[0, :, 3, 5], atol=1e-6)
elsewhere = small_map.clone()
elsewhere[0, :, 0, 0] += 10  # another position changes, and this one does not notice:
assert torch.allclose(block(small_map)[0, :, 3, 5], block(elsewhere)[0, :, 3, 5], atol=1e-6)

# %% [markdown]
# Now the detector of this chapter. One configuration object says everything about it (chapter 3 trains with the same
# object). Dropout is off, so that two passes can be compared. The heads and 1 x 1 blocks start from Kaiming's
# initialisation, as in chapter 3.

# %%
config = TrainingConfig(
    backbone=backbone, weights=weights, frozen_stages=frozen_stages, image_size=image_size, width=width,
    reconstruction_size=image_size, initialisation="kaiming", logit_dropout=0.0,
)  # fmt: skip
detector = detectors.FairDetector(config, len(scheme)).to(target)
detector.decoder.dropout.p = 0.0

with torch.no_grad():
    seen = detector.stem(batch.images)
    h_f, h_c, h_d = (getattr(detector, part)(seen) for part in ("forgery", "content", "demographic"))
    f_s, f_a, d = detector.specific_split(h_f), detector.agnostic_split(h_f), detector.demographic_split(h_d)
    outputs = detector(batch.images)
assert h_f.shape == h_c.shape == h_d.shape == (2 * pair_count, width, 8, 8)
assert f_s.shape == f_a.shape == d.shape == (2 * pair_count, width // 2, 8, 8)
show(detectors.FairDetector.forward, docstring=False)

# %% [markdown]
# **What you should see.** The whole forward pass; the next four sections are its lines. Three maps of the full width
# become three of half the width. Nothing in the shapes separates "specific" from "agnostic": the two blocks have the
# same form, and only the losses of sections 2.8 and 2.9 pull them apart.
#
# ## 2.4 AdaIN: one map's pattern with another's statistics
#
# **Why.** Demographic and forgery features must be combined into one answer. Adaptive instance normalisation (AdaIN,
# Huang and Belongie 2017) does so without adding parameters: it keeps the spatial pattern of the first map and gives
# it the level and the contrast of the second, channel by channel. With mean $\mu$ and standard deviation $\sigma$
# over the 64 positions of one channel of one image,
#
# $$ \mathrm{AdaIN}(x, y) = \sigma(y)\,\frac{x - \mu(x)}{\sigma(x)} + \mu(y), \qquad
# \sigma(x)^2 = \frac{1}{63}\sum_{p=1}^{64} \big(x_p - \mu(x)\big)^2 + 10^{-5}. $$
#
# In the package `adain(x, y)` is `restyle` with the statistics of `y`.
# By hand, one channel of four positions. The pattern "low, low, high, high" meets the numbers 10, 20, 30, 40:

# %% tags=["nbval-check-output"]
x = np.array([1.0, 1.0, 3.0, 3.0])
y = np.array([10.0, 20.0, 30.0, 40.0])
by_hand = (x - x.mean()) / np.sqrt(x.var(ddof=1) + 1e-5) * np.sqrt(y.var(ddof=1) + 1e-5) + y.mean()
print(f"{by_hand.round(2)}  mean {by_hand.mean():.2f}  standard deviation {by_hand.std(ddof=1):.2f}")
display(show(layers.restyle), show(layers.channel_statistics))

# %%
package = layers.adain(torch.tensor(x).view(1, 1, 2, 2), torch.tensor(y).view(1, 1, 2, 2))
assert np.allclose(by_hand, package.flatten().numpy())
one_by_one = layers.adain(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
assert one_by_one.isnan().all()  # a single position has no standard deviation: why every map here is 8 x 8

fused = layers.adain(d, f_a)
maps = {"d": d, "f_a": f_a, "AdaIN(d, f_a)": fused}
statistics = {name: torch.cat([m[0, :5].mean((1, 2)), m[0, :5].std((1, 2))]).tolist() for name, m in maps.items()}
columns = pd.MultiIndex.from_product([["mean", "standard deviation"], range(5)], names=["", "channel"])
pd.DataFrame(statistics.values(), index=statistics, columns=columns).round(3)

# %% [markdown]
# **What you should see.** The table shows the first image of the batch and its first five channels. The last row
# repeats the row above it: the result has the level and contrast of $f_a$, and from $d$ only *where* it is high and
# low.
#
# ## 2.5 Fusion: why pooling must wait
#
# **Why.** The detector's answer is meant to know the demographic features, so that it can allow for them. A head pools
# its map: it takes the mean over space. But for every channel
#
# $$ \mu\big(\mathrm{AdaIN}(d, f_a)\big)
#  = \sigma(f_a)\,\frac{\mu(d) - \mu(d)}{\sigma(d)} + \mu(f_a) = \mu(f_a). $$
#
# Pooled right after AdaIN, as in the released code, the demographic map is gone. Not weakened: absent from the formula.
# By hand, with two demographic maps that could not differ more:

# %% tags=["nbval-check-output"]
for name, x in {"a ramp": np.arange(4.0), "a spike": np.array([0.0, 0.0, 0.0, 900.0])}.items():
    by_hand = (x - x.mean()) / x.std(ddof=1) * y.std(ddof=1) + y.mean()
    print(f"d = {name:8} AdaIN(d, f_a) = {by_hand.round(1)!s:26} pooled {by_hand.mean():.1f}")
show(detectors.FairDetector._fuse)

# %%
pooled = fused.mean((2, 3))
assert torch.allclose(pooled, f_a.mean((2, 3)), atol=1e-5)
assert torch.allclose(layers.adain(torch.randn_like(d), f_a).mean((2, 3)), pooled, atol=1e-5)
with torch.no_grad():
    ours, noisy = (detector._fuse(each, f_a).mean((2, 3)) for each in (d, torch.randn_like(d)))
assert torch.allclose(ours, outputs.fused.pooled, atol=1e-4)
print(f"d = noise moves the pooled AdaIN(d, f_a) by at most {(pooled - f_a.mean((2, 3))).abs().max():.0e}")
print(f"and the pooled map of the corrected detector by up to {(ours - noisy).abs().max():.0e}")

# %% [markdown]
# **What you should see.** Three 1 x 1 convolutions with LeakyReLU between them look at the map before it is pooled. A
# bend at zero makes the mean depend on *how* the values are spread, not only on their mean. (The bend is essential:
# exercise 1.) Without it noise in the place of $d$ moves the pooled map by rounding errors only; with it, by several
# orders of magnitude more. Chapter 7 follows this through the whole released network, with its gradients.
#
# ## 2.6 The decoder and its condition
#
# **Why.** How do we know that the three encoders keep different things and lose nothing? By drawing the picture again
# from the parts. A decoder $G$ gets the forgery features $(f_s, f_a)$ and a *condition* that should carry everything
# else, content and demographics. It doubles the map three times; in every stage the drawn map $c$ takes the statistics
# of the forgery map $f$:
#
# $$ c_{k+1} = \mathrm{conv}_k\big(\mathrm{up}(\mathrm{AdaIN}(c_k, f_k))\big), \qquad
#  f_{k+1} = \mathrm{conv}_k\big(\mathrm{up}(f_k)\big), \qquad k = 0, 1, 2, $$
#
# and $\tanh$ of a last 1 x 1 convolution of $c_3$ is the picture. The condition is
# $c_0 = S_c\big(\mathrm{AdaIN}(h_c, h_d)\big)$: the content lends its *pattern* and the demographics their statistics,
# and a block with bends writes both into the pattern. It has to, because AdaIN after AdaIN forgets the statistics that
# the first one gave: $\mathrm{AdaIN}(\mathrm{AdaIN}(h_d, h_c), f) = \mathrm{AdaIN}(h_d, f)$. The released condition
# $\mathrm{AdaIN}(h_d, h_c)$ loses the content this way (chapter 7).
#
# By hand it is one call for each pair of condition and forgery map; the package draws all four of a batch in one pass:


# %%
def enlarge(maps, size):
    """Bilinear enlargement to size x size."""
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=True)


def draw(decoder, condition, forgery):
    """Pictures of the conditions, each with the forgery map of the same row."""
    for stage, size in zip(decoder.stages, (16, 32, 64), strict=True):
        size = min(size, image_size)
        condition = stage(enlarge(layers.adain(condition, forgery), size))
        forgery = stage(enlarge(forgery, size))
    return enlarge(decoder.to_rgb(condition), image_size).tanh()


display(show(detectors.FairDetector._reconstruct), show(layers.Decoder.forward, docstring=False))

# %%
with torch.no_grad():
    forgery_map = torch.cat([f_s, f_a], 1)  # (32, width, 8, 8)
    partners = torch.cat([forgery_map[pair_count:], forgery_map[:pair_count]])  # fake i <-> real i
    condition = detector.condition(layers.adain(h_c, h_d))
    own = draw(detector.decoder, condition, forgery_map)
    cross = draw(detector.decoder, condition, partners)
assert torch.allclose(own, outputs.self_reconstruction, atol=1e-5)
assert torch.allclose(cross, outputs.cross_reconstruction, atol=1e-5)
one, two, three = torch.randn(3, 4, width, 8, 8)
assert torch.allclose(layers.adain(layers.adain(one, two), three), layers.adain(one, three), atol=1e-3)
print("own", tuple(own.shape), " cross", tuple(cross.shape), f" values {own.min():.2f} to {own.max():.2f}")

# %% [markdown]
# **What you should see.** Two reconstructions of every picture, one with its own forgery map and one with its
# partner's. The decoder is untrained, so its pictures are grey and not worth looking at.
#
# ## 2.7 Four heads
#
# **Why.** Each map has to answer a question: which forgery ($f_s$, 6 classes), real or fake ($f_a$), which group
# ($d$, 8 classes), and real or fake from the fused map: the detector's answer. A head takes the mean over space and
# applies two linear layers,
#
# $$ z = W_2\,\lambda\big(W_1\,\mu(m) + b_1\big) + b_2 , $$
#
# and also returns the pooled vector $\mu(m)$, which the contrastive loss needs. By hand, for the agnostic head:

# %%
with torch.no_grad():
    lower, _, upper, _ = detector.agnostic.layers
    by_hand = F.leaky_relu(f_a.mean((2, 3)) @ lower.weight.T + lower.bias, 0.01) @ upper.weight.T + upper.bias
show(layers.Head)

# %% tags=["nbval-check-output"]
heads = {"specific": len(FORGERIES), "agnostic": 2, "demographic": len(scheme), "fused": 2}
assert torch.allclose(by_hand, outputs.agnostic.logits, atol=1e-3)
for name, classes in heads.items():
    head = getattr(outputs, name)
    assert head.logits.shape == (2 * pair_count, classes)
    assert head.pooled.shape == (2 * pair_count, width // 2)
    print(f"{name:12} logits {tuple(head.logits.shape)}  pooled {tuple(head.pooled.shape)}")

# %% [markdown]
# **What you should see.** Four heads, each with its own number of classes, all with pooled vectors of half the width.
#
# ## 2.8 Cross-entropy, twice
#
# **Why.** The agnostic head must tell real from fake ($L_\mathrm{agn}$), the specific head the forgery
# ($L_\mathrm{spe}$); this is what gives the two split blocks different jobs. For logits $z$ and the true class $t$
#
# $$ \ell = -\log \frac{e^{z_t}}{\sum_k e^{z_k}}, \qquad L = \frac{1}{2B}\sum_i \ell_i . $$
#
# By hand, two images and three classes:

# %%
z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
t = torch.tensor([0, 2])
by_hand = torch.stack([-(z[i].exp() / z[i].exp().sum())[t[i]].log() for i in range(2)])
show(losses.cross_entropy)

# %%
assert torch.allclose(by_hand, losses.cross_entropy(z, t))
print("by hand", by_hand.numpy().round(3), "- a detector that knows nothing: log 3 =", round(float(np.log(3)), 3))
for name, truth in {"agnostic": batch.label, "fused": batch.label, "specific": batch.forgery}.items():
    value = losses.cross_entropy(getattr(outputs, name).logits, truth).mean()
    print(f"{name:9} {value:.2f}   for comparison log {heads[name]} = {np.log(heads[name]):.2f}")

# %% [markdown]
# **What you should see.** Untrained heads are somewhat worse than a detector that knows nothing, because Kaiming's
# initialisation starts with visible logits instead of zeros; by how much depends on the draw of the weights. Far larger
# values, or values near zero before training, would be alarming.
#
# ## 2.9 Contrastive loss: triplets
#
# **Why.** Cross-entropy only asks that classes fall on the right side of a line. The contrastive loss asks that pooled
# vectors of the same kind lie close together. For an anchor $a$, a positive $p$ of the same kind and a negative $n$ of
# the other class,
#
# $$ \ell(a, p, n) = \max\big(0,\ \lVert a - p\rVert - \lVert a - n\rVert + 3\big). $$
#
# It is zero when the negative is at least 3 further away than the positive. "Same kind" means same label for the
# agnostic vectors and same forgery for the specific ones; negatives are of the other label. Each of the two is
# averaged over the fake anchors and over the real anchors, and the four means are added.
#
# Positives and negatives are drawn from the batch at random. For every image and every candidate draw a number, cross
# out the candidates of the wrong kind, and keep the highest: every allowed candidate is equally likely, without a
# loop. By hand, three points in the plane:

# %%
a, p, n = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 6.0]])
by_hand = max(0.0, (3**2 + 4**2) ** 0.5 - 6.0 + 3.0)  # 5 - 6 + 3
assert losses.triplet(a, p, n).item() == by_hand == 2.0
display(show(losses.triplet), show(losses.draw_triplets, docstring=False), show(losses.contrastive))

# %%
triplets = losses.draw_triplets(batch.label, batch.forgery, torch.Generator().manual_seed(seed))
assert (batch.label[triplets.agnostic_positive] == batch.label).all()
assert (batch.forgery[triplets.specific_positive] == batch.forgery).all()
for negative in (triplets.agnostic_negative, triplets.specific_negative):
    assert (batch.label[negative] != batch.label).all()

by_hand = 0.0
by_kind = (outputs.agnostic.pooled, *triplets[:2]), (outputs.specific.pooled, *triplets[2:])
for vectors, positive, negative in by_kind:
    hinge = (vectors - vectors[positive]).norm(dim=1) - (vectors - vectors[negative]).norm(dim=1) + 3
    by_hand += hinge.relu()[batch.label == 1].mean() + hinge.relu()[batch.label == 0].mean()
contrastive = losses.contrastive(outputs.agnostic.pooled, outputs.specific.pooled, triplets)
assert torch.allclose(by_hand, contrastive, rtol=1e-4)
kinds = [rows["forgery"][int(i)] for i in (0, *(each[0] for each in triplets))]
print("anchor {}; agnostic: positive {}, negative {}; specific: positive {}, negative {}".format(*kinds))
print(f"loss of the batch {contrastive:.2f}; four hinges at the margin would be 12")

# %% [markdown]
# **What you should see.** The specific positive is of the anchor's own forgery, the agnostic one of any forgery. The
# loss starts near 12, because before training the two distances of a triplet are about equal and each of the four
# hinges is at its margin of 3.
#
# ## 2.10 Reconstruction loss: four ways
#
# **Why.** Drawing a picture from its own parts shows that nothing is lost. Drawing the fake's condition with the
# *real's* forgery map must still give the fake: then person and background came through the condition, and the
# forgery map was not needed for them. With condition $c$ and forgery map $f$ of fake ($F$) and real ($R$),
#
# $$ L_\mathrm{rec} = |x_F - G(f_F, c_F)| + |x_R - G(f_R, c_R)| + |x_F - G(f_R, c_F)| + |x_R - G(f_F, c_R)|, $$
#
# each a mean over pixels, channels and pairs. By hand, with the reconstructions of section 2.6:

# %%
fake, real = slice(0, pair_count), slice(pair_count, None)
four = [(batch.images[half] - drawn[half]).abs().mean() for drawn in (own, cross) for half in (fake, real)]
show(losses.reconstruction)

# %%
package = losses.reconstruction(batch.images, outputs.self_reconstruction, outputs.cross_reconstruction)
assert torch.allclose(sum(four), package, rtol=1e-4)
print("fake, real, fake with the real's forgery map, real with the fake's:", [f"{v:.3f}" for v in four])
print(f"loss {package:.3f};  a grey picture would cost {4 * batch.images.abs().mean():.3f}")

# %% [markdown]
# **What you should see.** Four similar numbers, and a sum of the size of what drawing plain grey would cost: the
# decoder has learned nothing yet.
#
# ## 2.11 Label-distribution-aware margin loss: a margin for rare groups
#
# **Why.** The demographic head learns the eight groups, and some are thirty times rarer than others. Plain
# cross-entropy fits the frequent groups first. The label-distribution-aware margin loss (Cao et al. 2019) demands of
# an image of group $g$ that its own logit wins by a margin $D_g$, larger for rare groups:
#
# $$ D_g = 0.5\, \frac{n_g^{-1/4}}{\max_h n_h^{-1/4}}, \qquad
# L_\mathrm{dem} = \frac{1}{2B}\sum_i
# -\log \frac{e^{30 (z_{g} - D_{g})}}{e^{30 (z_{g} - D_{g})} + \sum_{k \ne g} e^{30 z_k}}
# \quad \text{with } z = z_i,\ g = g_i . $$
#
# $n_g$ counts the training images of the group. The power $-1/4$ comes from a generalisation bound: the error of a
# group falls with $1 / (D_g \sqrt{n_g})$, and sharing a fixed total margin so that the sum of these is smallest gives
# $D_g \propto n_g^{-1/4}$. By hand, with the counts of FF++'s training set, and for one image of "male-white":

# %%
ffpp_counts = np.array([2475, 25443, 1468, 4163, 8013, 31281, 1111, 2185])  # in the order of GROUPS
margins_by_hand = 0.5 * ffpp_counts**-0.25 / (ffpp_counts**-0.25).max()
z, group = torch.tensor([[0.3, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]]), torch.tensor([1])
shifted = 30 * torch.tensor([0.3, 0.5 - 0.2286, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])  # its own logit pays the margin
by_hand = -(shifted.exp() / shifted.exp().sum())[1].log()
display(show(losses.ldam_margins), show(losses.ldam))

# %%
assert np.allclose(margins_by_hand, losses.ldam_margins(ffpp_counts).numpy())
assert torch.isclose(by_hand, losses.ldam(z, group, ffpp_counts), rtol=1e-3)
print(f"one image: loss {by_hand:.3f} with its margin, {losses.cross_entropy(30 * z, group).item():.3f} without")

counts = torch.from_numpy(batches.group_sizes(train)).to(target)  # of this run's own training manifest
shifted = outputs.demographic.logits.clone()
shifted[torch.arange(2 * pair_count), batch.group] -= losses.ldam_margins(counts)[batch.group]
demographic_by_hand = losses.cross_entropy(30 * shifted, batch.group).mean()
assert torch.allclose(demographic_by_hand, losses.ldam(outputs.demographic.logits, batch.group, counts), rtol=1e-4)
for scale in (30.0, 5.0, 1.0):
    value = losses.ldam(outputs.demographic.logits, batch.group, counts, scale)
    print(f"the batch, scale {scale:4.0f}: loss {value:5.2f}   (log {len(scheme)} = {np.log(len(scheme)):.2f})")

# %%
margins = {"FF++": pd.Series(ffpp_counts, GROUPS)} if scheme == GROUPS else {}
margins["this manifest"] = pd.Series(counts.cpu(), scheme)
margins = pd.concat(margins, names=["training set", "group"]).rename("images").reset_index()
by_set = margins.groupby("training set", sort=False)["images"]
margins["margin"] = by_set.transform(lambda n: losses.ldam_margins(n.tolist()))
figure, axis = plt.subplots(figsize=(9, 3.2))
sns.barplot(margins, x="group", y="margin", hue="training set", ax=axis)
for bars, (_, images) in zip(axis.containers, by_set, strict=True):
    axis.bar_label(bars, images.astype(str), fontsize=7)
axis.tick_params(axis="x", labelsize=8)
axis.set(xlabel="", ylim=(0, 0.6), title="Margin of each group; above the bars: training images")
plt.close(figure)
figure

# %% [markdown]
# **What you should see.** The rarest group has the margin 0.5 in each training set; the fourth root is gentle, so that
# FF++'s most frequent group still has almost half of that. The embedded benchmark copies FF++'s proportions, so the
# bars nearly agree although the counts do not; with another corpus they differ. So the counts always come from the
# manifest, never from a constant. The scale matters more than one would think: 30 multiplies the untrained logits, and
# the loss starts far above $\log 8$. With a small network chapter 3 uses 5.
#
# ## 2.12 Conditional value at risk: the worst share
#
# **Why.** A mean loss can fall while a minority's loss rises. A loss that looks at the worst only would chase single
# odd images. The conditional value at risk (CVaR) is the middle: the mean of the worst share $\alpha$ of $n$ values,
# the last one counted by the fraction that is left. It is also the minimum of a simple function of a threshold $\eta$
# (Rockafellar and Uryasev 2000):
#
# $$ \mathrm{CVaR}_\alpha(\ell) = \min_\eta\ \eta + \frac{1}{\alpha n} \sum_{i=1}^{n} \max(0, \ell_i - \eta) . $$
#
# The function is a chain of straight lines with a bend at every $\ell_i$. A chain of lines is lowest at a bend, so the
# best $\eta$ is one of the values, and no search is needed. By hand, five losses and $\alpha = 0.5$: the worst half is
# two and a half values.

# %%
five = torch.tensor([0.2, 3.0, 0.5, 1.6, 0.9])
worst_share = (3.0 + 1.6 + 0.5 * 0.9) / 2.5
bends = [eta + (five - eta).relu().sum().item() / (0.5 * 5) for eta in five.tolist()]
display(show(losses.cvar), show(losses.worst_weights))

# %% tags=["nbval-check-output"]
print(f"mean of the worst 2.5 values {worst_share:.2f}, lowest of the five bends {min(bends):.2f}")
assert np.allclose([worst_share, min(bends)], losses.cvar(five, 0.5).item())
assert torch.isclose(losses.cvar(five, 1.0), five.mean())
assert torch.isclose(losses.cvar(five, 1e-6), five.max())
leaf = five.clone().requires_grad_()
(weight,) = torch.autograd.grad(losses.cvar(leaf, 0.5), leaf)
assert torch.allclose(weight, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5]) / 2.5)  # the worst share, nothing else

# %%
figure, axis = plt.subplots(figsize=(8, 3.4))
eta = torch.linspace(-0.3, 3.4, 400)
for alpha, colour in zip((0.9, 0.5, 0.3), sns.color_palette(), strict=False):
    axis.plot(eta, eta + (five - eta[:, None]).relu().mean(1) / alpha, color=colour, label=f"share {alpha}")
    best = min(five.tolist(), key=lambda e, alpha=alpha: e + (five - e).relu().mean().item() / alpha)
    axis.plot(best, losses.cvar(five, alpha), "o", color=colour)
sns.rugplot(x=five, height=0.06, lw=2, color="black", ax=axis)
axis.set(title="CVaR is the lowest point of each curve (dot)", ylabel="objective", ylim=(0, 4.5))
axis.set_xlabel("threshold eta (strokes: the five losses)")
axis.legend()
plt.close(figure)
figure

# %% [markdown]
# **What you should see.** Three chains of straight lines that bend only above the strokes. Each dot, computed by the
# package with one sort, sits on a bend and at the bottom of its curve. A smaller share moves the dot to the right and
# up, towards the largest loss.
#
# ## 2.13 The fairness loss: CVaR inside the groups, then across them
#
# **Why.** Fairness is about groups, not about images. So the worst share is taken twice (Ju et al. 2024): inside each
# group, where 0.9 leaves out the easiest images, and then across the $G$ groups present in the batch, where 0.5 keeps
# the worse half. With the fused head's cross-entropy $\ell_i$:
#
# $$ L_g = \mathrm{CVaR}_{0.9}\big(\{\ell_i : i \in g\}\big), \qquad
# L_\mathrm{fair} = \mathrm{CVaR}_{0.5}\big(\{L_1, \dots, L_G\}\big). $$
#
# By hand, six images of three groups:

# %%
loss = torch.tensor([2.0, 0.4, 0.1, 1.6, 0.8, 0.3])
group = torch.tensor([0, 0, 0, 4, 4, 7])  # male-asian, female-asian, female-others
inside = [
    (2.0 + 0.4 + 0.7 * 0.1) / 2.7,  # worst 2.7 of 3
    (1.6 + 0.8 * 0.8) / 1.8,  # worst 1.8 of 2
    (0.9 * 0.3) / 0.9,
]  # worst 0.9 of 1: the image itself
by_hand = (inside[1] + 0.5 * inside[0]) / 1.5  # worst 1.5 of 3 groups
show(losses.group_cvar)

# %% [markdown]
# On the batch, how much gradient does each group receive? Summed over the images of the group, and sorted by $L_g$:

# %%
assert np.isclose(by_hand, losses.group_cvar(loss, group).item())
print(f"six images: inside {np.round(inside, 3)}, across {by_hand:.3f}, plain mean {loss.mean():.3f}")

per_image = losses.cross_entropy(outputs.fused.logits, batch.label).detach().requires_grad_()
(gradient,) = torch.autograd.grad(losses.group_cvar(per_image, batch.group, groups=batch.groups), per_image)
of_group = {code: batch.group == code for code in batch.group.unique().tolist()}
shares = pd.DataFrame(
    {
        "group": [scheme[code] for code in of_group],
        "L_g": [losses.cvar(per_image[images], 0.9).item() for images in of_group.values()],
        "gradient": [gradient[images].sum().item() for images in of_group.values()],
    }
).sort_values("L_g", ascending=False)
worse_half = shares["gradient"].iloc[: len(shares) // 2]
assert np.isclose(shares["gradient"].sum(), 1, atol=1e-5)
assert np.allclose(worse_half, 2 / len(shares), rtol=1e-4)
shares.round(3)

# %% [markdown]
# **What you should see.** The gradient is spread evenly over the worse half of the groups, by an exact sort. The
# released code searches $\eta$ across the groups on a smoothed objective; its search stops early, so that hardly more
# than the worst group gets any gradient (`losses.official_group_cvar`, derived in chapter 7). A batch of 32 has a
# handful of images a group, so which group is the worst is partly chance, and a loss that hears one group follows that
# chance.
#
# ## 2.14 The whole loss, and who learns from what
#
# **Why.** The parts pull in different directions; the weights of the paper say how hard:
#
# $$ L = L_\mathrm{agn} + 0.1\,L_\mathrm{spe} + 0.3\,L_\mathrm{rec} + 0.05\,L_\mathrm{con} + 0.1\,L_\mathrm{dem}
#  + L_\mathrm{fair} . $$
#
# By hand, from the pieces of this chapter:

# %%
by_hand = {
    "agnostic": losses.cross_entropy(outputs.agnostic.logits, batch.label).mean(),
    "specific": losses.cross_entropy(outputs.specific.logits, batch.forgery).mean(),
    "reconstruction": sum(four),
    "contrastive": contrastive,
    "demographic": demographic_by_hand,
    "fairness": losses.group_cvar(per_image, batch.group, groups=batch.groups),
}
weights = dict(zip(by_hand, (1.0, 0.1, 0.3, 0.05, 0.1, 1.0), strict=True))
show(losses.fairdf_terms, docstring=False)

# %%
package = losses.fairdf_terms(outputs, batch, triplets, counts, config)
assert package.keys() == by_hand.keys() and weights == {name: config.weight(name) for name in weights}
assert all(torch.allclose(package[name], by_hand[name], rtol=1e-4) for name in weights)
table = pd.DataFrame({"term": {name: package[name].item() for name in weights}, "weight": weights})
table["weight x term"] = table["term"] * table["weight"]
print(f"L = {table['weight x term'].sum():.3f}")
table.round(3)

# %% [markdown]
# Which encoder learns from which term? The norm of the gradient of each weighted term with respect to the weights of
# each encoder answers that for the whole network at once:


# %%
def gradient_norms(loss, parts):
    """Norm of a loss's gradient with respect to all weights of each part; 0 for a part it does not see."""
    trained = [(part, w) for part in parts for w in getattr(detector, part).parameters() if w.requires_grad]
    gradients = torch.autograd.grad(loss, [w for _, w in trained], retain_graph=True, allow_unused=True)
    squares = dict.fromkeys(parts, 0.0)
    for (part, _), gradient in zip(trained, gradients, strict=True):
        squares[part] += 0.0 if gradient is None else float((gradient**2).sum())
    return {part: square**0.5 for part, square in squares.items()}


terms = losses.fairdf_terms(detector(batch.images), batch, triplets, counts, config)
weighted = {name: config.weight(name) * term for name, term in terms.items()}
weighted["whole loss"] = sum(weighted.values())
norms = {name: gradient_norms(term, ("forgery", "content", "demographic")) for name, term in weighted.items()}
norms = pd.DataFrame(norms).T

figure, axis = plt.subplots(figsize=(6, 3.8))
sns.heatmap(norms.where(norms > 0), annot=True, fmt=".0e", norm=LogNorm(), cmap="viridis", linewidths=1, ax=axis)
axis.set(title="Gradient norm of each weighted term into each encoder", xlabel="encoder")
axis.grid(False)
plt.close(figure)
figure

# %% [markdown]
# **What you should see.** The fairness loss reaches the demographic encoder and the reconstruction reaches the content
# encoder: what sections 2.5 and 2.6 were about. White cells have no path from the term to the encoder, which alone is
# no fault: the contrastive loss, for instance, has no business in the demographic encoder. In the released code two
# more cells are empty but for rounding, which chapter 7 shows beside these.
#
# ## 2.15 What the answer needs
#
# **Why.** Training needs everything. The answer for one picture needs only what reaches the fused head. Its probability
# is
#
# $$ P(\text{fake}) = \frac{e^{z_1}}{e^{z_0} + e^{z_1}} , $$
#
# and a picture is called fake when it is at least 0.5. By hand, a picture with more evidence for real than for fake:

# %%
z_real, z_fake = 2.0, 0.5
by_hand = np.exp(z_fake) / (np.exp(z_real) + np.exp(z_fake))
assert np.isclose(by_hand, detectors.score(torch.tensor([z_real, z_fake])).item())
show(detectors.FairDetector.detect)

# %% [markdown]
# Which parts does `detect` use? Those whose weights have a gradient of its result. And it must give the same answer
# as the training pass, in evaluation mode, for a batch of any composition:

# %%
detector.eval()
with torch.no_grad():
    in_training, few = detector(batch.images).fused.logits, detector.detect(batch.images[:3])
answer = detector.detect(batch.images)
assert torch.allclose(answer, in_training, atol=1e-3) and torch.allclose(answer[:3], few, atol=1e-3)
parts = [name for name, _ in detector.named_children()]
used = {part for part, norm in gradient_norms(answer.sum(), parts).items() if norm > 0}
assert used == {"forgery", "agnostic_split", "demographic", "demographic_split", "fusion", "fused"}

with torch.device("meta"):
    papers = detectors.FairDetector(TrainingConfig(weights=""))
parameters = pd.DataFrame(index=pd.Index(parts, name="part"))
for name, built in {f"{backbone}, width {width}": detector, "legacy_xception, width 512": papers}.items():
    parameters[name] = [sum(p.numel() for p in getattr(built, part).parameters()) for part in parts]
parameters["in the answer"] = ["yes" if part in used else "" for part in parts]
parameters

# %% [markdown]
# **What you should see.** The answer needs two encoders, two split blocks, the fusion and one head, and before them the
# stem where stages are frozen: no gradient reaches its weights, so the table does not mark it. It does not need the
# content encoder, the decoder or the other heads, so `detect` does not run them. The released detector answers with one
# encoder alone and another form of the score (chapter 7).
#
# ## Save

# %%
parameters.to_csv(run.path("parameters.csv"))
margins.to_csv(run.path("margins.csv"), index=False)
run.finish(device=target.type, read=[f"{manifests}/{train_set}/{file}train.csv" for file in ("fake", "real")])

# %% [markdown]
# ## Summary
#
# - Three encoders of one architecture give 8 x 8 maps; split blocks, heads and losses give them different jobs.
# - The mean over space of $\mathrm{AdaIN}(d, f_a)$ is the mean of $f_a$. Pooling at once makes the answer blind to the
#   demographic features; a block with bends between the two repairs it.
# - AdaIN after AdaIN forgets the statistics that the first one gave; content as pattern instead of statistics survives.
# - The worst share needs one sort and no search.
# - The answer needs two encoders of three.
#
# ## Exercises
#
# **1.** Is one 1 x 1 convolution between AdaIN and pooling enough to repair the fusion? Argue with the equation of
# section 2.5, then test it.

# %% tags=["solution"]
# A 1 x 1 convolution is linear, so it commutes with the mean: mean(W m + b) = W mean(m) + b. Demographics stay lost.
linear = torch.nn.Conv2d(width // 2, width // 2, 1).to(target)
stacks = {"linear": linear, "LeakyReLU, linear": torch.nn.Sequential(torch.nn.LeakyReLU(), linear)}
with torch.no_grad():
    for name, layer in stacks.items():
        pooled, noisy = (layer(layers.adain(m, f_a)).mean((2, 3)) for m in (d, torch.randn_like(d)))
        change = (pooled - noisy).abs().max() / pooled.std()
        print(f"{name:23} change with d = noise: {change.item():.0e} of the spread")

# %% [markdown]
# **2.** A group has three images in the batch. Below which share does the CVaR inside the group look at its worst image
# only? Check with the gradient, just below and just above.

# %% tags=["solution"]
# The worst share is alpha * 3 values. Up to one value, alpha <= 1/3, the worst image is all there is.
for alpha in (0.33, 0.34):
    leaf = torch.tensor([0.2, 1.5, 0.7], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.cvar(leaf, alpha), leaf)
    assert (gradient > 0).sum() == (1 if alpha < 1 / 3 else 2)
    print(f"share {alpha}: weights {gradient.numpy().round(3)}")
