"""Where else a run is shown: W&B, TensorBoard, MLflow and Trackio, each in a process beside the training."""
