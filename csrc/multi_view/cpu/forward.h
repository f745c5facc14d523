#pragma once

#include <vector>

#include "blocks.h"
#include "power_sum.h"
#include "tiles.h"

namespace msclr::multi_view_cpu {

// What the operator returns, the loss a scalar.
struct Outputs {
  Tensor loss;
  Kept kept;
};

// Adds up exp(s) over the negatives of every anchor, a tile of logits at a time. A tile between two
// nodes of the views serves both: its rows the one's anchors, its columns the other's.
template <class S>
class Forward {
 public:
  Forward(const Problem& problem, const Blocks<S>& blocks, const Outputs& out)
      : problem_(problem),
        blocks_(blocks),
        out_(out),
        negatives_(problem.pairs.views() * problem.pairs.slots() * problem.batch),
        positives_(problem.pairs.views() * problem.pairs.views() * problem.batch) {}

  void run() {
    for_each_tile(problem_, [this] {
      return [this, tile = Tile()](int64_t a, int64_t b) { add(a, b, tile); };
    });
    finish();
  }

 private:
  struct Tile {
    Buffer<S> x{kBlock * kBlock};
    Buffer<S> row_top{kBlock}, row_sum{kBlock}, column_top{kBlock}, column_sum{kBlock};
  };

  void add(int64_t a, int64_t b, const Tile& tile) {
    const Kernels<S>& run = kernels<S>();
    const Node &row = problem_.nodes[a], &column = problem_.nodes[b];
    const bool both = problem_.both_ways(a, b);
    S* x = tile.x.get();
    const int64_t width = blocks_.multiply(a, b, x);
    problem_.each_own(a, b, [&](int64_t r, int64_t c) {
      S& own = x[r * kBlock + c];
      const S similarity = own * blocks_.unit() * std::numbers::ln2 * blocks_.temperature;
      if (row.view != column.view) {
        of_pair(positives_.data(), row.view, column.view)[row.first + r] = similarity;
        if (both) of_pair(positives_.data(), column.view, row.view)[column.first + c] = similarity;
      }
      own = kMasked<S>;
    });
    if (blocks_.near()) {
      run.sums(x, row.count, width, tile.row_sum.get(), tile.column_sum.get());
      std::fill_n(tile.row_top.get(), kBlock, S(0));
      std::fill_n(tile.column_top.get(), kBlock, S(0));
    } else {
      const S unit = blocks_.unit();
      run.row_sums(x, row.count, width, unit, tile.row_top.get(), tile.row_sum.get());
      if (both)
        run.column_sums(x, row.count, width, unit, tile.column_top.get(), tile.column_sum.get());
    }
    add(row, column.view, tile.row_top.get(), tile.row_sum.get());
    if (both) add(column, row.view, tile.column_top.get(), tile.column_sum.get());
  }

  // Negatives of one view for each of a node's anchors.
  void add(const Node& anchors, int64_t other, const S* top, const S* sum) {
    PowerSum* to = negatives(anchors.view, problem_.pairs.slot(other)) + anchors.first;
    for (int64_t r = 0; r < anchors.count; ++r)
      if (sum[r] != 0) to[r].add(top[r] * blocks_.unit(), sum[r]);
  }

  void finish() {
    const int64_t views = problem_.pairs.views();
    std::vector<double> losses(views * views);
    in_parallel(views * views, [&](int64_t i) { losses[i] = finish(i / views, i % views); });
    double loss = 0;
    for (const double of_pair : losses) loss += of_pair;
    assign<S>(out_.loss, [&](int64_t) { return static_cast<S>(loss / problem_.batch); });
  }

  double finish(int64_t anchor, int64_t key) {
    const Pairs& pairs = problem_.pairs;
    const double weight = pairs.weight(anchor, key), temperature = blocks_.temperature;
    const S* positive = of_pair(positives_.data(), anchor, key);
    S* excess = of_pair(numbers(out_.kept.excesses), anchor, key);
    S* shift = of_pair(numbers(out_.kept.shifts), anchor, key);
    S* log_sum = of_pair(numbers(out_.kept.log_sums), anchor, key);
    double loss = 0;
    for (int64_t b = 0; b < problem_.batch; ++b) {
      excess[b] = shift[b] = log_sum[b] = 0;
      if (weight == 0) continue;
      PowerSum sum = negatives(anchor, pairs.slot(key))[b];
      if (pairs.slot(key) != pairs.views()) sum.add(negatives(anchor, pairs.views())[b]);
      const double log_sum_exp = sum.log2() * std::numbers::ln2;
      const double difference = log_sum_exp - positive[b] / temperature;
      const double of_clip = softplus(difference);
      excess[b] = difference;
      // Where the positive is the shift, a loss of almost nothing is the log sum, digit by digit.
      shift[b] = difference <= 0 ? positive[b] : log_sum_exp * temperature;
      log_sum[b] =
          difference <= 0 ? of_clip : log_sum_exp - shift[b] / temperature + softplus(-difference);
      loss += of_clip;
    }
    return weight * loss;
  }

  static S* numbers(const Tensor& tensor) { return static_cast<S*>(tensor.mutable_data_ptr()); }

  S* of_pair(S* numbers, int64_t anchor, int64_t key) const {
    return numbers + (anchor * problem_.pairs.views() + key) * problem_.batch;
  }

  PowerSum* negatives(int64_t anchor, int64_t slot) {
    return negatives_.data() + (anchor * problem_.pairs.slots() + slot) * problem_.batch;
  }

  const Problem& problem_;
  const Blocks<S>& blocks_;
  const Outputs out_;
  std::vector<PowerSum> negatives_;  // (P, slots, B)
  std::vector<S> positives_;         // (P, P, B): similarities
};

}  // namespace msclr::multi_view_cpu
