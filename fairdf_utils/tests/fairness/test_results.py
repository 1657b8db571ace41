"""Runs gathered into two tables: against numbers that are computed by hand from the score tables."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from fairdf_utils.__main__ import main
from fairdf_utils.book.run_folder import read_manifest_of_run
from fairdf_utils.fairness import results
from fairdf_utils.fairness.score_table import write_scores
from fairdf_utils.tests.fairness.score_tables import random_table

GROUPS = ("male-white", "female-black")
SETTINGS = results.Settings(resamples=30)


def scored(seed, pull=0.0):
    """400 images of fixed labels and groups; the scores of `seed`, and more alarms in one group by `pull`."""
    rng, table = np.random.default_rng(seed), random_table(0, groups=GROUPS)
    logit = 2.0 * table["label"] - 1 + pull * (table["group"] == GROUPS[1]) + rng.normal(0, 1, len(table))
    return table.assign(logit_fake=logit, score=1 / (1 + np.exp(-logit)))


def write_run(run, data_seed, names=("ori-s0", "balanced-s0", "ori-s1")):
    """A run folder of scored detectors, and their tables: two test sets, of which one holds no real images."""
    tables, manifest = {}, {}
    for place, name in enumerate(names):
        detector, seed = name.split("-s")
        given = {"detector": detector, "seed": int(seed), "bias": 0.5, "method": detector, "sam": False, "epochs": 9}
        manifest[f"03_sam_training/{name}"] = {"parameters": given | {"data_seed": data_seed}, "commit": "abc"}
        manifest[f"04_cross_dataset_evaluation/{name}"] = {"parameters": {"bias": 0.5}, "commit": "def"}
        tables[name] = scored(place, pull=1.5 * (detector == "ori"))
        fakes = tables[name].query("label == 1").assign(dataset="dfdc")
        folder = run / "04_cross_dataset_evaluation" / name
        write_scores(pd.concat([tables[name], fakes]), folder)
        trained = run / "03_sam_training" / name
        trained.mkdir(parents=True)
        (trained / "history.csv").write_text("epoch,val_auc,seconds\n1,0.5,1\n2,0.9,2\n3,0.9,4\n")
    (run / "manifest.json").write_text(json.dumps(manifest))
    return tables


def by_hand(table):
    """Lowest AUC of a group, and F_FPR where one real image in ten is called fake."""
    real = table["label"] == 0
    called = table["score"] > table["score"][real].nlargest(int(0.1 * real.sum()) + 1).min()
    gaps = called[real].groupby(table["group"]).mean() - called[real].mean()
    aucs = [roc_auc_score(part["label"], part["score"]) for _, part in table.groupby("group")]
    return {"worst_auc": min(aucs), "fpr_sum_matched": gaps.abs().sum()}


def test_each_world_detector_seed_and_set_has_a_row_and_is_compared_with_the_references(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "SETTINGS", SETTINGS)
    tables = {seed: write_run(tmp_path / f"run/data_seed-{seed}", seed) for seed in (11, 12)}
    assert main(["results", str(tmp_path / "run"), "--out", str(tmp_path / "out/experiment.csv")]) == 0
    rows = pd.read_csv(tmp_path / "out/experiment.csv")
    assert list(rows) == results.ROW and "experiment.csv: 28 rows" in capsys.readouterr().out
    trained = rows[~rows["detector"].str.startswith("(")].set_index(["data_seed", "detector", "seed", "dataset"])
    assert len(trained) == 2 * 3 * 2 and trained.index.is_unique and set(trained["commit"]) == {"abc"}
    assert trained[["epochs", "best_epoch", "seconds"]].drop_duplicates().to_numpy().tolist() == [[3, 2, 7]]
    assert trained.xs("balanced", level="detector")["sampling"].unique().tolist() == ["balanced"]
    blind = rows[rows["detector"].str.startswith("(")].groupby(["data_seed", "dataset"])["detector"].agg(list)
    assert len(blind) == 4 and {"(always real)", "(coin)"} <= set(blind.iloc[0])
    row, hand = trained.loc[(12, "ori", 1, "ffpp")], by_hand(tables[12]["ori-s1"])
    assert row[[*hand]].tolist() == pytest.approx([*hand.values()], rel=1e-5)
    assert row["worst_auc_low"] < row["worst_auc"] < row["worst_auc_high"] and row["auc_low"] < row["auc_high"]
    one_class = trained.loc[(12, "ori", 1, "dfdc")]
    assert one_class[["worst_auc", "auc", "auc_low", "fpr_sum_matched", "fpr"]].isna().all() and one_class["tpr"] > 0.5

    pairs = pd.read_csv(tmp_path / "out/comparisons.csv")
    assert list(pairs) == results.PAIR
    asked = pairs.groupby(["data_seed", "detector", "reference", "seed"]).size()
    names = [("balanced", "ori", 0), ("ori", "balanced", 0)]  # of seed 1 there is one detector
    assert asked.to_dict() == {(seed, *name): 2 * 4 for seed in (11, 12) for name in names}
    found = pairs.query("data_seed == 11 and detector == 'balanced' and dataset == 'ffpp'").set_index("metric")
    for name, value in by_hand(tables[11]["balanced-s0"]).items():
        assert found.loc[name, "estimate"] == pytest.approx(value - by_hand(tables[11]["ori-s0"])[name], rel=1e-4)
    assert (found["low"] <= found["estimate"]).all() and (found["estimate"] <= found["high"]).all()
    assert found.loc["fpr_sum_matched", "high"] < 0  # the alarms of one group were planted
    assert pairs.query("dataset == 'dfdc'")["estimate"].isna().all()


def test_a_reference_is_taken_from_another_run_of_the_same_world_where_it_is_the_only_one(tmp_path):
    write_run(tmp_path / "a", 3, ["ori-s0"])
    write_run(tmp_path / "b", 3, ["fairdf-s0"])
    write_run(tmp_path / "c", 3, ["ori-s0", "fairdf-s0"])
    write_run(tmp_path / "d", 4, ["fairdf-s0"])

    def compared(*names):
        rows, pairs = results.gather([tmp_path / name for name in names], read_manifest_of_run)
        trained = rows[~rows["detector"].str.startswith("(")]
        return len(trained) // 2, len(pairs) // 8

    assert compared("a", "b") == (2, 1) and compared("a", "b", "b") == (2, 1)
    assert compared("a", "b", "c") == (4, 1)  # for b there are two
    assert compared("a", "d") == (2, 0)


def test_a_folder_without_scores_is_refused(tmp_path, capsys):
    assert main(["results", str(tmp_path), "--out", str(tmp_path / "x.csv")]) == 2
    assert "holds no run with scores: give a run folder" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()
