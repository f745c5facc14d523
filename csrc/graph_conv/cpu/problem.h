#pragma once
// What both passes share: the work of a call, its parameters as matrices, and aggregated rows.

#include <algorithm>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/parallel.h"
#include "activations.h"
#include "kernels.h"
#include "skeleton_graph.h"

namespace msclr::graph_conv_cpu {

// Runs body(share, first, last) over equal shares of the tiles.
template <class F>
void for_shares(int64_t tiles, int64_t shares, const F& body) {
  in_parallel(shares, [&](int64_t i) { body(i, tiles * i / shares, tiles * (i + 1) / shares); });
}

// The parameters as dense rows of numbers: (K, C_out, C_in) and (K, C_out), the latter empty
// without a bias.
template <class S>
struct Parameters {
  std::vector<S> weight, bias;

  Parameters(const Tensor& w, const OptionalTensor& b)
      : weight(values<S>(w, "weight")), bias(b ? values<S>(*b, "bias") : std::vector<S>()) {}
};

// What a pass works on: a call, or one segment of packed rows.
template <class S>
struct Problem {
  Shape s;
  Widths width;
  Tiling tiling;
  SkeletonGraphs<S> graphs;
  const Parameters<S>& parameters;

  // Into how many shares the tiles go, of which each has sums of its own: as many as are worth it.
  int64_t shares(int64_t most) const {
    constexpr int64_t kWorthAThread = 1 << 15;  // multiplications
    const int64_t work = tiling.count * tiling.frames * s.joints * s.c_in * s.c_out * s.partitions;
    return std::clamp<int64_t>(std::min(tiling.count, work / kWorthAThread + 1), 1, most);
  }
};

// f(row of W, k, c), where c is C_in for the partition's row of biases.
template <class F>
void each_row(const Shape& s, const Widths& width, const Group& group, const F& f) {
  for (int64_t i = 0; i < std::ssize(group.partitions); ++i) {
    for (int64_t c = 0; c < s.c_in; ++c) f(i * width.x + c, group.partitions[i], c);
    f(group.ones(width) + i, group.partitions[i], s.c_in);
  }
}

// A group's W, (depth, C_out) with the biases as its last rows, rows `ld` apart and zeros after
// them; or its transpose.
template <class S>
Buffer<S> pack(const Shape& s, const Widths& width, const Group& group, const Parameters<S>& from,
               bool transpose, int64_t ld) {
  const int64_t size = (transpose ? s.c_out : group.depth(width)) * ld;
  Buffer<S> packed(size);
  std::fill_n(packed.get(), size, S(0));
  each_row(s, width, group, [&](int64_t row, int64_t k, int64_t c) {
    for (int64_t o = 0; o < s.c_out; ++o) {
      S& to = packed.get()[transpose ? o * ld + row : row * ld + o];
      if (c < s.c_in)
        to = from.weight[(k * s.c_out + o) * s.c_in + c];
      else if (!from.bias.empty())
        to = from.bias[k * s.c_out + o];
    }
  });
  return packed;
}

// One for each group of each layout.
template <class S>
using Packed = std::vector<std::vector<Buffer<S>>>;

template <class S, class F>
Packed<S> for_groups(const SkeletonGraphs<S>& graphs, const F& make) {
  Packed<S> out;
  for (const auto& graph : graphs.layouts) {
    auto& of_layout = out.emplace_back();
    for (const Group& group : graph.groups) of_layout.push_back(make(group));
  }
  return out;
}

// A thread's rows of z for one tile: neighbours added up, then the column sums that carry the bias.
// Those stay from one tile to the next of the same layout, and so do rows without neighbours.
template <class S>
class Aggregate {
 public:
  Aggregate(const Tiling& tiling, const Shape& s, const Widths& width)
      : frames_(tiling.frames),
        rows_(tiling.frames * s.joints),
        partitions_(s.partitions),
        width_(width),
        z_(rows_ * width.z) {}

  const S* operator()(const SkeletonGraph<S>& graph, int64_t frames, const S* x) {
    if (&graph != graph_) set_columns(graph);
    kernels<S>().gather(graph.forward, frames, width_.x, x, graph.joints * width_.x, z_.get());
    return z_.get();
  }

 private:
  void set_columns(const SkeletonGraph<S>& graph) {
    graph_ = &graph;
    std::fill_n(z_.get(), rows_ * width_.z, S(0));
    for (const Group& group : graph.groups)
      for (int64_t t = 0; t < frames_; ++t)
        group.each([&](int64_t w, int64_t place) {
          const int64_t row = group.first_row + t * group.joints + place;
          for (int64_t i = 0; i < std::ssize(group.partitions); ++i)
            z_.get()[row * width_.z + group.ones(width_) + i] =
                graph.columns[w * partitions_ + group.partitions[i]];
        });
  }

  int64_t frames_, rows_, partitions_;
  Widths width_;
  Buffer<S> z_;
  const SkeletonGraph<S>* graph_ = nullptr;
};

}  // namespace msclr::graph_conv_cpu
