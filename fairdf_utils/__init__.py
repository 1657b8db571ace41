"""Fair deepfake detection: the package behind the notebook book. A folder is a part of the method; where to look:

============  =========================================================================================================
data          a row of data: vocabulary, manifests, lists in other forms, checks, batches
corpora       from the videos of FF++, DFD, Celeb-DF and DFDC to aligned faces, annotations and splits
rendered      the embedded benchmark: people, forgeries, images and videos that are drawn, counterfactuals
model         encoders, layers, detectors, losses, their configuration, stored detectors
training      the training loop, SAM, several processes
evaluation    scores of test sets, perturbations, one's own pictures
fairness      score tables, metrics, the worst group, uncertainty and its coverage, permutation tests, label noise,
              thresholds, calibration, sample size, verdicts, comparisons, effects of attributes, post-processing,
              tables of whole experiments
explanation   probes, Grad-CAM, swaps of a branch, the loss landscape
released      what the authors published: checkpoints and score files
figures       every figure of the chapters
preflight     what would stop a run, and what it will cost, before it starts
book          what chapters need of the book, and the engine that runs it: show, run folders, pairs, parameters
tests         the same folders; and speed, the hot paths against what libraries offer
============  =========================================================================================================

Beside the folders: files (whole or not there, locks), progress bars, worker processes, and the command line.
"""
