"""One function per figure: takes arrays or a table, returns a matplotlib Figure, and draws no window itself."""

from mlkd.plots.context import context_scores, reliance, reliance_regression
from mlkd.plots.gains import gains, label_gains, protocol_spread
from mlkd.plots.gradients import gradient_classes, gradient_terms
from mlkd.plots.labels import class_frequencies, conditional_heatmap, label_counts, partitions, stability
from mlkd.plots.maps import cam_grid, cam_picture, localization_plot
from mlkd.plots.pictures import crop_labels, crops, image_grid, logit_gradients, prediction
from mlkd.plots.recall import area_recall, recall_by
from mlkd.plots.relations import correlation_differences, dependency_gaps, label_pairs, pair_pictures
from mlkd.plots.retrieval import retrieval_grid, retrieval_scores
from mlkd.plots.runs import class_gains, class_scores, protocol_scores, scores_by_seed, training_curves
from mlkd.plots.style import color

__all__ = [
    "area_recall",
    "cam_grid",
    "cam_picture",
    "class_frequencies",
    "class_gains",
    "class_scores",
    "color",
    "conditional_heatmap",
    "context_scores",
    "correlation_differences",
    "crop_labels",
    "crops",
    "dependency_gaps",
    "gains",
    "gradient_classes",
    "gradient_terms",
    "image_grid",
    "label_counts",
    "label_gains",
    "label_pairs",
    "localization_plot",
    "logit_gradients",
    "pair_pictures",
    "partitions",
    "prediction",
    "protocol_scores",
    "protocol_spread",
    "recall_by",
    "reliance",
    "reliance_regression",
    "retrieval_grid",
    "retrieval_scores",
    "scores_by_seed",
    "stability",
    "training_curves",
]
