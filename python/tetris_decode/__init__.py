"""What can be done with `tetris_kernels`: recorded drafts and their replay, on the command line."""
