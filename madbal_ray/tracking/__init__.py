"""Curves for dashboards: TensorBoard, MLflow, Weights & Biases."""
