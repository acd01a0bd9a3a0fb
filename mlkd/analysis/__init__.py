"""Tables and numbers about finished runs, and about what they see."""

from mlkd.analysis.context import (
    Masked,
    companions,
    context_reliance,
    context_scores,
    masked_companion,
    taken_over,
)
from mlkd.analysis.correlation import (
    CorrelationDifference,
    correlation,
    correlation_difference,
    order_by_parts,
    pair_contributions,
)
from mlkd.analysis.dependency import dependency_gaps, label_dependencies, pair_dependencies
from mlkd.analysis.gain import Gain, Paired, class_gains, gain, paired, smallest_effect
from mlkd.analysis.localization import box_scores, hit_rates, score_map
from mlkd.analysis.recall import objects, positives, recall_curve, recall_table
from mlkd.analysis.retrieval import nearest_pictures, representations, retrieval_scores, retrieval_table
from mlkd.analysis.tables import (
    class_ap,
    group_runs,
    partition_stability,
    protocol_table,
    runs_like,
    runs_on,
    score_table,
    scores_of,
    show_score,
)

__all__ = [
    "CorrelationDifference",
    "Gain",
    "Masked",
    "Paired",
    "box_scores",
    "class_ap",
    "class_gains",
    "companions",
    "context_reliance",
    "context_scores",
    "correlation",
    "correlation_difference",
    "dependency_gaps",
    "gain",
    "group_runs",
    "hit_rates",
    "label_dependencies",
    "masked_companion",
    "nearest_pictures",
    "objects",
    "order_by_parts",
    "pair_contributions",
    "pair_dependencies",
    "paired",
    "partition_stability",
    "positives",
    "protocol_table",
    "recall_curve",
    "recall_table",
    "representations",
    "retrieval_scores",
    "retrieval_table",
    "runs_like",
    "runs_on",
    "score_map",
    "score_table",
    "scores_of",
    "show_score",
    "smallest_effect",
    "taken_over",
]
