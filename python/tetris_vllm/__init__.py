"""A plugin for vLLM: of each step's drafts, only the most promising ones of the batch are verified (docs/vllm.md)."""
