#pragma once
// The skeleton graphs of all layouts in the form that the inner loops want.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../graph_conv.h"
#include "../buffer.h"
#include "../elements.h"
#include "terms.h"

namespace msclr::graph_conv_cpu {

// How rows of scratch memory are laid out: x's hold the channels, rounded up to kGranule; z's and
// u's hold those of every partition and then one number a partition, the channel of ones.
struct Widths {
  int64_t x, ones, depth, z, y;

  Widths(const Shape& s, int64_t lanes)
      : x(round_up(s.c_in, kGranule)),
        ones(s.partitions * x),
        depth(ones + s.partitions),
        z(round_up(depth, lanes)),
        y(round_up(s.c_out, lanes)) {}
};

// One layout's graph as the inner loops want it.
template <class S>
struct SkeletonGraph {
  // Where the gradient of an entry stands: in the adjacency, among the sums of products of rows,
  // and among the sums of columns, which are those of the channel of ones.
  struct Entry {
    int64_t adjacency, product, column;
  };

  int64_t joints;             // real ones
  Terms<S> forward;           // rows of x -> rows of z
  Terms<S> backward;          // rows of u -> rows of dx
  std::vector<S> columns;     // (joints, K): sum_v A[k,v,w]
  std::vector<Link> links;    // rows of x and of u whose products are summed, if few are wanted
  std::vector<Entry> wanted;  // entries of which a gradient is wanted
  bool dense = false;         // so many that all are computed: products (K, joints, width)
  int64_t width = 0;

  int64_t product_count(int64_t partitions) const {
    return dense ? partitions * joints * width : links.size();
  }
};

// What is known of the entries of one layout's adjacency.
template <class S>
struct Entries {
  const S* value;       // (K, V, V)
  const bool* allowed;  // the same, or null
  int64_t first, partitions, joints;

  int64_t at(int64_t k, int64_t v, int64_t w) const { return (k * joints + v) * joints + w; }
  bool may_differ(int64_t e) const { return !allowed || allowed[e]; }
  bool linked(int64_t e) const { return value[e] != S(0) && may_differ(e); }
};

template <class S>
void add_neighbours(SkeletonGraph<S>& graph, const Entries<S>& a, const Widths& width) {
  graph.columns.assign(graph.joints * a.partitions, S(0));
  for (int64_t w = 0; w < graph.joints; ++w)
    for (int64_t k = 0; k < a.partitions; ++k) {
      for (int64_t v = 0; v < graph.joints; ++v)
        if (const int64_t e = a.at(k, v, w); a.linked(e)) {
          graph.forward.add(v * width.x, a.value[e]);
          graph.columns[w * a.partitions + k] += a.value[e];
        }
      graph.forward.close(w * width.z + k * width.x);
    }
  for (int64_t v = 0; v < graph.joints; ++v) {
    for (int64_t k = 0; k < a.partitions; ++k)
      for (int64_t w = 0; w < graph.joints; ++w)
        if (const int64_t e = a.at(k, v, w); a.linked(e))
          graph.backward.add(w * width.z + k * width.x, a.value[e]);
    graph.backward.close(v * width.x);
  }
}

template <class S>
void add_wanted(SkeletonGraph<S>& graph, const Entries<S>& a, const Widths& width, int64_t lanes) {
  for (int64_t k = 0; k < a.partitions; ++k)
    for (int64_t w = 0; w < graph.joints; ++w)
      for (int64_t v = 0; v < graph.joints; ++v)
        if (const int64_t e = a.at(k, v, w); a.may_differ(e)) {
          graph.wanted.push_back(
              {a.first + e, static_cast<int64_t>(graph.links.size()), w * a.partitions + k});
          graph.links.push_back({v * width.x, w * width.z + k * width.x});
        }
  graph.width = round_up(graph.joints, lanes);
  const int64_t all = a.partitions * graph.joints * graph.width;
  graph.dense = 4 * static_cast<int64_t>(graph.links.size()) > all;
  if (!graph.dense) return;
  for (auto& entry : graph.wanted) {
    const int64_t e = entry.adjacency - a.first;
    const int64_t k = e / (a.joints * a.joints), v = e / a.joints % a.joints, w = e % a.joints;
    entry.product = (k * graph.joints + w) * graph.width + v;
  }
}

template <class S>
struct SkeletonGraphs {
  std::vector<SkeletonGraph<S>> layouts;
  std::vector<int64_t> of_sample;  // empty: all the first

  const SkeletonGraph<S>& of(int64_t sample) const {
    return layouts[of_sample.empty() ? 0 : of_sample[sample]];
  }
};

template <class S>
SkeletonGraphs<S> make_graphs(const Shape& s, const Widths& width, int64_t lanes,
                              const Tensor& adjacency, const OptionalTensor& layout_index,
                              const OptionalTensor& joint_counts, const OptionalTensor& support,
                              bool want_gradient) {
  const std::vector<S> a = values<S>(adjacency, "adjacency");
  const OptionalTensor dense_support =
      support ? OptionalTensor(torch::stable::contiguous(*support)) : std::nullopt;
  const bool* allowed =
      support ? static_cast<const bool*>(dense_support->const_data_ptr()) : nullptr;
  const std::vector<int64_t> counts =
      joint_counts ? integers(*joint_counts) : std::vector<int64_t>{s.joints};
  SkeletonGraphs<S> graphs;
  if (layout_index) graphs.of_sample = integers(*layout_index);
  for (int64_t i : graphs.of_sample)
    STD_TORCH_CHECK(0 <= i && i < s.layouts, "layout_index must lie in 0..", s.layouts - 1,
                    ", got ", i);
  const int64_t entries = s.partitions * s.joints * s.joints;
  for (int64_t l = 0; l < s.layouts; ++l) {
    auto& graph = graphs.layouts.emplace_back();
    graph.joints = std::min(counts[l], s.joints);
    const int64_t first = l * entries;
    const Entries<S> of_layout{a.data() + first, allowed ? allowed + first : nullptr, first,
                               s.partitions, s.joints};
    add_neighbours(graph, of_layout, width);
    if (want_gradient) add_wanted(graph, of_layout, width, lanes);
  }
  return graphs;
}

}  // namespace msclr::graph_conv_cpu
