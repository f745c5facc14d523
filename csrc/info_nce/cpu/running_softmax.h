#pragma once

#include <vector>

#include "nearest.h"
#include "panels.h"

namespace msclr::info_nce_cpu {

// The softmax over the columns seen so far of a block of queries. With x_j = q.k_j, the similarity
// to column j, and e_j = exp((x_j - largest) / T), each query holds
//   largest = max_j x_j,   sum = sum_j e_j,   weighted = sum_j e_j k_j
// It starts with the key's similarity, so `largest` is finite from the beginning on.
template <class S>
class RunningSoftmax {
 public:
  RunningSoftmax(int64_t queries, int64_t dim, int64_t top_k, S factor)
      : queries_(queries),
        stride_(round_up(dim, kernels<S>().lanes)),
        factor_(factor),
        largest_(round_up(queries, kernels<S>().lanes)),
        weighted_(queries * stride_),
        sum_(queries),
        nearest_(queries, top_k),
        similarities_(kTile * kPanel<S>) {
    std::fill_n(largest_.get(), round_up(queries, kernels<S>().lanes), S(0));
    std::fill_n(weighted_.get(), queries * stride_, S(0));
  }

  // The key of a query; where it is counted elsewhere, its similarity is a first guess alone.
  void start(int64_t query, S similarity, const S* key, int64_t dim, bool counts) {
    largest_.get()[query] = similarity;
    if (!counts) return;
    sum_[query] = 1;
    std::copy_n(key, dim, weighted(query));
  }

  // The tile's rows, bank rows from `first_row` on, as columns of the panel's queries.
  void add(const Panel<S>& panel, BankTile<S>& tile, int64_t first_row) {
    const Kernels<S>& run = kernels<S>();
    S* x = similarities_.get();
    S top[kPanel<S>], sum[kPanel<S>];
    tile.similarities(panel, x);
    run.column_max(x, tile.count(), panel.width, top);
    for (int64_t i = 0; i < panel.count; ++i) {
      const int64_t query = panel.first + i;
      nearest_.offer(query, x + i, panel.width, tile.count(), first_row, top[i]);
      if (top[i] > largest_.get()[query]) raise(query, top[i]);
    }
    run.weigh(x, tile.count(), panel.width, largest_.get() + panel.first, factor_, sum);
    for (int64_t i = 0; i < panel.count; ++i) sum_[panel.first + i] += sum[i];
    tile.add_weighted(panel, x, weighted(panel.first), stride_);
  }

  // The same queries over other columns.
  void merge(const RunningSoftmax& other) {
    for (int64_t query = 0; query < queries_; ++query) {
      if (other.largest(query) > largest(query)) raise(query, other.largest(query));
      const S scale = std::exp2((other.largest(query) - largest(query)) * factor_);
      sum_[query] += scale * other.sum_[query];
      for (int64_t c = 0; c < stride_; ++c)
        weighted(query)[c] += scale * other.weighted_.get()[query * stride_ + c];
    }
    nearest_.merge(other.nearest_);
  }

  S largest(int64_t query) const { return largest_.get()[query]; }
  double log_sum(int64_t query) const { return std::log(sum_[query]); }
  void take_nearest(int64_t query, int64_t* rows) { nearest_.take(query, rows); }

  void mean(int64_t query, int64_t dim, S* to) {
    const S scale = 1 / sum_[query];
    for (int64_t c = 0; c < dim; ++c) to[c] = weighted(query)[c] * scale;
  }

 private:
  S* weighted(int64_t query) { return weighted_.get() + query * stride_; }

  void raise(int64_t query, S largest) {
    const S scale = std::exp2((largest_.get()[query] - largest) * factor_);
    largest_.get()[query] = largest;
    sum_[query] *= scale;
    for (int64_t c = 0; c < stride_; ++c) weighted(query)[c] *= scale;
  }

  int64_t queries_, stride_;
  S factor_;
  Buffer<S> largest_, weighted_;
  std::vector<double> sum_;
  Nearest<S> nearest_;
  Buffer<S> similarities_;  // of one tile and panel
};

}  // namespace msclr::info_nce_cpu
