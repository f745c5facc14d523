#pragma once

#include "problem.h"

namespace msclr::graph_conv_cpu {

// y, tile by tile. finish(i, graph, frames, rows) sees tile i's rows of y while they are in cache.
template <class S, class F>
void forward(const Problem<S>& p, const Activations& input, const Activations& output,
             int64_t shares, const F& finish) {
  const Kernels<S>& run = kernels<S>();
  const Packed<S> packed = for_groups(p.graphs, [&](const Group& group) {
    return pack(p.s, p.width, group, p.parameters, false, p.width.y);
  });
  for_shares(p.tiling.count, shares, [&](int64_t, int64_t first, int64_t last) {
    const int64_t rows = p.tiling.frames * p.s.joints, bias = !p.parameters.bias.empty();
    const Buffer<S> x_rows(rows * p.width.x), y_rows(rows * p.width.y);
    Aggregate<S> aggregate(p.tiling, p.s, p.width);
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = p.tiling[i];
      const auto& graph = p.graphs.of(tile.sample);
      const auto& weights = packed[&graph - p.graphs.layouts.data()];
      const S* z =
          aggregate(graph, tile.frames, input.read(tile, graph.order, p.width.x, x_rows.get()));
      S* own = output.in_place<S>(tile, graph.groups, p.width.y);
      S* to = own ? own : y_rows.get();
      for (size_t g = 0; g < weights.size(); ++g) {
        const Group& group = graph.groups[g];
        run.product(tile.frames * group.joints, p.width.y,
                    bias ? group.depth(p.width) : group.ones(p.width),
                    {z + group.first_row * p.width.z, p.width.z, 1}, weights[g].get(), p.width.y,
                    to + group.first_row * p.width.y, p.width.y);
      }
      finish(i, graph, tile.frames, to);
      if (!own) output.write(tile, graph.groups, graph.joints, p.width.y, to);
    }
  });
}

}  // namespace msclr::graph_conv_cpu
