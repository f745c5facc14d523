#pragma once
// How the work is cut. Every share is a fixed one, so results do not depend on timing.

#include <algorithm>
#include <numbers>

#include "../../common/parallel.h"
#include "panels.h"

namespace msclr::info_nce_cpu {

// queries (P, B, D), keys (B, D), bank (Q, D); queries are counted view by view.
struct Inputs {
  int64_t views, batch, dim, bank_rows;
  Rows queries, keys, bank;
  double temperature;

  Inputs(const Tensor& queries_, const Tensor& keys_, const Tensor& bank_, double temperature_)
      : views(queries_.size(0)),
        batch(queries_.size(1)),
        dim(queries_.size(2)),
        bank_rows(bank_.size(0)),
        queries(queries_),
        keys(keys_),
        bank(bank_),
        temperature(temperature_) {}

  int64_t query_count() const { return views * batch; }
  // f in e^(x / T) = 2^(f x)
  double log2_factor() const { return std::numbers::log2e / temperature; }
};

inline int64_t thread_count(const Inputs& in) {
  constexpr int64_t kWorthAThread = 1 << 15;  // multiplications
  return std::clamp<int64_t>(in.query_count() * in.bank_rows * in.dim / kWorthAThread, 1,
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

  Cut(const Inputs& in, int64_t bytes_of_number, int64_t lanes) {
    constexpr int64_t kCacheBytes = 384 * 1024;  // of the queries of a block, and of as many sums
    constexpr int64_t kLeast = 2;                // vectors of queries that fill the registers
    const int64_t threads = thread_count(in);
    const int64_t most = std::max<int64_t>(
        kCacheBytes / (2 * bytes_of_number * std::max<int64_t>(in.dim, 1)), 256 / bytes_of_number);
    blocks = std::max((in.query_count() + most - 1) / most,
                      std::min(threads, in.query_count() / (kLeast * lanes)));
    blocks = blocks > threads ? round_up(blocks, threads) : std::max<int64_t>(blocks, 1);
    bank_parts =
        std::clamp<int64_t>(threads / blocks, 1, std::max<int64_t>(in.bank_rows / kTile, 1));
  }
};

}  // namespace msclr::info_nce_cpu
