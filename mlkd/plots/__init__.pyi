from .cam import cam_grid, cam_overlay, localization_plot
from .context import context_reliance, context_scores, reliance_regression
from .gains import gain_intervals, label_gains, protocol_spread
from .gradients import gradient_classes, gradient_terms
from .images import crop_labels, crops, image_grid, logit_gradients, prediction
from .labels import class_frequencies, conditional_heatmap, label_counts, partitions, stability
from .recall import area_recall, recall_by
from .relations import correlation_differences, dependency_gaps, label_pairs, pair_images
from .retrieval import retrieval_grid, retrieval_scores
from .runs import (
    class_gains,
    class_scores,
    protocol_scores,
    scores_by_seed,
    sensitivity,
    training_curves,
    tuning_trials,
)
from .style import color

__all__ = [
    "area_recall",
    "cam_grid",
    "cam_overlay",
    "class_frequencies",
    "class_gains",
    "class_scores",
    "color",
    "conditional_heatmap",
    "context_reliance",
    "context_scores",
    "correlation_differences",
    "crop_labels",
    "crops",
    "dependency_gaps",
    "gain_intervals",
    "gradient_classes",
    "gradient_terms",
    "image_grid",
    "label_counts",
    "label_gains",
    "label_pairs",
    "localization_plot",
    "logit_gradients",
    "pair_images",
    "partitions",
    "prediction",
    "protocol_scores",
    "protocol_spread",
    "recall_by",
    "reliance_regression",
    "retrieval_grid",
    "retrieval_scores",
    "scores_by_seed",
    "sensitivity",
    "stability",
    "training_curves",
    "tuning_trials",
]
