// Introselect (Musser, "Introspective sorting and selection algorithms", 1997) as std::nth_element, over keys that
// carry position and request, so that no two are equal.
#include "fixed_point.hpp"
#include <vector>

extern "C" void select_drafts(const float *logprobs, int32_t num_requests, int32_t num_drafts, int64_t budget,
                              const int32_t *draft_lens, int32_t *lens, int32_t *cu_lens) {
    const Batch batch{logprobs, num_requests, num_drafts, draft_lens};
    static thread_local std::vector<uint64_t> entries;
    entries.resize(size_t{static_cast<uint32_t>(num_requests)} * num_drafts);
    uint64_t *end = entries.data();
    for (int32_t r = 0; r < num_requests; ++r) {
        lens[r] = 0;
        uint32_t key = 0;
        for (int32_t j = 0; j < batch.length(r); ++j) *end++ = pack_entry(key += token_cost(batch.row(r)[j]), j, r);
    }
    uint64_t *begin = entries.data(), *cut = begin + std::clamp<int64_t>(budget, 0, end - begin);
    if (cut < end) std::nth_element(begin, cut, end);
    for (const uint64_t *entry = begin; entry < cut; ++entry) ++lens[request_of(*entry)];
    sum_up(lens, num_requests, cu_lens);
}
