"""Compiled kernels executed and replayed on the CPU: what their PTX does, and in which order ptxas issues it."""
