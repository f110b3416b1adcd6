"""A synthetic set as it is handed on: marked images, cards for people and programs, checksums."""
