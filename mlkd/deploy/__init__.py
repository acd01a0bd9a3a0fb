"""From a trained model to one that predicts elsewhere: exports with thresholds, model cards and a web page."""
