"""This machine and its Keras: cores, devices, settings and versions."""
