"""Tables and numbers about finished runs, and about what they see."""

from mlkd.analysis.context import (
    Masked,
    context_reliance,
    context_scores,
    masked_companion,
    reliance_regression,
    top_cooccurring_labels,
)
from mlkd.analysis.correlation import (
    CorrelationDifference,
    correlation,
    correlation_difference,
    order_by_parts,
    pair_contributions,
)
from mlkd.analysis.dependency import dependency_gaps, label_dependencies, pair_dependencies
from mlkd.analysis.gain import Gain, Paired, class_gains, gain, minimum_detectable_effect, pair_by_seed
from mlkd.analysis.localization import box_scores, localization_summary, score_map
from mlkd.analysis.recall import label_table, object_table, recall_curve, recall_table
from mlkd.analysis.retrieval import extract_features, nearest_neighbors, retrieval_scores, retrieval_table
from mlkd.analysis.tables import (
    group_runs,
    partition_stability,
    per_class_ap,
    protocol_table,
    runs_on,
    runs_with_config,
    score_table,
    show_score,
    summary_table,
)

__all__ = [
    "CorrelationDifference",
    "Gain",
    "Masked",
    "Paired",
    "box_scores",
    "class_gains",
    "context_reliance",
    "context_scores",
    "correlation",
    "correlation_difference",
    "dependency_gaps",
    "extract_features",
    "gain",
    "group_runs",
    "label_dependencies",
    "label_table",
    "localization_summary",
    "masked_companion",
    "minimum_detectable_effect",
    "nearest_neighbors",
    "object_table",
    "order_by_parts",
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
    "show_score",
    "summary_table",
    "top_cooccurring_labels",
]
