#pragma once
// The skeleton graphs of all layouts in the form that the inner loops want.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

#include "../../common/elements.h"
#include "../arguments.h"
#include "terms.h"
#include "tiling.h"

namespace msclr::graph_conv_cpu {

// One layout's graph as the inner loops want it.
template <class S>
struct SkeletonGraph {
  // Where the gradient of an entry is: in the adjacency, among the sums of products of rows,
  // and among the sums of columns, which are those of the channel of ones.
  struct Entry {
    int64_t adjacency, product, column;
  };

  int64_t joints;             // real ones
  std::vector<Group> order;   // of the rows of x: one group, by number
  std::vector<Group> groups;  // of the rows of y, z and u
  Terms<S> forward;           // rows of x -> rows of z
  Terms<S> backward;          // rows of u -> rows of dx
  std::vector<S> columns;     // (joints, K): sum_v A[k,v,w]
  std::vector<Link> links;    // rows of x and of u whose products are summed, if few are wanted
  std::vector<Entry> wanted;  // entries of which a gradient is wanted
  bool dense = false;         // so many that all are computed: products (K, joints, width)
  int64_t width = 0;

  int64_t product_count(int64_t partitions) const {
    return dense ? partitions * joints * width : std::ssize(links);
  }
};

// What is known of the entries of one layout's adjacency.
template <class S>
struct Entries {
  const S* value;       // (K, V, V)
  const bool* allowed;  // the same, or null
  bool want_gradient;
  bool sort_joints;  // into groups; else all are one
  int64_t first, partitions, joints;

  int64_t at(int64_t k, int64_t v, int64_t w) const { return (k * joints + v) * joints + w; }
  bool linked(int64_t e) const { return value[e] != S(0) && (!allowed || allowed[e]); }
  bool wanted(int64_t e) const { return want_gradient && (!allowed || allowed[e]); }
};

template <class S>
class GraphMaker {
 public:
  GraphMaker(const Entries<S>& a, int64_t joints, const Widths& width, int64_t rows, int64_t lanes)
      : a_(a), width_(width), x_row_{0, joints * width.x} {
    graph.joints = joints;
    graph.width = round_up(joints, lanes);
    Group& all = graph.order.emplace_back();
    for (int64_t v = 0; v < joints; ++v) all.add(v);
    add_groups(rows);
    add_terms();
    add_wanted();
  }

  SkeletonGraph<S> graph;

 private:
  template <class F>
  void each_entry(const F& f) const {  // f(k, v, w, e)
    for (int64_t w = 0; w < graph.joints; ++w)
      for (int64_t k = 0; k < a_.partitions; ++k)
        for (int64_t v = 0; v < graph.joints; ++v) f(k, v, w, a_.at(k, v, w));
  }

  void add_groups(int64_t frames) {
    int64_t wanted = 0;
    std::vector<std::vector<bool>> used(graph.joints, std::vector<bool>(a_.partitions, false));
    each_entry([&](int64_t k, int64_t, int64_t w, int64_t e) {
      wanted += a_.wanted(e);
      if (a_.linked(e) || a_.wanted(e)) used[w][k] = true;
    });
    graph.dense = 4 * wanted > a_.partitions * graph.joints * graph.width;
    if (graph.dense || !a_.sort_joints)
      used.assign(graph.joints, std::vector<bool>(a_.partitions, true));
    std::map<std::vector<bool>, int64_t> known;
    for (int64_t w = 0; w < graph.joints; ++w) {
      const auto [found, is_new] = known.emplace(used[w], std::ssize(graph.groups));
      if (is_new) {
        graph.groups.emplace_back();
        for (int64_t k = 0; k < a_.partitions; ++k)
          if (used[w][k]) graph.groups.back().partitions.push_back(k);
      }
      graph.groups[found->second].add(w);
    }
    int64_t before = 0;
    z_row_.assign(graph.joints * a_.partitions, {-1, 0});
    for (Group& group : graph.groups) {
      group.first_row = before * frames;
      before += group.joints;
      group.each([&](int64_t w, int64_t place) {
        for (int64_t i = 0; i < std::ssize(group.partitions); ++i)
          z_row_[w * a_.partitions + group.partitions[i]] = {
              (group.first_row + place) * width_.z + i * width_.x, group.joints * width_.z};
      });
    }
  }

  Row x_row(int64_t v) const { return {v * width_.x, x_row_.step}; }
  Row z_row(int64_t w, int64_t k) const { return z_row_[w * a_.partitions + k]; }

  void add_terms() {
    graph.columns.assign(graph.joints * a_.partitions, S(0));
    for (int64_t w = 0; w < graph.joints; ++w)
      for (int64_t k = 0; k < a_.partitions; ++k) {
        const size_t before = graph.forward.terms.size();
        for (int64_t v = 0; v < graph.joints; ++v)
          if (const int64_t e = a_.at(k, v, w); a_.linked(e)) {
            graph.forward.add(x_row(v), a_.value[e]);
            graph.columns[w * a_.partitions + k] += a_.value[e];
          }
        // A row without neighbours is 0 from the start.
        if (graph.forward.terms.size() > before) graph.forward.close(z_row(w, k));
      }
    for (int64_t v = 0; v < graph.joints; ++v) {
      for (int64_t k = 0; k < a_.partitions; ++k)
        for (int64_t w = 0; w < graph.joints; ++w)
          if (const int64_t e = a_.at(k, v, w); a_.linked(e))
            graph.backward.add(z_row(w, k), a_.value[e]);
      graph.backward.close(x_row(v));
    }
  }

  void add_wanted() {
    each_entry([&](int64_t k, int64_t v, int64_t w, int64_t e) {
      if (!a_.wanted(e)) return;
      const int64_t product =
          graph.dense ? (k * graph.joints + w) * graph.width + v : std::ssize(graph.links);
      graph.wanted.push_back({a_.first + e, product, w * a_.partitions + k});
      if (!graph.dense) graph.links.push_back({x_row(v), z_row(w, k)});
    });
  }

  const Entries<S>& a_;
  const Widths& width_;
  Row x_row_;
  std::vector<Row> z_row_;  // (joints, K); offset -1 where the joint has no such partition
};

template <class S>
struct SkeletonGraphs {
  std::vector<SkeletonGraph<S>> layouts;
  std::vector<int64_t> of_sample;  // empty: all the first

  const SkeletonGraph<S>& of(int64_t sample) const {
    return layouts[of_sample.empty() ? 0 : of_sample[sample]];
  }
};

// The graph of one layout. `frames`: those of a full tile.
template <class S>
SkeletonGraph<S> make_graph(const Shape& s, const Widths& width, int64_t frames, int64_t lanes,
                            const S* adjacency, const bool* allowed, int64_t first, int64_t joints,
                            bool want_gradient) {
  // Sorted joints are copied to and from their places. It pays where more than so many
  // multiplications a row and partition come with that.
  constexpr int64_t kWorthSorting = 1024;
  const Entries<S> entries{adjacency + first,
                           allowed ? allowed + first : nullptr,
                           want_gradient,
                           s.c_in * s.c_out >= kWorthSorting,
                           first,
                           s.partitions,
                           s.joints};
  return GraphMaker<S>(entries, joints, width, frames, lanes).graph;
}

template <class S>
SkeletonGraphs<S> make_graphs(const Shape& s, const Widths& width, int64_t frames, int64_t lanes,
                              const Arguments& given, bool want_gradient) {
  const std::vector<S> a = values<S>(given.adjacency, "adjacency");
  const OptionalTensor support =
      given.support ? OptionalTensor(torch::stable::contiguous(*given.support)) : std::nullopt;
  const bool* allowed = support ? static_cast<const bool*>(support->const_data_ptr()) : nullptr;
  const std::vector<int64_t> counts =
      given.joint_counts ? integers(*given.joint_counts) : std::vector<int64_t>{s.joints};
  SkeletonGraphs<S> graphs;
  if (given.layout_index) graphs.of_sample = integers(*given.layout_index);
  for (int64_t i : graphs.of_sample)
    STD_TORCH_CHECK(0 <= i && i < s.layouts, "layout_index must lie in 0..", s.layouts - 1,
                    ", got ", i);
  for (int64_t l = 0; l < s.layouts; ++l)
    graphs.layouts.push_back(make_graph(s, width, frames, lanes, a.data(), allowed,
                                        l * s.partitions * s.joints * s.joints,
                                        std::min(counts[l], s.joints), want_gradient));
  return graphs;
}

}  // namespace msclr::graph_conv_cpu
