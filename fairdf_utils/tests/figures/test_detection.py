"""Figures of a score table: what is drawn and written on them; no global state is left behind."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from fairdf_utils.fairness import metrics
from fairdf_utils.figures import detection
from fairdf_utils.figures.style import DATASET_COLOURS
from fairdf_utils.tests.fairness.score_tables import video_table

TABLE = video_table(0)


def words(figure):
    """Everything written on a figure, in one string."""
    found = [text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()]
    return "\n".join(text for text in found if text)


def curve_of(figure, name):
    """Recall and precision of the line drawn for a table, fractions (n,), the highest recall first."""
    (line,) = (line for line in figure.axes[0].lines if line.get_label().startswith(f"{name}\n"))
    return np.divide(line.get_xydata().T, 100)


def dots(figure):
    """Recall and precision of the dots, fractions (n, 2)."""
    lines = figure.axes[0].lines
    found = [line.get_xydata()[0] for line in lines if line.get_marker() == "o" and len(line.get_xdata())]
    return np.array(found).reshape(-1, 2) / 100


def test_the_area_below_the_steps_is_the_average_precision():
    figure = detection.precision_recall({"ffpp": TABLE})
    recall, precision = curve_of(figure, "ffpp")
    assert recall[0] == 1 and recall[-1] == 0 and (np.diff(recall) <= 0).all()
    # steps-post: from one point to the next the height is that of the first
    area = np.sum(-np.diff(recall) * precision[:-1])
    ap = metrics.overall_metrics(TABLE)["ap"]
    assert area == pytest.approx(ap)
    assert figure.axes[0].lines[0].get_drawstyle() == "steps-post"
    assert f"AP {100 * ap:.1f} %" in words(figure)


def test_the_dot_is_the_decision_at_the_threshold():
    for threshold in (0.3, 0.5):
        figure = detection.precision_recall({"ffpp": TABLE}, threshold)
        called = TABLE["score"] >= threshold
        hits = (called & (TABLE["label"] == 1)).sum()
        np.testing.assert_allclose(dots(figure), [[hits / TABLE["label"].sum(), hits / called.sum()]])


def test_a_detector_without_alarms_has_a_curve_but_no_dot():
    shy = TABLE.assign(score=TABLE["score"] / 4)
    figure = detection.precision_recall({"ffpp": shy})
    assert len(dots(figure)) == 0
    np.testing.assert_allclose(curve_of(figure, "ffpp"), curve_of(detection.precision_recall({"ffpp": TABLE}), "ffpp"))


def test_sets_keep_their_colours_and_one_class_is_told():
    fakes = TABLE[TABLE["label"] == 1]
    figure = detection.precision_recall({"dfd": fakes, "celebdf": TABLE})
    text = words(figure)
    assert f"dfd\nundefined: one class (n = {len(fakes):,})" in text and "nan" not in text
    share = 100 * TABLE["label"].mean()
    assert f"fakes {share:.0f} % (n = {len(TABLE):,})" in text
    (drawn,) = (line for line in figure.axes[0].lines if line.get_label().startswith("celebdf"))
    assert drawn.get_color() == DATASET_COLOURS["celebdf"]
    (chance,) = (line for line in figure.axes[0].lines if list(line.get_xdata()) == [0, 1])
    np.testing.assert_allclose(chance.get_ydata(), share)


def test_it_leaves_no_trace_and_is_saved():
    mine, before = plt.figure(), dict(mpl.rcParams)
    figure = detection.precision_recall({"ffpp": TABLE})
    assert dict(mpl.rcParams) == before and plt.get_fignums() == [mine.number]
    png = io.BytesIO()
    figure.savefig(png)
    assert png.getvalue().startswith(b"\x89PNG")
    plt.close(mine)
