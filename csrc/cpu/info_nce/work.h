#pragma once
// How the work is cut. Every share is a fixed one, so results do not depend on timing.

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "panels.h"

namespace msclr::info_nce_cpu {

struct Sizes {
  int64_t views, batch, dim, bank;

  int64_t queries() const { return views * batch; }
};

// body(i) for i = 0 .. count-1, on as many threads as there are.
template <class F>
void in_parallel(int64_t count, const F& body) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

inline int64_t thread_count(const Sizes& s) {
  constexpr int64_t kWorthAThread = 1 << 15;  // multiplications
  return std::clamp<int64_t>(s.queries() * s.bank * s.dim / kWorthAThread, 1,
                             torch::stable::get_num_threads());
}

// Part i of `parts` equal ones of a range.
struct Range {
  int64_t first, last;

  Range(int64_t all, int64_t i, int64_t parts)
      : first(all * i / parts), last(all * (i + 1) / parts) {}
  int64_t count() const { return last - first; }
};

// Queries are cut into blocks, which are independent of each other: whoever computes them, the
// result is the same. Only where they are too few to keep all threads busy the bank is cut too.
struct Cut {
  int64_t blocks, bank_parts;

  Cut(const Sizes& s, int64_t bytes_of_number, int64_t lanes) {
    constexpr int64_t kCacheBytes = 384 * 1024;  // of the queries of a block, and of as many sums
    constexpr int64_t kLeast = 2;                // vectors of queries that fill the registers
    const int64_t threads = thread_count(s);
    const int64_t most = std::max<int64_t>(
        kCacheBytes / (2 * bytes_of_number * std::max<int64_t>(s.dim, 1)), 256 / bytes_of_number);
    blocks = std::max((s.queries() + most - 1) / most,
                      std::min(threads, s.queries() / (kLeast * lanes)));
    blocks = blocks > threads ? round_up(blocks, threads) : std::max<int64_t>(blocks, 1);
    bank_parts = std::clamp<int64_t>(threads / blocks, 1, std::max<int64_t>(s.bank / kTile, 1));
  }
};

}  // namespace msclr::info_nce_cpu
