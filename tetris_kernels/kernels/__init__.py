"""The Triton kernels. Triton is imported only in this folder, and this folder only when a kernel is used."""
