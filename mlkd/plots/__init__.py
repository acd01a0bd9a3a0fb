"""One function per figure: takes arrays or a table, returns a matplotlib Figure, and draws no window itself."""

from mlkd.plots.context import context_scores, reliance, taken_over
from mlkd.plots.gains import gains, label_gains, protocol_spread
from mlkd.plots.gradients import gradient_classes, gradient_terms
from mlkd.plots.labels import class_frequencies, conditional_heatmap, label_counts, partitions, stability
from mlkd.plots.maps import cam_grid, cam_picture, map_hits
from mlkd.plots.pictures import crop_labels, crops, picture_grid, prediction, pushes
from mlkd.plots.recall import area_recall, recall_by
from mlkd.plots.relations import correlation_differences, dependency_gaps, label_pairs, pair_pictures
from mlkd.plots.retrieval import retrieval_scores, retrieved
from mlkd.plots.runs import class_gains, class_scores, protocol_scores, scores_by_seed, training_curves
from mlkd.plots.style import colour

__all__ = [
    "area_recall",
    "cam_grid",
    "cam_picture",
    "class_frequencies",
    "class_gains",
    "class_scores",
    "colour",
    "conditional_heatmap",
    "context_scores",
    "correlation_differences",
    "crop_labels",
    "crops",
    "dependency_gaps",
    "gains",
    "gradient_classes",
    "gradient_terms",
    "label_counts",
    "label_gains",
    "label_pairs",
    "map_hits",
    "pair_pictures",
    "partitions",
    "picture_grid",
    "prediction",
    "protocol_scores",
    "protocol_spread",
    "pushes",
    "recall_by",
    "reliance",
    "retrieval_scores",
    "retrieved",
    "scores_by_seed",
    "stability",
    "taken_over",
    "training_curves",
]
