"""Predictors that see no face, beside which every fairness score is read: one that they win says nothing."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from fairdf_utils.fairness.resampling import Settings
from fairdf_utils.fairness.score_table import log_odds
from fairdf_utils.fairness.worst_group import main_numbers, matched_numbers

SHARPNESS = "laplacian_variance"  # a column of the tables of chapter 4


def trivial_scores(table: pd.DataFrame, seed: int = 0, validation: pd.DataFrame | None = None) -> dict[str, np.ndarray]:
    """P(fake) of each image, float64 (n,), from each trivial predictor.

    Two constants, a coin, the scores of `table` dealt out anew among its images, and a blur meter: the logistic
    regression of the label on how sharp an image is, where `table` and `validation`, on which it is fitted, know that.
    """
    rng, images = np.random.default_rng(seed), len(table)
    scores = {"always real": np.zeros(images), "always fake": np.ones(images), "coin": rng.random(images)}
    scores["shuffled scores"] = rng.permutation(table["score"].to_numpy(np.float64))
    if validation is not None and {SHARPNESS} <= {*table} & {*validation} and validation["label"].nunique() == 2:
        fitted_on, of = (np.log1p(one[[SHARPNESS]].to_numpy(np.float64)) for one in (validation, table))
        scores["blur meter"] = LogisticRegression().fit(fitted_on, validation["label"]).predict_proba(of)[:, 1]
    return scores


def trivial_tables(
    table: pd.DataFrame, seed: int = 0, validation: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """A score table with each of the `trivial_scores` in place of its own."""
    scores = trivial_scores(table, seed, validation)
    return {name: table.assign(score=score, logit_fake=log_odds(score)) for name, score in scores.items()}


def trivial_rows(
    table: pd.DataFrame, by: str, settings: Settings, validation: pd.DataFrame | None = None
) -> pd.DataFrame:
    """`main_numbers` and `matched_numbers` of `trivial_tables` on a table's images: one row each, index detector."""
    tables, of = trivial_tables(table, settings.seed, validation), (main_numbers, matched_numbers)
    rows = {name: pd.concat([numbers(one, by, settings) for numbers in of]) for name, one in tables.items()}
    return pd.DataFrame(rows).T.rename_axis("detector")
