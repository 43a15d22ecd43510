"""Benchmarks: `make bench`, `make bench-select`, `make bench-decode`, `make test-gpu`."""
