// The contract's order keys for the C++ peers, and what they share around them.
#pragma once
#include <algorithm>
#include <cstdint>

// Of NaN and 64 the first comparison takes 64.
inline int32_t token_cost(float logprob) {
    float nats = -logprob;
    nats = nats < 64.0f ? nats : 64.0f;
    nats = nats > 0.0f ? nats : 0.0f;
    return static_cast<int32_t>(nats * 65536.0f);
}

// Key, position, request in one number whose order is the contract's: 31, 8 and 25 bits.
inline uint64_t pack_entry(uint32_t key, uint32_t position, uint32_t request) {
    return (uint64_t{key} << 33) | (uint64_t{position} << 25) | request;
}
inline uint32_t key_of(uint64_t entry) { return static_cast<uint32_t>(entry >> 33); }
inline uint32_t position_of(uint64_t entry) { return (entry >> 25) & 255; }
inline uint32_t request_of(uint64_t entry) { return entry & ((1u << 25) - 1); }

struct Batch {
    const float *logprobs;      // [num_requests, num_drafts]
    int32_t num_requests;
    int32_t num_drafts;
    const int32_t *draft_lens;  // [num_requests], or null

    const float *row(int32_t request) const { return logprobs + int64_t{request} * num_drafts; }
    int32_t length(int32_t request) const {
        return draft_lens ? std::clamp(draft_lens[request], 0, num_drafts) : num_drafts;
    }
};

inline void sum_up(const int32_t *lens, int32_t num_requests, int32_t *cu_lens) {
    int32_t total = 0;
    cu_lens[0] = 0;
    for (int32_t r = 0; r < num_requests; ++r) cu_lens[r + 1] = total += lens[r];
}
