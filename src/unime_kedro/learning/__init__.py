"""Training: losses, recipes, trainers. Works on tensors; knows nothing of Kedro, MLflow or DVC."""
