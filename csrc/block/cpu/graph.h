#pragma once
// The graph convolution of packed rows, segment by segment, each of one joint layout: statistics of
// y come out of the pass that writes it, and the gradient of a batch norm goes into the pass that
// reads it.

#include "../../graph_conv/cpu/backward.h"
#include "../../graph_conv/cpu/forward.h"
#include "../../temporal_conv/cpu/operands.h"
#include "kernels.h"

namespace msclr::block_cpu {

using namespace graph_conv_cpu;
using temporal_conv_cpu::OutputGradient;
using temporal_conv_cpu::Segment;
using temporal_conv_cpu::TileSums;

// adjacency and support are those of all segments, (K, V, V) each, one after the other.
struct PackedGraph {
  Tensor weight;
  OptionalTensor bias;
  Tensor adjacency, support;
  int64_t partitions, stride;

  Shape shape(const Segment& segment) const {
    return {segment.samples,
            weight.size(1),
            weight.size(0) / partitions,
            segment.out_frames,
            segment.joints,
            partitions,
            1};
  }
  int64_t entries(const Segment& segment) const {
    return partitions * segment.joints * segment.joints;
  }
};

inline int64_t bytes_of(ScalarType type) {
  return type == ScalarType::Double ? 8 : type == ScalarType::Float ? 4 : 2;
}

// A segment's rows of x, every stride-th frame, or of y.
inline Activations rows_of_x(const Tensor& rows, const Segment& s, int64_t stride) {
  const int64_t c = rows.size(1), frame = s.joints * c;
  char* data = static_cast<char*>(rows.data_ptr()) + s.first_row * c * bytes_of(rows.scalar_type());
  return {data,
          rows.scalar_type(),
          {s.samples, c, s.out_frames, s.joints},
          {s.frames * frame, 1, stride * frame, c}};
}
inline Activations rows_of_y(const Tensor& rows, const Segment& s) {
  const int64_t c = rows.size(1), frame = s.joints * c;
  char* data =
      static_cast<char*>(rows.data_ptr()) + s.first_out_row * c * bytes_of(rows.scalar_type());
  return {data,
          rows.scalar_type(),
          {s.samples, c, s.out_frames, s.joints},
          {s.out_frames * frame, 1, frame, c}};
}

// f(segment, its problem) for every segment that has rows. The work is cut the same way whatever
// the number of threads, and so are the sums.
constexpr int64_t kShares = 8;

template <class S, class F>
void each_segment(const PackedGraph& g, const std::vector<Segment>& segments, int64_t numbers,
                  bool want_adjacency, const F& f) {
  const Parameters<S> parameters(g.weight, g.bias);
  const std::vector<S> adjacency = values<S>(g.adjacency, "adjacency");
  const Tensor support = torch::stable::contiguous(g.support);
  const bool* allowed = static_cast<const bool*>(support.const_data_ptr());
  int64_t first = 0;
  for (const Segment& segment : segments) {
    const Shape s = g.shape(segment);
    if (s.samples * s.frames * s.joints > 0) {
      const int64_t lanes = graph_conv_cpu::kernels<S>().lanes;
      const Widths width(s, lanes);
      const Tiling tiling(s, numbers * width.z * sizeof(S));
      SkeletonGraphs<S> graphs;
      graphs.layouts.push_back(make_graph(s, width, tiling.frames, lanes, adjacency.data(), allowed,
                                          first, s.joints, want_adjacency));
      f(segment, Problem<S>{s, width, tiling, std::move(graphs), parameters});
    }
    first += g.entries(segment);
  }
}

// Returns the sums of y and of its squares, (2, width).
template <class S>
std::vector<double> packed_forward(const PackedGraph& g, const std::vector<Segment>& segments,
                                   const Tensor& x, const Tensor& y) {
  const int64_t width = round_up(y.size(1), graph_conv_cpu::kernels<S>().lanes);
  const std::vector<S> none(width, S(0));
  std::vector<double> total(2 * width, 0.0);
  each_segment<S>(g, segments, 1, false, [&](const Segment& segment, const Problem<S>& p) {
    TileSums sums(p.tiling.count, 2 * width);
    forward(p, rows_of_x(x, segment, g.stride), rows_of_y(y, segment), p.shares(kShares),
            [&](int64_t i, const SkeletonGraph<S>& graph, int64_t frames, S* rows) {
              std::vector<S> of_tile(2 * width, S(0));
              for (const Group& group : graph.groups) {
                const RowsAt<S> at{rows + group.first_row * width, width};
                temporal_conv_cpu::kernels<S>().finish(frames * group.joints, width,
                                                       {at.data, at.stride}, none.data(), at,
                                                       {of_tile.data(), width});
              }
              sums.take(i, of_tile.data());
            });
    sums.add_to(total);
  });
  return total;
}

// What is added to dx: rows, where gate > 0 if there is one.
struct Addend {
  OptionalTensor rows, gate;
};

template <class S>
void packed_backward(const PackedGraph& g, const std::vector<Segment>& segments, const Tensor& d,
                     const Tensor& y, const Tensor& coefficients, const Tensor& x,
                     const Addend& addend, const Wanted& want, const Gradients& out) {
  const OutputGradient<S> norm(d, y, coefficients);
  Totals<S> totals({.c_in = x.size(1), .c_out = y.size(1), .partitions = g.partitions},
                   g.adjacency.numel());
  each_segment<S>(g, segments, 2, want.adjacency, [&](const Segment& segment, const Problem<S>& p) {
    const Activations of_d = rows_of_y(d, segment), of_y = rows_of_y(y, segment);
    const int64_t rows = p.tiling.frames * p.s.joints, width = p.width.y;
    auto gradient = [&](const Tile& tile, const std::vector<Group>& groups, S* buffer) {
      thread_local std::vector<S> of_d_rows, of_y_rows, ignored;
      of_d_rows.resize(rows * width), of_y_rows.resize(rows * width), ignored.resize(width);
      const S* from = of_d.read(tile, groups, width, of_d_rows.data());
      const S* other = of_y.read(tile, groups, width, of_y_rows.data());
      for (const Group& group : groups) {
        const int64_t at = group.first_row * width;
        temporal_conv_cpu::kernels<S>().combine(
            tile.frames * group.joints, width, {from + at, width}, {other + at, width},
            {norm.coefficients.data(), width}, {buffer + at, width}, ignored.data());
      }
      return static_cast<const S*>(buffer);
    };
    auto finish = [&](const Tile& tile, const SkeletonGraph<S>& graph, S* to) {
      if (!addend.rows) return;
      thread_local std::vector<S> added, gates;
      added.resize(rows * p.width.x), gates.resize(rows * p.width.x);
      const S* from =
          rows_of_x(*addend.rows, segment, 1).read(tile, graph.order, p.width.x, added.data());
      const S* gate =
          addend.gate
              ? rows_of_x(*addend.gate, segment, 1).read(tile, graph.order, p.width.x, gates.data())
              : nullptr;
      kernels<S>().add_where(tile.frames * p.s.joints * p.width.x, from, gate, to);
    };
    backward(p, gradient, rows_of_x(x, segment, g.stride),
             rows_of_x(want.x ? out.x : x, segment, g.stride), want, p.shares(kShares), totals,
             finish);
  });
  totals.assign_to(want, out);
}

}  // namespace msclr::block_cpu
