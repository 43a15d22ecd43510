"""Scores recorded where a proposer draws its drafts, against log-softmax; the proposers have vLLM's two methods."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tetris_vllm import recording

VOCABULARY = 11


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(5, VOCABULARY)

    def compute_logits(self, hidden_states):
        return self.head(hidden_states)


class Proposer:
    """As vLLM's: the argmax, or a draw from scaled logits, scaled in place."""

    def __init__(self, model, config="a config") -> None:
        self.model, self.vllm_config, self.local = model, config, False

    def _greedy_sample(self, hidden_states):
        if self.local:
            return hidden_states.argmax(-1)
        return self.model.compute_logits(hidden_states).argmax(-1)

    def _sample_from_logits(self, logits, sampling_metadata):
        if sampling_metadata.temperature is None:
            return logits.argmax(-1), None
        temperature = sampling_metadata.temperature
        rows = temperature.repeat_interleave(len(logits) // len(temperature))
        probs = logits.div_(torch.where(rows < 1e-5, 1.0, rows).unsqueeze(1)).softmax(-1)
        return probs.argmax(-1), probs


@pytest.fixture
def proposer():
    """Of a class of its own, which is wrapped; and the kinds that were asked for."""
    torch.manual_seed(0)
    mine, asked = type("Mine", (Proposer,), {}), []
    kinds = {"a config": "top", "squares": "collision", "off": None}
    recording.record_in(mine, lambda config: asked.append(config) or kinds[config])

    def make(config="a config"):
        return mine(Model(), config)

    make.asked = asked
    return make


def expected(logits, kind, temperature=1.0):
    logq = (logits / temperature).double().log_softmax(-1)
    return logq.amax(-1) if kind == "top" else (2 * logq).logsumexp(-1)


@pytest.mark.parametrize(("config", "kind"), [("a config", "top"), ("squares", "collision")])
def test_greedy_drafts(proposer, config, kind):
    made, plain = proposer(config), Proposer(None)
    plain.model = made.model
    states = [torch.randn(6, 5) for _ in range(3)]
    for hidden in states:
        assert torch.equal(made._greedy_sample(hidden), plain._greedy_sample(hidden))
    recorded = recording.take(made)
    for hidden, scores in zip(states, recorded, strict=True):
        want = expected(made.model.compute_logits(hidden), kind)
        torch.testing.assert_close(scores.double(), want, atol=1e-4, rtol=1e-4)
    assert recording.take(made) == []


def test_drawn_drafts_at_the_temperature_of_each_request(proposer):
    made = proposer()
    logits, temperature = 3 * torch.randn(4, VOCABULARY), torch.tensor([0.0, 0.5, 1.0, 2.0])
    want = expected(logits, "top", torch.tensor([1.0, 0.5, 1.0, 2.0]).unsqueeze(1))
    drafts = made._sample_from_logits(logits.clone(), SimpleNamespace(temperature=temperature))
    plain = Proposer(None)._sample_from_logits(logits.clone(), SimpleNamespace(temperature=temperature))
    assert all(map(torch.equal, drafts, plain))
    (scores,) = recording.take(made)
    torch.testing.assert_close(scores.double(), want, atol=1e-4, rtol=1e-4)


def test_drafts_that_are_made_all_at_once(proposer):
    made = proposer()
    logits, temperature = torch.randn(2 * 3, VOCABULARY), torch.tensor([0.5, 2.0])
    want = expected(logits, "top", temperature.repeat_interleave(3).unsqueeze(1))
    made._sample_from_logits(logits.clone(), SimpleNamespace(temperature=temperature))
    matrix = recording.as_matrix(recording.take(made), num_rows=2, num_drafts=3)
    torch.testing.assert_close(torch.from_numpy(matrix).double(), want.view(2, 3), atol=1e-4, rtol=1e-4)


def test_no_temperature(proposer):
    made, logits = proposer(), torch.randn(2, VOCABULARY, dtype=torch.bfloat16)
    made._sample_from_logits(logits.clone(), SimpleNamespace(temperature=None))
    (scores,) = recording.take(made)
    torch.testing.assert_close(scores.double(), expected(logits, "top"), atol=1e-4, rtol=1e-4)


def test_the_model_is_as_it_was(proposer):
    made = proposer()
    made._greedy_sample(torch.randn(2, 5))
    assert "compute_logits" not in vars(made.model)

    def own(hidden_states):
        return -made.model.head(hidden_states)

    made.model.compute_logits = own
    made._greedy_sample(torch.randn(2, 5))
    assert made.model.compute_logits is own

    def broken(hidden_states):
        raise RuntimeError("no memory")

    made.model.compute_logits = broken
    with pytest.raises(RuntimeError, match="no memory"):
        made._greedy_sample(torch.randn(2, 5))
    assert made.model.compute_logits is broken


def test_a_model_that_takes_its_argmax_itself_has_no_scores(proposer):
    made = proposer()
    made.local = True
    assert made._greedy_sample(torch.eye(5)).tolist() == [0, 1, 2, 3, 4]
    assert recording.take(made) == []


def test_nothing_is_recorded_unless_asked_for(proposer):
    made = proposer("off")
    made._greedy_sample(torch.randn(2, 5))
    made._sample_from_logits(torch.randn(2, VOCABULARY), SimpleNamespace(temperature=None))
    assert recording.take(made) == []
    assert proposer.asked == ["off"]


def test_each_proposer_has_its_own(proposer):
    first, second = proposer(), proposer()
    first._greedy_sample(torch.randn(2, 5))
    assert (len(recording.take(second)), len(recording.take(first))) == (0, 1)


def test_what_has_no_drafter_has_no_scores():
    assert recording.take(None) == []


def columns(*lens):
    return [torch.arange(n, dtype=torch.float32) + 10 * place for place, n in enumerate(lens)]


def test_scores_row_by_row():
    assert recording.as_matrix(columns(2, 2, 2), 2, 3).tolist() == [[0, 10, 20], [1, 11, 21]]
    assert recording.as_matrix(columns(6), 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert recording.as_matrix(columns(2), 2, 1).tolist() == [[0], [1]]


@pytest.mark.parametrize("recorded", [columns(2, 2), columns(2, 2, 2, 2), columns(2, 2, 3), columns(5), []])
def test_scores_of_other_drafts_are_none(recorded):
    """As of a step whose drafts were not taken, or of a batch that has changed."""
    assert recording.as_matrix(recorded, 2, 3) is None
