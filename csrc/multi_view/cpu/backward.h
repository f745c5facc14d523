#pragma once

#include <utility>
#include <vector>

#include "blocks.h"
#include "tiles.h"

namespace msclr::multi_view_cpu {

// The gradients to be filled in; an empty tensor where one is not wanted.
struct Gradients {
  std::vector<Tensor> rows;  // of each Part
  std::vector<bool> want_rows;
  Tensor temperature;
  bool want_temperature;
};

// With w the weight of a pair and p a candidate's share of its sum of exponentials, the gradient of
// each logit is
//   g = the sum of w p over the pairs that it is a negative for,     g = -w (1 - p) at a positive
// so among negatives the exponential times a factor of the anchor alone. A tile of logits is
// computed a second time, becomes g, and is multiplied with the candidates for the anchors'
// gradient and, transposed, with the anchors for the candidates'.
//
// The temperature's gradient is the sum of g times logit. Where logits may be large, it takes
// similarities less one of the anchor, its base, for each anchor's g add up to 0.
template <class S>
class Backward {
 public:
  Backward(const Problem& problem, const Blocks<S>& blocks, const Kept& kept, const Gradients& out)
      : problem_(problem),
        blocks_(blocks),
        out_(out),
        excesses_(values<S>(kept.excesses, "excesses")),
        shifts_(values<S>(kept.shifts, "shifts")),
        log_sums_(values<S>(kept.log_sums, "log_sums")),
        stride_(round_up(problem.batch, kBlock)),
        factors_(problem.pairs.views() * problem.pairs.slots() * stride_, no_factor()),
        slot_shifts_(factors_.size(), S(0)),
        no_factors_(kBlock, no_factor()),
        no_shifts_(kBlock, S(0)),
        products_(problem.nodes.size()),
        sums_(problem.nodes.size() * size()) {
    const int64_t slots = problem.pairs.slots();
    in_parallel(problem.pairs.views() * slots,
                [&](int64_t i) { find_factors(i / slots, i % slots); });
  }

  // scale: the incoming gradient over the number of clips.
  void run(double scale) {
    in_parallel(problem_.nodes.size(), [&](int64_t i) {
      if (wanted(i)) std::fill_n(sums(i), size(), S(0));
    });
    for_each_tile(problem_, [this] {
      return [this, tile = Tile()](int64_t a, int64_t b) { add(a, b, tile); };
    });
    scale /= blocks_.temperature;
    write(static_cast<S>(scale));
    if (!out_.want_temperature) return;
    double product = 0;
    for (const double of_node : products_) product += of_node;
    product *= blocks_.unit() * std::numbers::ln2;
    assign<S>(out_.temperature, [&](int64_t) { return -scale * product; });
  }

 private:
  struct Tile {
    Buffer<S> x{kBlock * kBlock};
  };

  void add(int64_t a, int64_t b, const Tile& tile) {
    const Kernels<S>& run = kernels<S>();
    const Node &row = problem_.nodes[a], &column = problem_.nodes[b];
    const bool both = problem_.both_ways(a, b);
    S *x = tile.x.get(), own[kBlock];
    const int64_t width = blocks_.multiply(a, b, x);
    problem_.each_own(
        a, b, [&](int64_t r, int64_t c) { own[r] = std::exchange(x[r * kBlock + c], kMasked<S>); });
    const FarAnchors<S> across = anchors(row, column.view),
                        down = both ? anchors(column, row.view) : no_anchors();
    products_[a] += blocks_.near()
                        ? run.weigh_near(x, row.count, width, across.log2, down.log2)
                        : run.weigh_far(x, row.count, width, blocks_.unit(), across, down);
    problem_.each_own(a, b, [&](int64_t r, int64_t c) {
      const int64_t clip = row.first + r;
      const double of_row = pull(row.view, column.view, clip);
      const double of_column = both ? pull(column.view, row.view, clip) : 0;
      x[r * kBlock + c] = -of_row - of_column;
      products_[a] -= of_row * (own[r] - across.base[r]) + of_column * (own[r] - down.base[c]);
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
    return weight / (1 + std::exp(-double(excesses_[i])));
  }

  // What makes the g of a slot's negatives: where all logits are near, a factor of 2^x. Otherwise a
  // shift, the smallest of the slot's keys, for all of its negatives lie below; and log2 of the
  // factor of what they are relative to it.
  void find_factors(int64_t anchor, int64_t slot) {
    const Pairs& pairs = problem_.pairs;
    const int64_t to = (anchor * pairs.slots() + slot) * stride_;
    for (int64_t b = 0; b < problem_.batch; ++b) {
      auto each_key = [&](const auto& f) {
        for (int64_t key = 0; key < pairs.views(); ++key)
          if (pairs.weight(anchor, key) > 0 && (slot == pairs.slot(key) || slot == pairs.views()))
            f(pairs.weight(anchor, key), (anchor * pairs.views() + key) * problem_.batch + b);
      };
      double shift = std::numeric_limits<double>::infinity(), sum = 0;
      each_key([&](double, int64_t i) { shift = std::min<double>(shift, shifts_[i]); });
      each_key([&](double weight, int64_t i) {
        sum += weight * std::exp((shift - shifts_[i]) / blocks_.temperature - log_sums_[i]);
      });
      if (sum == 0) continue;  // anchors of no key
      if (blocks_.near()) {
        factors_[to + b] = sum * std::exp(-shift / blocks_.temperature);
      } else {
        factors_[to + b] = std::log2(sum);
        slot_shifts_[to + b] = shift;
      }
    }
  }

  // That of anchors which are none, or for which the others are no negatives.
  S no_factor() const { return blocks_.near() ? S(0) : -std::numeric_limits<S>::infinity(); }

  FarAnchors<S> no_anchors() const {
    return {.shift = no_shifts_.data(), .log2 = no_factors_.data(), .base = no_shifts_.data()};
  }

  FarAnchors<S> anchors(const Node& node, int64_t other) const {
    auto at = [&](int64_t slot) {
      return (node.view * problem_.pairs.slots() + slot) * stride_ + node.first;
    };
    const int64_t slot = at(problem_.pairs.slot(other)), of_all = at(problem_.pairs.views());
    return {.shift = &slot_shifts_[slot], .log2 = &factors_[slot], .base = &slot_shifts_[of_all]};
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
  const std::vector<S> excesses_, shifts_, log_sums_;  // (P, P, B), see Kept
  const int64_t stride_;
  std::vector<S> factors_, slot_shifts_;         // (P, slots, stride)
  const std::vector<S> no_factors_, no_shifts_;  // as many as a node's
  std::vector<double> products_;                 // of each node, the sum of g x
  const Buffer<S> sums_;  // of each node, what its rows' gradient is a multiple of
};

}  // namespace msclr::multi_view_cpu
