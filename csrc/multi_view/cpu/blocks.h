#pragma once

#include <algorithm>
#include <numbers>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/parallel.h"
#include "problem.h"

namespace msclr::multi_view_cpu {

// The numbers of every node: its rows, `width` apart with zeros at their ends, and their transpose
// (D, kBlock), zeros where it has no rows. The product of the one with the other is a tile of
// numbers x: similarities; or, where all are near, logits in units of log 2, for the transpose is
// then times log2(e)/T.
template <class S>
class Blocks {
 public:
  Blocks(const Problem& problem, double temperature)
      : temperature(temperature),
        problem_(problem),
        width_(round_up(problem.dim, kernels<S>().lanes)),
        rows_(std::ssize(problem.nodes) * kBlock * width_),
        columns_(std::ssize(problem.nodes) * kBlock * problem.dim) {
    const std::vector<Rows> from(problem.tensors.begin(), problem.tensors.end());
    const double factor = std::numbers::log2e / temperature;
    std::vector<char> small(problem.nodes.size());
    in_parallel(problem.nodes.size(), [&](int64_t i) {
      const Node& node = problem.nodes[i];
      from[node.part].read(node.row, node.count, rows(i), width_);
      small[i] = transpose(i, static_cast<S>(factor)) <= kNear * factor;
    });
    near_ = std::all_of(small.begin(), small.end(), [](char each) { return each; });
    if (near_) return;
    unit_ = factor;
    in_parallel(problem.nodes.size(), [&](int64_t i) { transpose(i, S(1)); });
  }

  const double temperature;

  int64_t width() const { return width_; }
  S* rows(int64_t node) const { return rows_.get() + node * kBlock * width_; }
  S* columns(int64_t node) const { return columns_.get() + node * kBlock * problem_.dim; }

  // Whether every logit is so small that 2^x, and a sum of as many as there are, is far from
  // overflow and underflow, so that none needs to be taken relative to the largest.
  bool near() const { return near_; }

  // x times this is the logit in units of log 2.
  double unit() const { return unit_; }

  // x[r * kBlock + c], for the nodes' rows r and c; masked past the last c. Returns how many
  // columns that makes.
  int64_t multiply(int64_t a, int64_t b, S* x) const {
    const int64_t rows_of_a = problem_.nodes[a].count, count = problem_.nodes[b].count;
    const int64_t padded = round_up(count, kernels<S>().lanes);
    kernels<S>().product(rows_of_a, padded, problem_.dim, {rows(a), width_, 1}, columns(b), kBlock,
                         x, kBlock);
    for (int64_t r = 0; r < rows_of_a; ++r)
      std::fill(x + r * kBlock + count, x + r * kBlock + padded, kMasked<S>);
    return padded;
  }

 private:
  // Of |x|; sums of 2^20 such powers stay below 2^128.
  static constexpr double kNear = 96;

  // Returns the largest squared norm of what it writes, NaN if there is one.
  double transpose(int64_t node, S factor) const {
    const int64_t count = problem_.nodes[node].count;
    S squares[kBlock] = {};
    for (int64_t c = 0; c < problem_.dim; ++c) {
      const S* from = rows(node) + c;
      S* to = columns(node) + c * kBlock;
      for (int64_t r = 0; r < count; ++r) to[r] = factor * from[r * width_];
      std::fill(to + count, to + kBlock, S(0));
      for (int64_t r = 0; r < kBlock; ++r) squares[r] += to[r] * to[r];
    }
    double largest = 0;
    for (const double square : squares)
      if (!(square <= largest)) largest = square;
    return largest;
  }

  const Problem& problem_;
  int64_t width_;
  Buffer<S> rows_, columns_;
  bool near_;
  double unit_ = 1;
};

}  // namespace msclr::multi_view_cpu
