"""Images on disk, in memory, made up, and split."""
