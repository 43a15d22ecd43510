// A heap of the requests' frontiers, Algorithm 1 of TETRIS (arXiv 2502.15197), with std::priority_queue.
#include "fixed_point.hpp"
#include <functional>
#include <queue>
#include <vector>

extern "C" void select_drafts(const float *logprobs, int32_t num_requests, int32_t num_drafts, int64_t budget,
                              const int32_t *draft_lens, int32_t *lens, int32_t *cu_lens) {
    const Batch batch{logprobs, num_requests, num_drafts, draft_lens};
    std::vector<uint64_t> first;
    first.reserve(num_requests);
    for (int32_t r = 0; r < num_requests; ++r) {
        lens[r] = 0;
        if (batch.length(r) > 0) first.push_back(pack_entry(token_cost(batch.row(r)[0]), 0, r));
    }
    std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> frontier(std::greater<>(), std::move(first));
    for (int64_t kept = 0; kept < budget && !frontier.empty(); ++kept) {
        const uint64_t best = frontier.top();
        frontier.pop();
        const uint32_t request = request_of(best);
        const int32_t next = lens[request] = position_of(best) + 1;
        if (next < batch.length(request))
            frontier.push(pack_entry(key_of(best) + token_cost(batch.row(request)[next]), next, request));
    }
    sum_up(lens, num_requests, cu_lens);
}
