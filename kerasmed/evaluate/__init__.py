"""Accuracy, fidelity and privacy: NumPy in, plain results out."""
