"""Training: one step, the epochs, checkpoints, resuming, in one process or several.

`Training` trains any of `TRAINING_METHODS` on the same batches with the same budget. Everything random in an
epoch comes from (seed, epoch) and everything random in a step from a seed drawn for it, so the two passes of SAM see
the same dropout masks and triplets, and a run resumed at an epoch goes on exactly as if it had never stopped.

    torchrun --nproc-per-node 2 -m fairdf_utils.training.loop --params gpu --run-dir runs/gpu --detector fairdf

trains one detector of a parameters file with several processes; chapter 3 then finds it finished.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from fairdf_utils import progress
from fairdf_utils.book.parameters import read_plan
from fairdf_utils.book.run_folder import REPOSITORY, BookError
from fairdf_utils.data.batches import Batch, batches, decode, epoch_pairs, group_sizes
from fairdf_utils.data.manifests import read_split
from fairdf_utils.data.vocabulary import FORGERIES
from fairdf_utils.evaluation.scoring import predict, score_table
from fairdf_utils.fairness.metrics import fairness_metrics
from fairdf_utils.files import replacing
from fairdf_utils.model import losses
from fairdf_utils.model.config import TrainingConfig
from fairdf_utils.model.detectors import Outputs, build
from fairdf_utils.model.layers import HeadOutput
from fairdf_utils.model.stored import DetectorError, choose_device, save_detector
from fairdf_utils.rendered.images import image_folder
from fairdf_utils.training import distributed as processes
from fairdf_utils.training.sam import SAM, frozen_batch_norm

CHECK_EVERY = 50  # steps between two looks at the losses: each look makes the host wait for the device


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to do."""


def build_optimizer(
    config: TrainingConfig, model: torch.nn.Module, steps_per_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer, wrapped in SAM where asked, and its schedule, which advances once a step."""
    if config.optimizer == "sgd":
        base, options = torch.optim.SGD, {"momentum": config.momentum}
    else:
        base, options = torch.optim.AdamW, {}
    options |= {"lr": config.lr, "weight_decay": config.weight_decay}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = SAM(parameters, base, rho=config.rho, **options) if config.sam else base(parameters, **options)
    scheduled = optimizer.base if config.sam else optimizer  # SAM shares its parameter groups with its base
    if config.schedule == "step":
        return optimizer, torch.optim.lr_scheduler.StepLR(scheduled, 60 * steps_per_epoch, gamma=0.9)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(scheduled, config.epochs * steps_per_epoch)


def training_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    weighted_terms: Callable[[], dict[str, torch.Tensor]],
    seed: int,
) -> dict[str, torch.Tensor]:
    """One update; with SAM, two passes over the same function (same dropout masks, frozen batch-norm statistics).

    Parameters
    ----------
    weighted_terms : the forward pass, returning the terms whose sum is the loss
    seed : of the dropout masks of every pass

    Returns
    -------
    dict of scalars, detached: the terms at the weights before the update
    """

    def backward() -> dict[str, torch.Tensor]:
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


def objective(
    config: TrainingConfig, model: torch.nn.Module, batch: Batch, triplets: losses.Triplets, group_counts: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Terms of the loss, weighted: scalars whose sum is minimised (Lin et al. 2024, overall objective).

    With several processes, `batch.images` is this process's share; the logits of all are brought together.
    """
    if config.method in ("fairdf", "ucf"):
        outputs = gather_outputs(model(batch.images))
        terms = losses.fairdf_terms(outputs, batch, triplets, group_counts, config)
        return {name: value * config.weight(name) for name, value in terms.items()}
    errors = losses.cross_entropy(processes.gather(model(batch.images)), batch.label)  # (2B,)
    if config.method == "dag_fdd":
        return {"detection": losses.cvar(errors, config.alpha_across)}
    if config.method == "daw_fdd":
        return {"detection": losses.group_cvar(errors, batch.group, config.alpha_in, config.alpha_across)}
    return {"detection": errors.mean()}


def gather_outputs(outputs: Outputs) -> Outputs:
    """Logits and pooled vectors of all processes; reconstructions stay where they are, their loss is a mean."""
    heads = {name: getattr(outputs, name) for name in ("specific", "agnostic", "demographic", "fused")}
    return replace(outputs, **{name: head and HeadOutput(*map(processes.gather, head)) for name, head in heads.items()})


class Training:
    """The state of one training run: what a checkpoint holds, and the epochs that move it on.

    Parameters
    ----------
    config : what to train
    train, validation : canonical manifests
    folder : where checkpoints and the history go
    image_root, data_dir : see `data.decode`
    device : where to train
    tensorboard : also write the history as TensorBoard scalars, into `folder`/tensorboard
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
        self.config, self.train, self.validation, self.folder = config, train, validation, folder
        self.device = processes.join(device)
        if config.batch_size % processes.count():
            raise TrainingError(
                f"batch_size {config.batch_size} cannot be shared by {processes.count()} processes; make it a multiple"
            )
        unnamed = sorted(set(train["forgery"]) - set(FORGERIES))
        if unnamed and config.method in ("fairdf", "ucf"):
            raise TrainingError(
                f"{config.method} learns to tell forgeries apart, and the training set has fakes of unknown forgery "
                f"({', '.join(unnamed)}); train on FF++, name the forgeries, or choose another method"
            )
        with processes.first_alone():
            self.train_images = decode(train, image_root, config.image_size, data_dir)
            self.validation_images = decode(validation, image_root, config.image_size, data_dir)
        self.spread = processes.spread(build(config).to(self.device, memory_format=torch.channels_last))
        self.model = processes.bare(self.spread)
        self.steps_per_epoch = max(1, int((train["label"] == 1).sum()) // config.batch_size)
        self.optimizer, self.schedule = build_optimizer(config, self.model, self.steps_per_epoch)
        self.history: list[dict[str, float]] = []
        self.board = _open_board(folder) if tensorboard and self.main else None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return len(self.history)

    @property
    def main(self) -> bool:
        """Whether this process prints and writes."""
        return processes.rank() == 0

    def run(self, stop_after: int | None = None) -> pd.DataFrame:
        """Train until `stop_after` epochs (default: all) are done, from the last checkpoint on if there is one.

        Returns
        -------
        DataFrame, one row an epoch: what `train_epoch` and `validate` return
        """
        self.resume()
        total = self.config.epochs * self.steps_per_epoch
        with progress.bar(
            total=total, initial=self.epoch * self.steps_per_epoch, desc=self.config.detector, unit="step"
        ) as steps:
            while self.epoch < (stop_after or self.config.epochs):
                self.history.append(self.train_epoch(steps.update) | self.validate())
                if self.main:
                    print(_epoch_line(self.history[-1], self.config.epochs), flush=True)
                    self.save()
        return pd.DataFrame(self.history)

    def train_epoch(self, advance: Callable[[], None] = lambda: None) -> dict[str, float]:
        """One pass over the fakes; returns the epoch's row of the history: mean terms, learning rate, images/s."""
        started = time.perf_counter()
        self.model.train()
        generator = np.random.default_rng([self.config.seed, self.epoch])
        sampling = "balanced" if self.config.method == "balanced" else "natural"
        pairs = epoch_pairs(self.train, sampling, generator)
        seeds = generator.integers(2**31, size=self.steps_per_epoch)
        group_counts = torch.from_numpy(group_sizes(self.train)).to(self.device)
        rows, log = [], []
        share = (processes.rank(), processes.count())
        drawn = batches(self.train, self.train_images, pairs, self.config.batch_size, self.device, share)
        for batch, step_seed in zip(drawn, seeds, strict=True):
            terms = self._step(batch, int(step_seed), group_counts)
            rows.append(batch.rows)
            log.append(torch.stack(list(terms.values())))
            if len(log) % CHECK_EVERY == 0:
                self._refuse_non_finite(torch.stack(log), list(terms), rows)
            advance()
        log = torch.stack(log)
        self._refuse_non_finite(log, list(terms), rows)
        log = processes.mean(log)
        mean = log.double().mean(0).tolist()
        seconds = time.perf_counter() - started
        return {
            "epoch": self.epoch + 1,
            "loss": sum(mean),
            **{f"loss_{name}": value for name, value in zip(terms, mean, strict=True)},
            "lr": self.schedule.get_last_lr()[0],
            "images_per_second": sum(map(len, rows)) / seconds,
            "seconds": seconds,
        }

    def _step(self, batch: Batch, seed: int, group_counts: torch.Tensor) -> dict[str, torch.Tensor]:
        config = self.config
        triplets = losses.draw_triplets(batch.label, batch.forgery, torch.Generator().manual_seed(seed))

        def weighted_terms() -> dict[str, torch.Tensor]:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                return objective(config, self.spread, batch, triplets, group_counts)

        terms = training_step(self.spread, self.optimizer, weighted_terms, seed)
        self.schedule.step()
        return terms

    def _refuse_non_finite(self, log: torch.Tensor, names: list[str], rows: list[np.ndarray]) -> None:
        finite = torch.isfinite(processes.mean(log.clone())).cpu()  # all processes stop together
        if finite.all():
            return
        step = int((~finite.all(1)).nonzero()[0])
        term = names[int((~finite[step]).nonzero()[0])]
        paths = self.train["img_path"].iloc[rows[step]].tolist()
        raise TrainingError(
            f"the loss term {term!r} became {log[step][names.index(term)].item()} in epoch {self.epoch + 1}, "
            f"step {step + 1}; the last good checkpoint is kept in {self.folder}. Lower lr, or look at this batch: "
            + ", ".join(paths)
        )

    def validate(self) -> dict[str, float]:
        """Validation AUC and fairness by intersectional group, as columns of the history."""
        share = np.array_split(np.arange(len(self.validation)), processes.count())[processes.rank()]
        logits = predict(self.model, self.validation_images[share], self.device, self.config.precision)
        logits = np.concatenate(processes.gather_rows(logits))
        table = score_table(self.validation, logits)
        fairness = fairness_metrics(table, "group")
        return {
            "val_auc": float(roc_auc_score(table["label"], table["score"])),
            "val_fpr_sum": float(fairness["fpr_sum"]),
            "val_oae": float(fairness["oae"]),
        }

    def save(self) -> None:
        """Write the history, the best weights if this epoch is the best, and the checkpoint, each atomically."""
        best = max(self.history, key=lambda row: row["val_auc"])
        if best is self.history[-1]:
            save_detector(self.folder / "best.safetensors", self.model, self.config, self.epoch)
        with replacing(self.folder / "history.csv") as partial:
            pd.DataFrame(self.history).to_csv(partial, index=False)
        if self.board:
            for name, value in self.history[-1].items():
                self.board.add_scalar(name, value, self.epoch)
            self.board.flush()
        state = {
            "config": asdict(self.config),
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        last = self.folder / "last.pt"
        if last.exists():
            with replacing(self.folder / "previous.pt") as partial:
                os.link(last, partial)
        with replacing(last) as partial:
            torch.save(state, partial)

    def resume(self) -> None:
        """Restore the last checkpoint, if any.

        Raises
        ------
        TrainingError
            The checkpoint is damaged, or belongs to another configuration; the message names both.
        """
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = _read_checkpoint(path)
        _refuse_other_config(path, state["config"], asdict(self.config))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = state["history"]


def _open_board(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard is not installed: pip install tensorboard, or train without it") from error
    return SummaryWriter(str(folder / "tensorboard"))


def _read_checkpoint(path: Path) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if {"config", "history", "model", "optimizer", "schedule"} <= state.keys():
            return state
        reason = "it holds something else"
    except Exception as error:  # torch and pickle raise many kinds for a cut or foreign file
        reason = type(error).__name__
    older = path.with_name("previous.pt")
    remedy = f"replace it by {older}, one epoch older" if older.exists() else "delete it to train from the start"
    raise TrainingError(f"{path} is not a whole checkpoint of a training ({reason}); {remedy}")


def _refuse_other_config(path: Path, stored: dict, asked: dict) -> None:
    differing = [name for name in asked if stored.get(name) != asked[name]]
    if differing:
        was = ", ".join(f"{name} {stored.get(name)!r} (now {asked[name]!r})" for name in differing)
        raise TrainingError(f"{path} was trained with {was}; choose another `detector` name, or delete the folder")


def _epoch_line(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['loss']:.3f}  validation AUC {row['val_auc']:.3f}  "
        f"F_FPR {row['val_fpr_sum']:.2f}  {row['images_per_second']:.0f} images/s"
    )


def train_detector(*arguments) -> None:
    """`Training(*arguments).run()`, as a function that `accelerate.notebook_launcher` can start in each process."""
    Training(*arguments).run()


def main(arguments: list[str] | None = None) -> None:
    """Train one detector of a parameters file as chapter 3 would, in this process or as one of several.

    Raises
    ------
    BookError
        The parameters file is faulty, or does not ask for this detector.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fairdf_utils.training.loop", description=main.__doc__.split("\n")[0]
    )
    parser.add_argument("--params", required=True, help="name of a file in notebooks/params, or a path")
    parser.add_argument("--run-dir", required=True, help="the run folder, e.g. runs/gpu")
    parser.add_argument("--detector", required=True, help="name of a detector in the file's grid")
    parser.add_argument("--seed", type=int, default=0, help="one of the file's seeds (default: %(default)s)")
    options = parser.parse_args(arguments)
    notebooks = REPOSITORY / "notebooks"  # paths in a parameters file are relative to it
    wanted = f"03_sam_training/{options.detector}-s{options.seed}"
    steps = {step.folder: step.values for step in read_plan(options.params, notebooks).steps}
    if wanted not in steps:
        trained = ", ".join(name for name in steps if name.startswith("03_"))
        raise BookError(f"{options.params} does not ask for {wanted}; it asks for {trained}")
    given = steps[wanted]
    device = processes.join(choose_device(given["device"], given["threads"]))
    config = TrainingConfig(**{field.name: given[field.name] for field in fields(TrainingConfig)})
    image_root, data_dir = given["image_root"] and str(notebooks / given["image_root"]), notebooks / given["data_dir"]
    with processes.first_alone():
        images_at = image_folder(image_root, data_dir, config.image_size, given["bias"])
    sets = [read_split(notebooks / given["manifests"] / given["train_set"], split) for split in ("train", "val")]
    train_detector(config, *sets, Path(options.run_dir) / wanted, images_at, data_dir, device)


if __name__ == "__main__":
    try:
        main()
    except (BookError, DetectorError, TrainingError) as error:
        raise SystemExit(f"error: {error}") from None
