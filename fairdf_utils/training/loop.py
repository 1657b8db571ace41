"""Training: one step, the epochs, checkpoints, resuming, in one process or several.

Any of `TRAINING_METHODS` is trained on the same batches with the same budget. Everything random in an epoch comes from
(seed, epoch) and everything random in a step from a seed drawn for it, so the two passes of SAM see the same dropout
masks and triplets, and a run resumed at an epoch goes on exactly as if it had never stopped.
"""

import ast
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from fairdf_utils import progress
from fairdf_utils.data.batches import Batch, batches, decode, epoch_pairs, epoch_partners, group_sizes, to_device
from fairdf_utils.data.vocabulary import FORGERIES, scheme_of
from fairdf_utils.evaluation.scoring import predict, score_table
from fairdf_utils.fairness.metrics import fairness_metrics
from fairdf_utils.files import replacing
from fairdf_utils.model import losses
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import Outputs, build
from fairdf_utils.model.encoders import frozen_batch_norm
from fairdf_utils.model.layers import HeadOutput
from fairdf_utils.model.stored import choose_precision, save_detector
from fairdf_utils.training import distributed
from fairdf_utils.training.sam import SAM

CHECK_EVERY = 50  # steps between two looks at the losses: each look makes the host wait for the device
PUBLISHED = "best.safetensors"
STATEFUL = ("model", "optimizer", "schedule")  # attributes of `Training` that have a state_dict
WRITTEN = (PUBLISHED, "last.pt", "previous.pt", "history.csv", "tensorboard")


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to do."""


def build_optimizer(
    config: TrainingConfig, model: nn.Module, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer, wrapped in SAM where asked, and its schedule, which advances once a step."""
    base, options = torch.optim.AdamW, {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        base, options = torch.optim.SGD, options | {"momentum": config.momentum}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = SAM(parameters, base, rho=config.rho, **options) if config.sam else base(parameters, **options)
    scheduled = optimizer.base if config.sam else optimizer  # SAM shares its parameter groups with its base
    if config.schedule == "step":
        return optimizer, torch.optim.lr_scheduler.StepLR(scheduled, 60 * steps_per_epoch, gamma=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(scheduled, config.epochs * steps_per_epoch)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, weighted_terms: Callable[[], dict[str, Tensor]], seed: int
) -> dict[str, Tensor]:
    """One update; with SAM, two passes over the same function (same dropout masks, frozen batch-norm statistics).

    `weighted_terms` is the forward pass and returns the terms whose sum is the loss; `seed` decides its dropout masks.
    Returns the terms at the weights before the update, as detached scalars.
    """

    def backward() -> dict[str, Tensor]:
        torch.manual_seed(seed)
        optimizer.zero_grad()
        terms = weighted_terms()
        torch.stack(list(terms.values())).sum().backward()
        return {name: value.detach() for name, value in terms.items()}

    terms = backward()
    if isinstance(optimizer, SAM):
        optimizer.first_step()
        with frozen_batch_norm(model):
            backward()
        optimizer.second_step()
    else:
        optimizer.step()
    return terms


def batch_step(
    config: TrainingConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    seed: int,
    group_counts: Tensor,
) -> dict[str, Tensor]:
    """`training_step` on one batch in the configuration's precision; `seed` decides dropout masks and triplets."""
    triplets = losses.draw_triplets(batch.label, batch.forgery, torch.Generator().manual_seed(seed))

    def weighted_terms() -> dict[str, Tensor]:
        with torch.autocast(batch.label.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            return objective(config, model, batch, triplets, group_counts)

    return training_step(model, optimizer, weighted_terms, seed)


def objective(
    config: TrainingConfig, model: nn.Module, batch: Batch, triplets: losses.Triplets, group_counts: Tensor
) -> dict[str, Tensor]:
    """Terms of the loss, weighted: scalars whose sum is minimised (Lin et al. 2024, overall objective).

    With several processes, `batch.images` is this process's share; the logits of all are brought together.
    """
    if config.method in ("fairdf", "ucf"):
        outputs = gather_outputs(model(batch.images, batch.stem_maps))
        terms = losses.fairdf_terms(outputs, batch, triplets, group_counts, config)
        return {name: value * config.weight(name) for name, value in terms.items()}
    errors = losses.cross_entropy(distributed.all_gather(model(batch.images, batch.stem_maps)), batch.label)  # (2B,)
    if config.method == "dag_fdd":
        return {"detection": losses.cvar(errors, config.alpha_across)}
    if config.method == "daw_fdd":
        return {"detection": losses.group_cvar(errors, batch.group, config.alpha_in, config.alpha_across, batch.groups)}
    return {"detection": errors.mean()}


def gather_outputs(outputs: Outputs) -> Outputs:
    """Logits and pooled vectors of all processes; reconstructions stay where they are, their loss is a mean."""
    heads = {name: value for name, value in vars(outputs).items() if isinstance(value, HeadOutput)}
    return replace(outputs, **{name: HeadOutput(*map(distributed.all_gather, head)) for name, head in heads.items()})


class Training:
    """The state of one training run: what a checkpoint holds, and the epochs that move it on.

    `train` and `validation` are canonical manifests whose img_path starts from `image_root`; `data_dir` keeps the
    decoded images, `folder` gets checkpoints and history (with `tensorboard` also as TensorBoard scalars).
    """

    def __init__(
        self,
        config: TrainingConfig,
        train: pd.DataFrame,
        validation: pd.DataFrame,
        folder: Path,
        image_root: Path,
        data_dir: str | Path,
        device: torch.device,
        tensorboard: bool = False,
    ) -> None:
        self.device = distributed.init_process_group(device)
        config = replace(config, precision=choose_precision(config.precision, self.device))
        self.config, self.train, self.validation, self.folder = config, train, validation, folder
        self.main, processes = distributed.rank() == 0, distributed.world_size()  # the main process prints and writes
        if config.batch_size % processes:
            raise TrainingError(f"batch_size {config.batch_size} must be a multiple of the {processes} processes")
        unnamed = sorted(set(train["forgery"]) - set(FORGERIES))
        if unnamed and config.method in ("fairdf", "ucf"):
            raise TrainingError(
                f"{config.method} learns to tell forgeries apart, and the training set has fakes of unknown forgery "
                f"({', '.join(unnamed)}); train on FF++, name the forgeries, or choose another method"
            )
        self.groups = scheme_of(train["group"])
        if untrained := sorted(set(validation["group"]) - set(self.groups)):
            raise TrainingError(
                f"the validation set has groups that the training set's scheme ({', '.join(self.groups)}) lacks: "
                f"{', '.join(untrained)}; give both sets groups of one scheme"
            )
        with distributed.rank_zero_first():
            self.train_images = decode(train, image_root, config.image_size, data_dir)
            self.validation_images = decode(validation, image_root, config.image_size, data_dir)
        model = build(config, len(self.groups)).to(self.device, memory_format=torch.channels_last)
        self.parallel = distributed.parallel(model)
        self.model = self.parallel.module if processes > 1 else self.parallel
        self.stem_maps = None
        if config.frozen_stages:
            with distributed.rank_zero_first():
                self.stem_maps = stem_maps(self.model.stem, self.train_images, data_dir)
        self.steps_per_epoch = max(1, int((train["label"] == 1).sum()) // config.batch_size)
        self.optimizer, self.schedule = build_optimizer(config, self.model, self.steps_per_epoch)
        self.history: list[dict[str, float]] = []
        data = ((train, self.train_images), (validation, self.validation_images))
        self.origin = {
            "config": asdict(config),
            "data": _digest(*data),
            "code": _digest_of_code(),
        }  # a checkpoint's must agree
        self.tensorboard, self.board = tensorboard, None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)

    @property
    def finished(self) -> bool:
        """All epochs are done, or the validation AUC has not risen for the last `patience` ones."""
        config = self.config
        flat = bool(config.patience and self.history) and self.epoch - self.best_epoch >= config.patience
        return flat or self.epoch >= config.epochs

    def run(self, stop_after: int | None = None) -> pd.DataFrame:
        """Train until `finished`, or `stop_after` epochs are done, from the last checkpoint on if there is one.

        Returns one row an epoch: what `train_epoch` and `validate` return.
        """
        self.resume()
        if self.tensorboard and self.main:
            from torch.utils.tensorboard import SummaryWriter  # an extra of the installation

            self.board = SummaryWriter(str(self.folder / "tensorboard"))
        total = self.config.epochs * self.steps_per_epoch
        done = self.epoch * self.steps_per_epoch
        with progress.bar(total=total, initial=done, desc=self.config.detector, unit="step") as steps:
            while self.epoch < (stop_after or self.config.epochs) and not self.finished:
                row = self.train_epoch(steps.update) | self.validate()
                self.history.append(row)
                if self.main:
                    done = f"epoch {row['epoch']:>3}/{self.config.epochs}  loss {row['loss']:.3f}"
                    found = f"validation AUC {row['val_auc']:.3f}  F_FPR {row['val_fpr_sum']:.2f}"
                    print(f"{done}  {found}  {row['images_per_second']:.0f} images/s", flush=True)
                    self.save()
        return pd.DataFrame(self.history)

    def train_epoch(self, advance: Callable[[], None] = lambda: None) -> dict[str, float]:
        """One pass over the fakes; returns the epoch's row of the history: mean terms, learning rate, images/s."""
        started = time.perf_counter()
        self.model.train()
        generator = np.random.default_rng([self.config.seed, self.epoch])
        sampling = "balanced" if self.config.method == "balanced" else self.config.sampling
        pairs = epoch_pairs(self.train, sampling, generator)
        seeds = generator.integers(2**31, size=self.steps_per_epoch)
        group_counts = torch.from_numpy(group_sizes(self.train)).to(self.device)
        rows, log = [], []
        share = (distributed.rank(), distributed.world_size())
        partners = epoch_partners(self.train, pairs, generator) if self.config.mixing == "across_groups" else None
        size = self.config.batch_size
        drawn = batches(self.train, self.train_images, pairs, size, self.device, share, self.stem_maps, partners)
        for batch, step_seed in zip(drawn, seeds, strict=True):
            terms = batch_step(self.config, self.parallel, self.optimizer, batch, int(step_seed), group_counts)
            self.schedule.step()
            rows.append(batch.rows)
            log.append(torch.stack(list(terms.values())))
            if len(log) % CHECK_EVERY == 0 or len(log) == self.steps_per_epoch:
                self._refuse_non_finite(torch.stack(log), list(terms), rows)
            advance()
        mean = distributed.all_reduce_mean(torch.stack(log)).double().mean(0).tolist()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch + 1,
            "loss": sum(mean),
            **{f"loss_{name}": value for name, value in zip(terms, mean, strict=True)},
            "lr": self.schedule.get_last_lr()[0],
            "images_per_second": sum(map(len, rows)) / seconds,
            "seconds": seconds,
        }

    def _refuse_non_finite(self, log: Tensor, names: list[str], rows: list[np.ndarray]) -> None:
        """Stop at the first step and term of a log (steps, terms) that is not finite."""
        finite = torch.isfinite(distributed.all_reduce_mean(log.clone())).cpu()  # all processes stop together
        if finite.all():
            return
        step, term = (~finite).nonzero()[0].tolist()
        paths = ", ".join(self.train["img_path"].iloc[rows[step]])
        kept = f"; the checkpoint of epoch {self.epoch} is kept in {self.folder}" if self.epoch else ""
        raise TrainingError(
            f"the loss term {names[term]!r} became {log[step, term].item()} in epoch {self.epoch + 1}, "
            f"step {step + 1}{kept}. Lower lr, or look at this batch: {paths}"
        )

    def validate(self) -> dict[str, float]:
        """Validation AUC and fairness by intersectional group, as columns of the history."""
        share = np.array_split(np.arange(len(self.validation)), distributed.world_size())[distributed.rank()]
        logits = predict(self.model, self.validation_images[share], self.device, self.config.precision)
        table = score_table(self.validation, np.concatenate(distributed.all_gather_object(logits)))
        fairness = fairness_metrics(table, "group")
        auc = float(roc_auc_score(table["label"], table["score"]))
        return {"val_auc": auc, "val_fpr_sum": float(fairness["fpr_sum"]), "val_oae": float(fairness["oae"])}

    @property
    def best_epoch(self) -> int:
        """The first epoch with the highest validation AUC, from 1."""
        return max(self.history, key=lambda row: row["val_auc"])["epoch"]

    def save(self) -> None:
        """Write the history, the best weights if this epoch is the best, and the checkpoint, each atomically."""
        if self.best_epoch == self.epoch:
            save_detector(self.folder / PUBLISHED, self.model, self.config, self.epoch, self.groups)
        with replacing(self.folder / "history.csv") as partial:
            pd.DataFrame(self.history).to_csv(partial, index=False)
        if self.board:
            for name, value in self.history[-1].items():
                self.board.add_scalar(name, value, self.epoch)
            self.board.flush()
        parts = {name: getattr(self, name).state_dict() for name in STATEFUL}
        last = self.folder / "last.pt"
        if last.exists():
            with replacing(self.folder / "previous.pt") as partial:
                os.link(last, partial)
        with replacing(last) as partial:
            torch.save({**self.origin, "history": self.history, **parts}, partial)

    def resume(self) -> None:
        """Restore the last checkpoint, if there is one of this configuration and data; another one is set aside.

        Raises TrainingError when the checkpoint is damaged, or the best weights are gone.
        """
        with distributed.rank_zero_first():  # the first sets aside, the others then find nothing
            state = self._own_checkpoint()
        if state is None:
            return
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history = state["history"]
        published = self.folder / PUBLISHED
        if self.main and not published.exists():
            if self.best_epoch != self.epoch:
                gone = f"{published} is gone: it held epoch {self.best_epoch}, last.pt holds {self.epoch}"
                raise TrainingError(f"{gone}. Bring it back, or delete the folder to train again")
            save_detector(published, self.model, self.config, self.epoch, self.groups)

    def _own_checkpoint(self) -> dict | None:
        """The last checkpoint; None if there is none, or one of another training, which is moved aside."""
        path = self.folder / "last.pt"
        if not path.exists():
            return None
        state = _read_checkpoint(path)
        was, now = state["config"], self.origin["config"]
        other = [f"{name} {was.get(name)!r} (now {now[name]!r})" for name in now if was.get(name) != now[name]]
        other += [f"other {what}" for what in ("data", "code") if state.get(what) != self.origin[what]]
        if not other:
            return state
        aside = self.folder / "set_aside" / time.strftime("%Y-%m-%d_%H-%M-%S")
        aside.mkdir(parents=True)
        for name in WRITTEN:
            if (self.folder / name).exists():
                (self.folder / name).rename(aside / name)
        print(f"{self.folder} was trained with {', '.join(other)}; moved to {aside}, training starts anew", flush=True)
        return None


def stem_maps(stem: nn.Module, images: np.ndarray, data_dir: str | Path) -> np.ndarray:
    """What a frozen stem makes of images (N, H, H, 3) from `batches.decode`, computed once: float16 (N, h, w, C).

    A memory map beside that of the images, under a name that tells images and weights.
    """
    device = next(stem.parameters()).device
    weights = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in stem.state_dict().values()))
    target = Path(data_dir) / f"{Path(images.filename).stem}-{weights.hexdigest()[:16]}.npy"
    if not target.exists():
        with replacing(target) as partial, torch.inference_mode():
            shape = stem(to_device(images[:1], device)).permute(0, 2, 3, 1).shape[1:]
            maps = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=(len(images), *shape))
            for start in progress.bar(range(0, len(images), 256), desc="stem", unit="batch", leave=False):
                seen = stem(to_device(images[start : start + 256], device)).permute(0, 2, 3, 1)  # (b, h, w, C)
                maps[start : start + 256] = seen.cpu().numpy()
            maps.flush()
    return np.load(target, mmap_mode="c")


def _digest(*data: tuple[pd.DataFrame, np.ndarray]) -> str:
    """Tells data apart by their rows and by the pixels of some 256 images."""
    digest = hashlib.sha256()
    for frame, images in data:
        rows = frame[["img_path", "label", "forgery", "group"]].astype(str)
        digest.update(pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes())
        digest.update(images[:: max(1, len(images) // 256)].tobytes())
    return digest.hexdigest()[:16]


def _digest_of_code() -> str:
    """Tells apart the code that decides what is trained, comments aside."""
    package = Path(__file__).parents[1]
    files = [
        *sorted(package.glob("model/*.py")),
        *sorted(package.glob("training/*.py")),
        package / "data" / "batches.py",
    ]
    trees = [ast.dump(ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:16]


def _read_checkpoint(path: Path) -> dict:
    """A checkpoint as `Training.save` wrote it, on the CPU; refuses anything else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if {"config", "history", *STATEFUL} <= state.keys():
            return state
        reason = "it holds something else"
    except Exception as error:  # torch and pickle raise many kinds for a cut or foreign file
        reason = type(error).__name__
    older = path.with_name("previous.pt")
    remedy = f"replace it by {older}, one epoch older" if older.exists() else "delete it to train from the start"
    raise TrainingError(f"{path} is not a whole checkpoint of a training ({reason}); {remedy}")


def train_detector(*arguments, **options) -> None:
    """`Training(...).run()`, as a function that Accelerate's `notebook_launcher` can start in each process."""
    Training(*arguments, **options).run()
