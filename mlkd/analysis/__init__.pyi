from .context import (
    ContextMasks,
    context_masks,
    context_reliance,
    context_scores,
    reliance_regression,
    top_cooccurring_labels,
)
from .correlation import (
    CorrelationDifference,
    correlation_difference,
    label_correlations,
    order_by_cluster,
    pair_contributions,
)
from .dependency import dependency_gaps, label_dependencies, pair_dependencies
from .gains import Gain, PairedPredictions, class_gains, gain, minimum_detectable_effect, pair_by_seed
from .localization import box_scores, localization_summary, score_map
from .recall import label_table, object_table, recall_curve, recall_table
from .reported import compare_with_reported
from .retrieval import extract_features, nearest_neighbors, retrieval_scores, retrieval_table
from .tables import (
    format_score,
    group_runs,
    mean_by_group,
    partition_stability,
    per_class_ap,
    protocol_table,
    runs_on,
    runs_with_config,
    score_table,
    summary_table,
)

__all__ = [
    "ContextMasks",
    "CorrelationDifference",
    "Gain",
    "PairedPredictions",
    "box_scores",
    "class_gains",
    "compare_with_reported",
    "context_masks",
    "context_reliance",
    "context_scores",
    "correlation_difference",
    "dependency_gaps",
    "extract_features",
    "format_score",
    "gain",
    "group_runs",
    "label_correlations",
    "label_dependencies",
    "label_table",
    "localization_summary",
    "mean_by_group",
    "minimum_detectable_effect",
    "nearest_neighbors",
    "object_table",
    "order_by_cluster",
    "pair_by_seed",
    "pair_contributions",
    "pair_dependencies",
    "partition_stability",
    "per_class_ap",
    "protocol_table",
    "recall_curve",
    "recall_table",
    "reliance_regression",
    "retrieval_scores",
    "retrieval_table",
    "runs_on",
    "runs_with_config",
    "score_map",
    "score_table",
    "summary_table",
    "top_cooccurring_labels",
]
