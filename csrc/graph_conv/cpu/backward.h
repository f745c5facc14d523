#pragma once

#include "problem.h"

namespace msclr::graph_conv_cpu {

// What one share of the tiles adds to the gradients of the parameters.
template <class S>
struct Sums {
  Packed<S> weight;                               // as the forward's W
  std::vector<std::vector<S>> products, columns;  // of each layout, see SkeletonGraph::Entry

  Sums(const Shape& s, const Widths& width, const SkeletonGraphs<S>& graphs)
      : weight(for_groups(graphs, [&](const Group& group) {
          const int64_t size = group.depth(width) * width.y;
          Buffer<S> zeros(size);
          std::fill_n(zeros.get(), size, S(0));
          return zeros;
        })) {
    for (const auto& graph : graphs.layouts) {
      products.emplace_back(graph.product_count(s.partitions), S(0));
      columns.emplace_back(graph.joints * s.partitions, S(0));
    }
  }
};

// dA's sums of one tile, from its rows of x and of u.
template <class S>
void add_products(const Shape& s, const Widths& width, const SkeletonGraph<S>& graph,
                  int64_t frames, const S* x, const S* u, S* turned, std::vector<S>& products,
                  std::vector<S>& columns) {
  const Kernels<S>& run = kernels<S>();
  const int64_t joints = graph.joints;
  for (const Group& group : graph.groups)
    group.each([&](int64_t w, int64_t place) {
      const S* row = u + (group.first_row + place) * width.z + group.ones(width);
      for (int64_t i = 0; i < std::ssize(group.partitions); ++i) {
        S sum = 0;
        for (int64_t t = 0; t < frames; ++t) sum += row[t * group.joints * width.z + i];
        columns[w * s.partitions + group.partitions[i]] += sum;
      }
    });
  if (!graph.dense) return run.link_products(graph.links, frames, width.x, x, u, products.data());
  for (int64_t t = 0; t < frames; ++t, x += joints * width.x, u += joints * width.z) {
    for (int64_t c = 0; c < s.c_in; ++c)
      for (int64_t v = 0; v < graph.width; ++v)
        turned[c * graph.width + v] = v < joints ? x[v * width.x + c] : S(0);
    for (int64_t k = 0; k < s.partitions; ++k)
      run.product_add(joints, graph.width, s.c_in, {u + k * width.x, width.z, 1}, turned,
                      graph.width, products.data() + k * joints * graph.width, graph.width);
  }
}

// The gradients of the parameters: sums of shares in their order, whatever thread each ran on.
template <class S>
struct Totals {
  std::vector<S> weight, bias, adjacency;

  Totals(const Shape& s, int64_t entries)
      : weight(s.partitions * s.c_out * s.c_in, S(0)),
        bias(s.partitions * s.c_out, S(0)),
        adjacency(entries, S(0)) {}

  void add(const Problem<S>& p, const std::vector<Sums<S>>& sums) {
    for (const Sums<S>& sum : sums)
      for (size_t l = 0; l < p.graphs.layouts.size(); ++l) {
        const auto& graph = p.graphs.layouts[l];
        for (size_t g = 0; g < graph.groups.size(); ++g)
          each_row(p.s, p.width, graph.groups[g], [&](int64_t row, int64_t k, int64_t c) {
            const S* from = sum.weight[l][g].get() + row * p.width.y;
            S* to = c == p.s.c_in ? bias.data() + k * p.s.c_out
                                  : weight.data() + k * p.s.c_out * p.s.c_in + c;
            const int64_t step = c == p.s.c_in ? 1 : p.s.c_in;
            for (int64_t o = 0; o < p.s.c_out; ++o) to[o * step] += from[o];
          });
        for (const auto& entry : graph.wanted)
          adjacency[entry.adjacency] +=
              sum.products[l][entry.product] + sum.columns[l][entry.column];
      }
  }

  void assign_to(const Wanted& want, const Gradients& out) const {
    if (want.weight) assign<S>(out.weight, [&](int64_t i) { return weight[i]; });
    if (want.bias) assign<S>(out.bias, [&](int64_t i) { return bias[i]; });
    if (want.adjacency) assign<S>(out.adjacency, [&](int64_t i) { return adjacency[i]; });
  }
};

// All gradients, tile by tile. gradient(tile, groups, buffer) -> the rows of the gradient of y, and
// finish(tile, graph, rows) sees a tile's rows of dx while they are in cache.
template <class S, class G, class F>
void backward(const Problem<S>& p, const G& gradient, const Activations& input,
              const Activations& output, const Wanted& want, int64_t shares, Totals<S>& totals,
              const F& finish) {
  const Kernels<S>& run = kernels<S>();
  const Shape& s = p.s;
  const Widths& width = p.width;
  const bool want_u = want.x || want.adjacency, want_z = want.weight || want.bias;
  const Packed<S> packed = for_groups(p.graphs, [&](const Group& group) {
    return pack(s, width, group, p.parameters, true, round_up(group.depth(width), run.lanes));
  });
  std::vector<Sums<S>> sums;
  for (int64_t i = 0; i < shares; ++i) sums.emplace_back(s, width, p.graphs);

  for_shares(p.tiling.count, shares, [&](int64_t share, int64_t first, int64_t last) {
    const int64_t rows = p.tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * width.x), g_rows(rows * width.y), dx_rows(rows * width.x);
    const Buffer<S> u(rows * width.z), turned(s.c_in * round_up(s.joints, run.lanes));
    Aggregate<S> aggregate(p.tiling, s, width);
    Sums<S>& sum = sums[share];
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = p.tiling[i];
      const auto& graph = p.graphs.of(tile.sample);
      const int64_t l = &graph - p.graphs.layouts.data();
      const S* g_all = gradient(tile, graph.groups, g_rows.get());
      const S *from = nullptr, *z_all = nullptr;
      if (want_z || want.adjacency) from = input.read(tile, graph.order, width.x, x_rows.get());
      if (want_z) z_all = aggregate(graph, tile.frames, from);
      for (size_t j = 0; j < graph.groups.size(); ++j) {
        const Group& group = graph.groups[j];
        const int64_t count = tile.frames * group.joints, depth = group.depth(width);
        const S* g = g_all + group.first_row * width.y;
        if (want_z)
          run.product_add(depth, width.y, count, {z_all + group.first_row * width.z, 1, width.z}, g,
                          width.y, sum.weight[l][j].get(), width.y);
        const int64_t ld = round_up(depth, run.lanes);
        if (want_u)
          run.product(count, ld, s.c_out, {g, width.y, 1}, packed[l][j].get(), ld,
                      u.get() + group.first_row * width.z, width.z);
      }
      if (want.adjacency)
        add_products(s, width, graph, tile.frames, from, u.get(), turned.get(), sum.products[l],
                     sum.columns[l]);
      if (want.x) {
        S* own = output.in_place<S>(tile, graph.order, width.x);
        S* to = own ? own : dx_rows.get();
        run.gather(graph.backward, tile.frames, width.x, u.get(), 0, to);
        finish(tile, graph, to);
        if (!own) output.write(tile, graph.order, graph.joints, width.x, to);
      }
    }
  });
  totals.add(p, sums);
}

}  // namespace msclr::graph_conv_cpu
