"""Training data made from samples of a model."""
