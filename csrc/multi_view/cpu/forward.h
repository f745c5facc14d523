#pragma once

#include <vector>

#include "blocks.h"
#include "power_sum.h"
#include "tiles.h"

namespace msclr::multi_view_cpu {

// What the operator returns: a scalar and two of (P, P, B), of anchor view, key view and clip.
struct Outputs {
  Tensor loss, negatives, positives;
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
        negatives_(problem.pairs.views() * problem.pairs.slots() * problem.batch) {
    assign<S>(out.positives, [](int64_t) { return S(0); });
  }

  void run() {
    for_each_tile(problem_, [this] {
      return [this, tile = Tile()](int64_t a, int64_t b) { add(a, b, tile); };
    });
    finish();
  }

 private:
  struct Tile {
    Buffer<S> logits{kBlock * kBlock};
    Buffer<S> row_top{kBlock}, row_sum{kBlock}, column_top{kBlock}, column_sum{kBlock};
  };

  void add(int64_t a, int64_t b, const Tile& tile) {
    const Kernels<S>& run = kernels<S>();
    const Node &row = problem_.nodes[a], &column = problem_.nodes[b];
    const bool both = problem_.both_ways(a, b);
    S* x = tile.logits.get();
    const int64_t width = blocks_.logits(a, b, x);
    problem_.each_own(a, b, [&](int64_t r, int64_t c) {
      S& own = x[r * kBlock + c];
      const S logit = own * std::numbers::ln2;
      if (row.view != column.view) {
        of_pair(out_.positives, row.view, column.view)[row.first + r] = logit;
        if (both) of_pair(out_.positives, column.view, row.view)[column.first + c] = logit;
      }
      own = kMasked<S>;
    });
    if (blocks_.near()) {
      run.sums(x, row.count, width, tile.row_sum.get(), tile.column_sum.get());
      std::fill_n(tile.row_top.get(), kBlock, S(0));
      std::fill_n(tile.column_top.get(), kBlock, S(0));
    } else {
      run.row_sums(x, row.count, width, tile.row_top.get(), tile.row_sum.get());
      if (both) run.column_sums(x, row.count, width, tile.column_top.get(), tile.column_sum.get());
    }
    add(row, column.view, tile.row_top.get(), tile.row_sum.get());
    if (both) add(column, row.view, tile.column_top.get(), tile.column_sum.get());
  }

  // Negatives of one view for each of a node's anchors.
  void add(const Node& anchors, int64_t other, const S* top, const S* sum) {
    PowerSum* to = negatives(anchors.view, problem_.pairs.slot(other)) + anchors.first;
    for (int64_t r = 0; r < anchors.count; ++r)
      if (sum[r] != 0) to[r].add(top[r], sum[r]);
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
    const double weight = pairs.weight(anchor, key);
    S* log_sum_exp = of_pair(out_.negatives, anchor, key);
    const S* positive = of_pair(out_.positives, anchor, key);
    double loss = 0;
    for (int64_t b = 0; b < problem_.batch; ++b) {
      PowerSum sum = negatives(anchor, pairs.slot(key))[b];
      if (pairs.slot(key) != pairs.views()) sum.add(negatives(anchor, pairs.views())[b]);
      log_sum_exp[b] = weight > 0 ? sum.log2() * std::numbers::ln2 : 0;
      loss += softplus(sum.log2() * std::numbers::ln2 - positive[b]);
    }
    return weight > 0 ? weight * loss : 0;
  }

  S* of_pair(const Tensor& tensor, int64_t anchor, int64_t key) const {
    return static_cast<S*>(tensor.mutable_data_ptr()) +
           (anchor * problem_.pairs.views() + key) * problem_.batch;
  }

  PowerSum* negatives(int64_t anchor, int64_t slot) {
    return negatives_.data() + (anchor * problem_.pairs.slots() + slot) * problem_.batch;
  }

  const Problem& problem_;
  const Blocks<S>& blocks_;
  const Outputs out_;
  std::vector<PowerSum> negatives_;  // (P, slots, B)
};

}  // namespace msclr::multi_view_cpu
