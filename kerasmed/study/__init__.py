"""A whole study on a run folder: settings, stages, report, release."""
