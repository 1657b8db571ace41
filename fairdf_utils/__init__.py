"""Fair deepfake detection: the package behind the notebook book. Each module is one idea; where to look:

===============================  ======================================================================================
from videos to manifests         corpora, video, alignment, faces, ledger; annotations, splits, partition, split_lists
manifests                        manifests, names, csv_rows, seed_form, foreign, crop_names; checks, checks_rows,
                                 checks_images, findings
the embedded benchmark           synthetic, renderer, forgery; video_corpus, rendered_clips, rendered_annotations,
                                 planted_flaws
the method                       model, layers, encoders, losses, sam, methods; released
training and scoring             data, training, processes, evaluation, scores, released_scores; predict, boxes
fairness                         fairness, auc, clusters, resampling, intervals, power, thresholds, calibration, front;
                                 audit, gaps, audit_findings, audit_warnings, report
robustness and explanation       perturbations, explain, landscape, probes
figures                          plot_style, plots, plots_faces, plots_splits, plots_scores, plots_fairness,
                                 plots_explain, plots_audit
the book                         book, notebooks, plan, reproduce
speed                            benchmark, benchmark_network, benchmark_metrics, benchmark_faces, straightforward,
                                 timing
small helpers                    files, progress, workers
===============================  ======================================================================================
"""
