"""The stages in plain torch, one module each.

They run on any device, without a Python loop over requests and without a host sync. This is the default
for CPU tensors, the fallback for what the Triton kernels do not take, and the truth that these are tested
against.
"""
