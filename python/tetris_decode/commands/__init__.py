"""The commands of `tetris-decode`: a file for each, and what they share."""
