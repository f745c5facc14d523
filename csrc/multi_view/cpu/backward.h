#pragma once

#include <utility>
#include <vector>

#include "blocks.h"
#include "power_sum.h"
#include "tiles.h"

namespace msclr::multi_view_cpu {

// The gradients to be filled in; an empty tensor where one is not wanted.
struct Gradients {
  std::vector<Tensor> rows;  // of each Part
  std::vector<bool> want_rows;
  Tensor temperature;
  bool want_temperature;
};

// With w the weight of a pair, l the log-sum-exp of an anchor's logits for it and p = exp(s - l),
// the gradient of each logit s is
//   g = the sum of w p over the pairs that s is a negative for,      g = -w (1 - p) at a positive
// so among negatives 2^x times a factor of the anchor alone. A tile of logits is computed a second
// time, becomes g, and is multiplied with the candidates for the anchors' gradient and, transposed,
// with the anchors for the candidates'.
template <class S>
class Backward {
 public:
  Backward(const Problem& problem, const Blocks<S>& blocks, const Tensor& negatives,
           const Tensor& positives, const Gradients& out)
      : problem_(problem),
        blocks_(blocks),
        out_(out),
        negatives_(values<S>(negatives, "negatives")),
        positives_(values<S>(positives, "positives")),
        stride_(round_up(problem.batch, kBlock)),
        factors_(problem.pairs.views() * problem.pairs.slots() * stride_, no_factor()),
        none_(kBlock, no_factor()),
        products_(problem.nodes.size()),
        sums_(problem.nodes.size() * size()) {
    const int64_t slots = problem.pairs.slots();
    in_parallel(problem.pairs.views() * slots,
                [&](int64_t i) { find_factors(i / slots, i % slots); });
  }

  // scale: the incoming gradient over the number of clips.
  void run(double scale, double temperature) {
    in_parallel(problem_.nodes.size(), [&](int64_t i) {
      if (wanted(i)) std::fill_n(sums(i), size(), S(0));
    });
    for_each_tile(problem_, [this] {
      return [this, tile = Tile()](int64_t a, int64_t b) { add(a, b, tile); };
    });
    scale /= temperature;
    write(static_cast<S>(scale));
    if (!out_.want_temperature) return;
    double product = 0;
    for (const double of_node : products_) product += of_node;
    assign<S>(out_.temperature, [&](int64_t) { return -scale * std::numbers::ln2 * product; });
  }

 private:
  struct Tile {
    Buffer<S> logits{kBlock * kBlock};
  };

  void add(int64_t a, int64_t b, const Tile& tile) {
    const Kernels<S>& run = kernels<S>();
    const Node &row = problem_.nodes[a], &column = problem_.nodes[b];
    const bool both = problem_.both_ways(a, b);
    S *x = tile.logits.get(), own[kBlock];
    const int64_t width = blocks_.logits(a, b, x);
    problem_.each_own(
        a, b, [&](int64_t r, int64_t c) { own[r] = std::exchange(x[r * kBlock + c], kMasked<S>); });
    const auto weigh = blocks_.near() ? run.weigh_near : run.weigh_far;
    products_[a] += weigh(x, row.count, width, factors_of(row, column.view),
                          both ? factors_of(column, row.view) : none_.data());
    problem_.each_own(a, b, [&](int64_t r, int64_t c) {
      const int64_t clip = row.first + r;
      const S g =
          -pull(row.view, column.view, clip) - (both ? pull(column.view, row.view, clip) : 0);
      x[r * kBlock + c] = g;
      products_[a] += g * own[r];
    });
    const int64_t ld = blocks_.width();
    if (wanted(a))
      run.product_add(row.count, ld, column.count, {x, kBlock, 1}, blocks_.rows(b), ld, sums(a),
                      ld);
    if (wanted(b))
      run.product_add(column.count, ld, row.count, {x, 1, kBlock}, blocks_.rows(a), ld, sums(b),
                      ld);
  }

  // w (1 - p) of a positive.
  double pull(int64_t anchor, int64_t key, int64_t clip) const {
    const double weight = problem_.pairs.weight(anchor, key);
    if (anchor == key || weight == 0) return 0;
    const int64_t i = (anchor * problem_.pairs.views() + key) * problem_.batch + clip;
    return weight / (1 + std::exp(double(positives_[i]) - negatives_[i]));
  }

  // What makes 2^x the g of a slot's negatives: a factor where all logits are near, else -log2 of
  // it, to be subtracted from x.
  void find_factors(int64_t anchor, int64_t slot) {
    const Pairs& pairs = problem_.pairs;
    S* to = factors(anchor, slot);
    for (int64_t b = 0; b < problem_.batch; ++b) {
      PowerSum sum;
      for (int64_t key = 0; key < pairs.views(); ++key) {
        const double weight = pairs.weight(anchor, key);
        if (weight == 0 || (slot != pairs.slot(key) && slot != pairs.views())) continue;
        const int64_t i = (anchor * pairs.views() + key) * problem_.batch + b;
        const double excess = double(negatives_[i]) - positives_[i];
        sum.add(-(positives_[i] + softplus(excess)) * std::numbers::log2e, weight);
      }
      to[b] = blocks_.near() ? std::exp2(sum.log2()) : -sum.log2();
    }
  }

  // That of anchors which are none, or for which the others are no negatives.
  S no_factor() const { return blocks_.near() ? S(0) : std::numeric_limits<S>::infinity(); }

  const S* factors_of(const Node& anchors, int64_t other) {
    return factors(anchors.view, problem_.pairs.slot(other)) + anchors.first;
  }

  S* factors(int64_t anchor, int64_t slot) {
    return factors_.data() + (anchor * problem_.pairs.slots() + slot) * stride_;
  }

  bool wanted(int64_t node) const { return out_.want_rows[problem_.nodes[node].part]; }
  int64_t size() const { return kBlock * blocks_.width(); }  // of a node's sums
  S* sums(int64_t node) const { return sums_.get() + node * size(); }

  void write(S scale) const {
    in_parallel(problem_.nodes.size(), [&](int64_t i) {
      if (!wanted(i)) return;
      const Node& node = problem_.nodes[i];
      const Tensor& out = out_.rows[node.part];  // contiguous, for it was made here
      dispatch(out.scalar_type(), "gradient", [&](auto* tag) {
        using T = std::remove_pointer_t<decltype(tag)>;
        T* to = static_cast<T*>(out.mutable_data_ptr()) + node.row * problem_.dim;
        for (int64_t r = 0; r < node.count; ++r)
          for (int64_t c = 0; c < problem_.dim; ++c)
            *to++ = static_cast<T>(scale * sums(i)[r * blocks_.width() + c]);
      });
    });
  }

  const Problem& problem_;
  const Blocks<S>& blocks_;
  const Gradients& out_;
  const std::vector<S> negatives_, positives_;  // (P, P, B), see Outputs
  const int64_t stride_;
  std::vector<S> factors_;        // (P, slots, stride)
  const std::vector<S> none_;     // as many as a node's
  std::vector<double> products_;  // of each node, the sum of g x
  const Buffer<S> sums_;          // of each node, what its rows' gradient is a multiple of
};

}  // namespace msclr::multi_view_cpu
