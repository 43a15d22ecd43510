// Radix selection on the fixed-point keys, most significant digit first: count the digits, keep the digit with the
// cut, go on within it. The idea is that of Alabi et al., "Fast k-selection algorithms for graphics processing units"
// (2012), on one core.
#include "fixed_point.hpp"
#include <bit>
#include <vector>

namespace {

struct Cut {
    int32_t key;    // the largest that is kept
    int64_t rest;   // how many of this key are kept
    bool all;       // whether that is all of them
};

// Where `size` >= 1 keys out of `count` end, none above `largest`.
Cut find_cut(const int32_t *keys, int64_t count, int32_t largest, int64_t size) {
    static thread_local std::vector<int32_t> candidates;
    candidates.resize(count);
    // A histogram that is larger than the batch costs more than it narrows.
    const int digit_bits = count < 4096 ? 8 : 11;
    std::vector<uint32_t> histogram(size_t{1} << digit_bits);
    int32_t lowest = 0;
    for (;;) {
        const int shift = std::max(int(std::bit_width(uint32_t(largest - lowest))) - digit_bits, 0);
        std::fill(histogram.begin(), histogram.end(), 0);
        for (int64_t i = 0; i < count; ++i) ++histogram[(keys[i] - lowest) >> shift];
        int32_t digit = 0;
        while (size > histogram[digit]) size -= histogram[digit++];
        lowest += digit << shift;
        largest = lowest + (1 << shift) - 1;
        if (size == histogram[digit] || shift == 0) return {largest, size, size == histogram[digit]};

        int64_t kept = 0;
        for (int64_t i = 0; i < count; ++i) {
            const int32_t key = keys[i];
            candidates[kept] = key;
            kept += key >= lowest && key <= largest;
        }
        keys = candidates.data();
        count = kept;
    }
}

}  // namespace

extern "C" void select_drafts(const float *logprobs, int32_t num_requests, int32_t num_drafts, int64_t budget,
                              const int32_t *draft_lens, int32_t *lens, int32_t *cu_lens) {
    const Batch batch{logprobs, num_requests, num_drafts, draft_lens};
    const int64_t num_entries = int64_t{num_requests} * num_drafts;
    static thread_local std::vector<int32_t> keys;
    keys.resize(num_entries);
    for (int64_t i = 0; i < num_entries; ++i) keys[i] = token_cost(logprobs[i]);

    // Sums along the rows, in place; the real drafts move together.
    int32_t largest = 0, *end = keys.data();
    for (int32_t r = 0; r < num_requests; ++r) {
        const int32_t *cost = keys.data() + int64_t{r} * num_drafts, length = batch.length(r);
        int32_t key = 0;
        for (int32_t j = 0; j < length; ++j) *end++ = key += cost[j];
        largest = std::max(largest, key);
    }
    const int64_t count = end - keys.data(), size = std::clamp<int64_t>(budget, 0, count);
    const Cut cut = size > 0 ? find_cut(keys.data(), count, largest, size) : Cut{-1, 0, true};

    const int32_t below = cut.all ? cut.key : cut.key - 1;
    const int32_t *row = keys.data();
    for (int32_t r = 0; r < num_requests; row += batch.length(r++)) {
        int32_t kept = 0;
        for (int32_t j = 0; j < batch.length(r); ++j) kept += row[j] <= below;
        lens[r] = kept;
    }
    // Ties go position by position, and within a position request by request.
    int64_t rest = cut.all ? 0 : cut.rest;
    for (int32_t j = 0; rest > 0; ++j) {
        row = keys.data();
        for (int32_t r = 0; r < num_requests && rest > 0; row += batch.length(r++)) {
            const bool tied = j < batch.length(r) && row[j] == cut.key;
            lens[r] += tied;
            rest -= tied;
        }
    }
    sum_up(lens, num_requests, cu_lens);
}
