"""Audit of any detector's scores: from a score table to numbers, findings in plain words, and a report.

`main_audit` reads, judges and writes. The numbers of one data set are put together here (`judge`), those of its
groups in `gaps`; `audit_warnings` and `audit_findings` hold the rules that turn them into sentences, `report` the page.
Nothing here needs torch. Rows without a value in a grouping are left out of that grouping, counted and reported.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from fairdf_utils.fairness import report
from fairdf_utils.fairness.audit_findings import findings
from fairdf_utils.fairness.audit_warnings import data_warnings, result_warnings
from fairdf_utils.fairness.calibration import calibration, reliability
from fairdf_utils.fairness.gaps import (
    FLOOR,
    GAPS,
    SUMS,
    Settings,
    fairness_table,
    gap,
    group_table,
    known,
    large_enough,
    overall_table,
    with_differences,
)
from fairdf_utils.fairness.intervals import holm
from fairdf_utils.fairness.metrics import fairness_metrics, overall_metrics
from fairdf_utils.fairness.resampling import sampling_floor
from fairdf_utils.fairness.score_table import ScoreTableError, column, read_scores, video_level
from fairdf_utils.fairness.thresholds import (
    fit_group_thresholds,
    fit_threshold,
    metrics_by_threshold,
    move_to_threshold,
    rates_by_threshold,
)
from fairdf_utils.progress import bar

MOST_GROUPS = 50  # more values than that are a measurement or a name, not a grouping
POINTS = {"EER": ("eer", None), "FPR 10 %": ("fpr", 0.1)}
GRID = np.arange(1, 100) / 100  # thresholds of the curves
COARSE = np.r_[GRID[0], GRID[4::5], GRID[-1]]  # thresholds at which the curves' sampling floor is drawn


@dataclass(frozen=True)
class View:
    """One data set judged image by image, or video by video.

    Attributes
    ----------
    overall : DataFrame
        Index OVERALL; estimate, low, high.
    groups : DataFrame
        Index (by, group): the columns of `resampling.group_intervals`; few: rates on fewer than MINIMUM clusters;
        needed_real, needed_fake: clusters for an interval of width PLANNED; of images also, for rate fpr and tpr,
        <rate>_off, _off_low, _off_high (difference from all other groups together), _off_p, _off_p_holm.
    fairness : DataFrame
        Index (by, metric), GAPS and SUMS of `gaps`: estimate, low, high, floor_mean, floor_q95, p_value, p_holm,
        groups (how many it rests on); left_out: names of the groups that are too small for a gap.
    """

    overall: pd.DataFrame
    groups: pd.DataFrame
    fairness: pd.DataFrame


@dataclass(frozen=True)
class Judged:
    """All numbers of one data set, and what was found in them."""

    name: str
    settings: Settings
    table: pd.DataFrame
    bys: list  # groupings that can be judged
    primary: str  # that with most groups: the intersection, where the table has it
    images: View
    videos: View | None  # None where every video has one image, or one holds both labels
    points: pd.DataFrame  # index (by, point, thresholds): threshold, acc, fpr, tpr, METRICS, gap (of FPR) and its tests
    fitted_on: str
    curves: tuple | None  # by the primary grouping: FPR of each group by threshold, sampling floor of their gap
    grids: dict  # by -> metrics by threshold
    calibration: pd.DataFrame  # index (by, group)
    reliability: dict  # by -> table of `calibration.reliability`
    permutations: int
    warnings: list
    findings: list = field(default_factory=list)  # of dict: see `audit_findings`


def judge(name, table, bys, settings=None, validation=None):
    """Judge one data set.

    Parameters
    ----------
    name : str
    table : DataFrame
        Rows of one data set, from `scores.read_scores`.
    bys : sequence of str
        Columns that name groups.
    settings : Settings
    validation : DataFrame, optional
        Score table that thresholds are fitted on; without it they are fitted on `table` itself, and marked.

    Returns
    -------
    Judged

    Raises
    ------
    ScoreTableError
        A column is missing, or holds what cannot be judged.
    """
    settings = settings or Settings()
    column(table, settings.cluster)
    warnings = data_warnings(table, bys, settings, validation)
    asked, bys = bys, [by for by in bys if table[by].nunique() > 0]
    if not bys:
        raise ScoreTableError(f"No image has a value in {', '.join(asked)}. Fill one in, or leave out these images.")
    primary = max(bys, key=lambda by: table[by].nunique())
    tests = max(len(SUMS) * len(bys), 2 * sum(table[by].nunique() for by in bys))  # of metrics, and of single groups
    permutations = settings.permutations(tests)
    images = view(table, bys, settings, permutations)
    images = replace(images, groups=with_differences(table, bys, images.groups, settings, permutations))
    videos = None
    if table["video"].nunique() < len(table):
        try:
            videos = view(video_level(table), bys, settings, permutations)
        except ScoreTableError as error:
            warnings.append(f"Nothing is judged video by video. {error}")
    points, failures = thresholds_of(table, bys, settings, validation, permutations)
    judged = Judged(
        name,
        settings,
        table,
        bys,
        primary,
        images,
        videos,
        points,
        "the same images" if validation is None else "validation",
        curves(table, primary, settings),
        {by: metrics_by_threshold(known(table, by), by, GRID) for by in bys},
        pd.concat({by: calibration(known(table, by), by) for by in bys}, names=["by", "group"]),
        {by: reliability(known(table, by), by) for by in bys},
        permutations,
        warnings + failures,
    )
    judged.warnings.extend(result_warnings(judged))
    judged.findings.extend(findings(judged))
    return judged


def view(table, bys, settings, permutations):
    """Overall metrics, groups and fairness metrics: a `View` without differences from the rest."""
    groups = {by: group_table(known(table, by), by, settings) for by in bys}
    fairness = {by: fairness_table(known(table, by), by, settings, permutations) for by in bys}
    fairness = pd.concat(fairness, names=["by", "metric"])
    gaps = fairness.index.isin(GAPS, level="metric")
    fairness["p_holm"] = holm(fairness["p_value"].where(gaps)).fillna(holm(fairness["p_value"].where(~gaps)))
    return View(
        overall_table(table, settings),
        pd.concat(groups, names=["by", "group"]),
        fairness,
    )


def thresholds_of(table, bys, settings, validation, permutations):
    """Metrics at the threshold given, at the EER and at a matched FPR; messages for points that cannot be had.

    Thresholds of each group's own are a reference that needs validation: fitted on the same images they would
    close every gap by construction. Only common thresholds are tested here: that given is tested among the gaps, and
    those of each group's own are no claim about the detector.
    """
    fit_on, rows, failures = table if validation is None else validation, {}, []
    fitted = {"as given": settings.threshold}
    same = fit_on["score"].nunique() == 1
    if same:
        failures.append("No operating point can be fitted where all scores are the same.")
    for point, target in ({} if same else POINTS).items():
        try:
            fitted[point] = fit_threshold(fit_on, *target)
        except ScoreTableError as error:
            failures.append(f"The operating point {point} is left out. {error}")
    for by in bys:
        part = known(table, by)
        for point, cut in fitted.items():
            rows[by, point, "common"] = {"threshold": cut, **_at(part, by, cut, settings, permutations)}
            if validation is not None and by in validation.columns and point in POINTS:
                own = fit_group_thresholds(known(validation, by), by, *POINTS[point])
                own = own.reindex(part[by].unique()).fillna(cut)  # groups that validation lacks
                moved = move_to_threshold(part, own, by)
                rows[by, point, "per group"] = {"threshold": np.nan, **_at(moved, by, 0.5, settings, permutations)}
    points = pd.DataFrame(rows).T.rename_axis(["by", "point", "thresholds"])
    fitted_for_all = points.index.isin(POINTS, level="point") & points.index.isin(["common"], level="thresholds")
    points["p_holm"] = holm(points["p_value"].astype(float).where(fitted_for_all))
    return points, failures


def _at(table, by, cut, settings, permutations):
    """Overall and fairness metrics at a threshold, and the gap of the FPR with its test: a dict."""
    tested = gap(table, by, "fpr_gap", replace(settings, threshold=cut), permutations)
    tested = {name: tested[name] for name in ("low", "high", *FLOOR.values())} | {"gap": tested["estimate"]}
    overall = overall_metrics(table, cut)[["acc", "fpr", "tpr"]]
    return {**overall, **fairness_metrics(table, by, cut, auc=False), **tested}


def curves(table, by, settings):
    """Gap of the FPR, and FPR of each group, against the threshold, with what sampling alone shows of the gap.

    Of groups that are large enough; None with fewer than two.
    """
    part, _ = large_enough(known(table, by), by, "fpr_gap", settings.cluster)
    if part[by].nunique() < 2:
        return None
    floor = {
        cut: sampling_floor(part, by, 200, auc=False, **settings.at | {"threshold": cut}).loc["dp", "q95"]
        for cut in COARSE
    }
    return rates_by_threshold(part, by, "fpr", GRID), pd.Series(floor, name="floor")


def read(path, bys=None):
    """A score table whose groupings are words, and the groupings to judge by; errors name the file."""
    try:
        table = read_scores(path)
        if table.empty:
            raise ScoreTableError("There are no rows below the header: nothing to judge.")
        bys = list(bys or [by for by in ("gender", "race", "group") if by in table.columns])
        for by in bys:
            if by not in table.columns:
                column(table, by)  # says what there is
            words = table[by].convert_dtypes().astype("string")  # 0.0, 1.0 and an empty cell are whole numbers
            table[by] = words.astype(object).where(words.notna(), None)
            if table[by].nunique() > MOST_GROUPS:
                raise ScoreTableError(
                    f"Column '{by}' has {table[by].nunique():,} different values: no grouping. Sort them into a few "
                    "classes, in a column of their own."
                )
    except ValueError as error:
        message = str(error)
        raise ScoreTableError(message if str(path) in message else f"{path}: {message}") from error
    return table, bys


def main_audit(options) -> int:
    """`python -m fairdf_utils audit`: read, judge, write the report, print warnings and findings.

    Parameters
    ----------
    options : argparse.Namespace
        scores, out, by (list or None), threshold, validation (path or None), resamples, level, cluster, seed.

    Raises
    ------
    FileNotFoundError, ScoreTableError, ValueError
        One message: file, row, remedy.
    """
    report.check_folder(options.out)
    settings = Settings(options.threshold, options.resamples, options.level, options.cluster, options.seed)
    table, bys = read(options.scores, options.by)
    validation = read(options.validation)[0] if options.validation else None
    sets = {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("dataset", sort=False)}
    judged = []
    for name, rows in bar(sets.items(), desc="data sets"):
        own = None if validation is None else _of_data_set(validation, name)
        try:
            judged.append(judge(name, rows, bys, settings, own))
        except ScoreTableError as error:
            raise ScoreTableError(f"{options.scores}, data set {name}: {error}") from error
    page = report.write_report(judged, options)
    for one in judged:
        print(f"\n{one.name}" if len(judged) > 1 else "")
        lines = [f"- Mind: {warning}" for warning in one.warnings]
        print(*lines, *(f"- {finding['text']}" for finding in one.findings), sep="\n")
    print(f"\nThe report is {page}")
    return 0


def _of_data_set(validation, name):
    """Validation rows of the data set, or all of them where validation has none of it."""
    own = validation[validation["dataset"].astype(str) == name]
    return own if len(own) else validation
