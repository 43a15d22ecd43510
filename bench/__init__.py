"""Benchmarks: `make bench`, `make bench-select`, `make bench-generate`, `make test-gpu`."""
