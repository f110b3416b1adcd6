"""kerasmed: labelled synthetic medical images, and the evidence of what they are worth."""

__version__ = "0.1.0"
