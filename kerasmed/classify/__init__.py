"""CNNs from Keras Applications, trained on real or synthetic images."""
