"""A book of four small chapters, named as the real ones and run by the same Snakefile, that needs seconds."""

import shutil
from pathlib import Path

from fairdf_utils.book import REPOSITORY
from fairdf_utils.book.pairs import update

HEADER = """\
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

"""

DATA = """\
# %% [markdown]
# # 1. Data

# %% tags=["parameters"]
run_dir: str = "../runs/tiny"  # folder of this run
words: list = ["a", "b"]
source: str = ""  # a file outside the run
corpus_root: str = ""  # if given, this chapter makes the manifests
layout: str = "ffpp"
dataset: str = ""
annotations: list = []
prepared: str = "../prepared"
manifests: str = "../benchmark"
frames: int = 2

# %%
from pathlib import Path

from fairdf_utils.book.run_folder import Run
from fairdf_utils.book.show import show

run = Run(run_dir, "01_data_preparation", dataset)
run.path("words.txt").write_text("\\n".join(words))
if corpus_root:
    folder = Path(prepared, "manifests", dataset or layout)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.csv").write_text(str(frames))

# %%
show(Run.path)

# %%
run.finish(read=[source] if source else [])
"""

TRAINING = """\
# %% [markdown]
# # 3. Training

# %% tags=["parameters"]
run_dir: str = "../runs/tiny"  # folder of this run
detector: str = "fair"
seed: int = 0
rate: float = 0.5
epochs: int = 2
manifests: str = "../manifests"
train_set: str = "ffpp"
pause: float = 0.0  # seconds an epoch
fault: str = ""  # "error" or "death", in the middle of the training
wait_for: str = ""  # "file: words" of the run folder, which the training waits for

# %%
import os
import signal
import sys
import time
from pathlib import Path

from fairdf_utils.book.run_folder import Run

run = Run(run_dir, "03_sam_training", f"{detector}-s{seed}")
run.require_all("01_data_preparation/**/words.txt")
checkpoint = run.path("epochs.txt")
first = len(checkpoint.read_text().split()) if checkpoint.exists() else 0
run.path("begun.txt").write_text("begun")

# %%
# train
name, _, words = wait_for.partition(": ")
deadline = time.monotonic() + 60
while wait_for and not (Path(run_dir, name).exists() and words in Path(run_dir, name).read_text()):
    assert time.monotonic() < deadline, f"waited in vain for {wait_for}"
    time.sleep(0.02)
print("threads", os.environ.get("OMP_NUM_THREADS"))
for epoch in range(first, epochs):
    if fault == "death" and epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    assert fault != "error" or epoch < 1, "the loss is not finite"
    time.sleep(pause)
    with checkpoint.open("a") as file:
        file.write(f"{epoch}\\n")
    print("epoch", epoch, "in", os.getcwd())
print("a warning", file=sys.stderr)

# %%
run.finish(device="cpu")
epochs
"""

EVALUATION = """\
# %% [markdown]
# # 4. Evaluation

# %% tags=["parameters"]
run_dir: str = "../runs/tiny"  # folder of this run
detector: str = "fair"
seed: int = 0
manifests: str = "../manifests"
test_sets: list = ["ffpp", "dfdc"]
left_out: list = []

# %%
from fairdf_utils.book.run_folder import Run
from fairdf_utils.data import vocabulary

run = Run(run_dir, "04_cross_dataset_evaluation", f"{detector}-s{seed}")
epochs = run.require(f"03_sam_training/{detector}-s{seed}/epochs.txt").read_text()
run.path("scores.csv").write_text(epochs)
run.finish(device="cpu")
"""

FAIRNESS = """\
# %% [markdown]
# # 5. Fairness

# %% tags=["parameters"]
run_dir: str = "../runs/tiny"  # folder of this run

# %%
from fairdf_utils.book.run_folder import Run

run = Run(run_dir, "05_fairness_analysis")
tables = run.require_all("04_cross_dataset_evaluation/*/scores.csv")
rows = [f"{path.parent.name},ffpp,0.75,1.5,0.125,," for path in tables]
run.path("results.csv").write_text("\\n".join(["detector,dataset,auc,fpr_sum,oae,dp,meo", *rows]))
run.finish()
"""

PROFILE = """\
grid: [{detector: fair}, {detector: plain, rate: 1}]
seeds: [0]
"""


CHAPTERS = {
    "01_data_preparation": DATA,
    "03_sam_training": TRAINING,
    "04_cross_dataset_evaluation": EVALUATION,
    "05_fairness_analysis": FAIRNESS,
}


def write_book(root: Path, profile: str = PROFILE, chapters: str = "01 03 04 05") -> Path:
    """Write chapters with their pairs, the Snakefile and params/cpu.yaml under `root`/notebooks; that folder."""
    folder = root / "notebooks"
    (folder / "params").mkdir(parents=True)
    for name, text in CHAPTERS.items():
        if name[:2] in chapters.split():
            (folder / f"{name}.py").write_text(HEADER + text)
    update(folder)
    shutil.copy(REPOSITORY / "notebooks" / "Snakefile", folder)
    (folder / "params" / "cpu.yaml").write_text(profile)
    return folder
