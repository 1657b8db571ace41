"""The audit's report: one self-contained HTML page, `findings.json`, and the tables as CSV.

Nothing is computed here but the layout. The page needs no network: figures are SVG inside it, and it has no script.
"""

import base64
import hashlib
import io
import json
import os
import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib import rc_context

from fairdf_utils.fairness.audit_findings import (
    GAPS,
    UNITS,
    Severe,
    between,
    counted,
    in_short,
    p_text,
    percent,
    points,
    signed,
)
from fairdf_utils.fairness.gaps import MINIMUM
from fairdf_utils.figures import audit as plots_audit
from fairdf_utils.figures import fairness as plots_fairness
from fairdf_utils.files import write_text

METRIC_NAMES = {
    "fpr_gap": ("Gap of false alarms", "largest minus smallest FPR of the groups that are large enough"),
    "tpr_gap": ("Gap of fakes found", "largest minus smallest TPR of these"),
    "auc_gap": ("Gap of the AUC", "largest minus smallest AUC of these"),
    "fpr_sum": ("F_FPR", "sum over all groups of |FPR of the group − FPR|; grows with their number"),
    "oae": ("F_OAE", "gap of the accuracy; mixes reals and fakes"),
    "dp": ("F_DP", "gap of the share called fake; mixes reals and fakes"),
    "meo": ("F_MEO", "larger of the gaps of FPR and TPR"),
    "eo": ("F_EO", "sum over all groups of the deviations of FPR and TPR"),
}
RATE_NAMES = {
    "fpr": ("False alarms (FPR)", "share of real images called fake; lower is better", "real"),
    "tpr": ("Fakes found (TPR)", "share of fakes called fake; higher is better", "fake"),
    "auc": ("AUC", "chance that a fake scores higher than a real; needs no threshold; higher is better", None),
}
BLOCKS = {
    "detection": "Detection",
    "differs": "Differs between groups",
    "not told apart": "Cannot be told apart from sampling",
    "threshold": "At other thresholds",
    "videos": "Whole videos",
    "undefined": "Undefined",
    "too small": "Too small to judge",
}
LIBRARIES = ("fairdf_utils", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib")
SVG = {"svg.fonttype": "path", "svg.hashsalt": "audit"}  # the same bytes from the same numbers


def write_report(judged, options):
    """Write all files of a report.

    Parameters
    ----------
    judged : list of audit.Judged
        One a data set.
    options : argparse.Namespace
        As for `audit.main_audit`.

    Returns
    -------
    Path of index.html; findings.json, groups.csv, fairness.csv, thresholds.csv and calibration.csv lie beside it.
    """
    folder, made = Path(options.out), how_made(judged, options)
    for name, table in tables(judged).items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    write_text(folder / "findings.json", json.dumps(_plain(as_json(judged, made)), indent=2, allow_nan=False) + "\n")
    write_text(folder / "index.html", page(judged, made))
    return folder / "index.html"


def check_folder(out):
    """Refuse a folder that cannot be written, before anything is computed for it."""
    folder = Path(out).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"--out {out}: {there} is a file, no folder. Give another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--out {out}: nothing may be written in {there}. Give another folder.")


def how_made(judged, options):
    """What it takes to make the report again: input with digest, settings, versions, command."""
    files = {"scores": options.scores} | ({"validation": options.validation} if options.validation else {})
    return {
        "command": command(options),
        "input": {
            what: {"file": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
            for what, path in files.items()
        },
        "settings": {
            **{name: getattr(options, name) for name in ("threshold", "resamples", "level", "cluster", "seed")},
            "permutations": {one.name: one.permutations for one in judged},
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
    }


def command(options):
    """The command line that makes the report again."""
    words = ["python", "-m", "fairdf_utils", "audit", str(options.scores), "--out", str(options.out)]
    words += ["--by", *options.by] if options.by else []
    words += ["--validation", str(options.validation)] if options.validation else []
    for name in ("threshold", "resamples", "level", "cluster", "seed"):
        words += [f"--{name}", str(getattr(options, name))]
    return shlex.join(words)


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed as a package"


def as_json(judged, made):
    """The findings and the numbers that they rest on."""
    sets = []
    for one in judged:
        rows = {"images": len(one.table), "videos": one.table["video"].nunique(), "groupings": one.bys}
        overall = one.images.overall.to_dict("index")
        said = {"in_short": in_short(one.findings), "warnings": one.warnings, "findings": one.findings}
        sets.append({"name": one.name, **rows, "overall": overall, **said})
    return {"made": made, "data_sets": sets}


def _plain(value):
    """The same for JSON: numpy's numbers as Python's, NaN as null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)) else value


def tables(judged):
    """The four CSV tables: name -> DataFrame, a row a data set, level and what the table is about."""
    parts = {"groups": [], "fairness": [], "thresholds": [], "calibration": []}
    for one in judged:
        for level, view in _levels(one):
            key = {"dataset": one.name, "level": level}
            parts["groups"].append(view.groups.reset_index().assign(**key))
            parts["fairness"].append(_with_overall(view).assign(**key))
        parts["thresholds"].append(_all_thresholds(one).assign(dataset=one.name))
        parts["calibration"].append(one.calibration.reset_index().assign(dataset=one.name))
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    first = ["dataset", "level", "by", "point", "thresholds"]
    return {
        name: table[[c for c in first if c in table] + [c for c in table if c not in first]]
        for name, table in joined.items()
    }


def _levels(one):
    return [("image", one.images)] + ([("video", one.videos)] if one.videos is not None else [])


def _with_overall(view):
    overall = view.overall.rename_axis("metric").reset_index().assign(by="all")
    return pd.concat([overall, view.fairness.reset_index()], ignore_index=True)


def _all_thresholds(one):
    """Operating points, then the curves at a grid of thresholds (point "grid")."""
    points = one.points.reset_index()
    grids = [curve.reset_index().assign(by=by, point="grid", thresholds="common") for by, curve in one.grids.items()]
    return pd.concat([points.assign(fitted_on=one.fitted_on), *grids], ignore_index=True)


def page(judged, made):
    """The HTML page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": percent, "points": points, "p": p_text, "signed": signed}
    environment.filters["number"] = "{:,}".format
    environment.tests["missing"] = pd.isna
    environment.globals |= {"between": between, "counted": counted, "minimum": MINIMUM}
    sets = [_for_template(one) for one in judged]
    words = {"metric_names": METRIC_NAMES, "rate_names": RATE_NAMES}
    return environment.get_template("audit.html.jinja").render(sets=sets, made=made, **words)


def _for_template(one):
    """What the template needs of one data set."""
    classes = {"reals": one.table[one.table["label"] == 0], "fakes": one.table[one.table["label"] == 1]}
    cluster = one.settings.cluster
    sizes = [
        {"what": what, "images": len(rows), "videos": rows["video"].nunique(), "units": rows[cluster].nunique()}
        for what, rows in {"all": one.table, **classes}.items()
    ]
    return {
        "one": one,
        "name": one.name,
        "anchor": "set-" + hashlib.sha256(one.name.encode()).hexdigest()[:8],
        "unit": UNITS[cluster],
        "sizes": sizes,
        "in_short": in_short(one.findings),
        "severe": [warning for warning in one.warnings if isinstance(warning, Severe)],
        "blocks": finding_blocks(one.findings),
        "order": sorted(one.bys, key=lambda by: by != one.primary),
        "alpha": 1 - one.settings.level,
        "figures": figures(one),
    }


def finding_blocks(found):
    """Findings by kind: list of (kind, heading, list of (finding, findings on single groups that explain it))."""
    metric_of = {rate: metric for rate, (metric, _) in GAPS.items()}
    single = [finding for finding in found if finding["kind"] == "differs" and finding["group"]]
    blocks = []
    for kind, heading in BLOCKS.items():
        entries = []
        for finding in found:
            if finding["kind"] != kind or finding in single:
                continue
            below = [f for f in single if (f["by"], metric_of[f["metric"]]) == (finding["by"], finding["metric"])]
            entries.append((finding, below if kind == "differs" else []))
        blocks += [(kind, heading, entries)] if entries else []
    return blocks


def figures(one):
    """Figures of the primary grouping: name -> data URI."""
    by, found = one.primary, {}
    if one.curves is not None:
        rows = one.points.loc[by].xs("common", level="thresholds")["threshold"]
        marks = {(f"{at:g}, as given" if name == "as given" else name): at for name, at in rows.items()}
        found["thresholds"] = _svg(plots_audit.false_alarms(*one.curves, marks))
    found["reliability"] = _svg(plots_fairness.reliability(one.reliability[by], one.calibration.loc[by]))
    return found


def _svg(figure):
    text = io.StringIO()
    with rc_context(SVG):
        figure.savefig(text, format="svg", metadata={"Date": None}, facecolor="white")
    return "data:image/svg+xml;base64," + base64.b64encode(text.getvalue().encode()).decode()
