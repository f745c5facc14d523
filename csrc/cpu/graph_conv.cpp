// Masked graph convolution on the CPU, sparse first: a tile of frames is aggregated over the few
// neighbours of each joint, in cache, and multiplied at once by the (K C_in) x C_out weight.
//
//   z[(t,w), k*C_in + c] = sum_v A[k,v,w] x[t,v,c]        z[(t,w), K*C_in + k] = sum_v A[k,v,w]
//   y[(t,w), o] = z W,    W[k*C_in + c, o] = weight[k,o,c],    W[K*C_in + k, o] = bias[k,o]
//
// The bias is one more input channel, equal to 1, so it needs no case of its own. Backward, with
// the incoming gradient g and u = g W^T:
//   dx[t,v,c] = sum_k,w A[k,v,w] u[(t,w), k*C_in + c]          dW = z^T g
//   dA[k,v,w] = sum_t sum_c x[t,v,c] u[(t,w), k*C_in + c] + sum_t u[(t,w), K*C_in + k]
// Nothing of the size of K activations is ever held: z and u exist for one tile at a time.
//
// Sums are in float (in double for double tensors). Every thread has a fixed share of the tiles and
// sums of its own, added in order: results do not depend on timing.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../graph_conv.h"
#include "buffer.h"
#include "graph_conv/activations.h"
#include "graph_conv/kernels.h"
#include "graph_conv/skeleton_graph.h"

namespace {

using namespace msclr;
using namespace msclr::graph_conv_cpu;

// How the work is cut: tiles of frames whose z fills part of a core's second-level cache.
struct Tiling {
  int64_t frames, per_sample, count, all_frames;

  Tiling(const Shape& s, int64_t row_bytes) {
    constexpr int64_t kCacheBytes = 192 * 1024;
    frames = std::clamp<int64_t>(kCacheBytes / (s.joints * row_bytes), 1,
                                 std::max<int64_t>(s.frames, 1));
    per_sample = (s.frames + frames - 1) / frames;
    count = s.samples * per_sample;
    all_frames = s.frames;
  }

  Tile operator[](int64_t i) const {
    const int64_t start = i % per_sample * frames;
    return {i / per_sample, start, std::min(frames, all_frames - start)};
  }
};

// Runs body(first, last) over equal shares of the tiles, one a thread; share i goes to slot i.
template <class F>
void for_shares(int64_t tiles, int64_t shares, const F& body) {
  torch::stable::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, tiles * i / shares, tiles * (i + 1) / shares);
  });
}

int64_t share_count(const Tiling& tiling, const Shape& s) {
  constexpr int64_t kWorthAThread = 1 << 15;  // multiplications
  const int64_t work = tiling.count * tiling.frames * s.joints * s.c_in * s.c_out * s.partitions;
  const int64_t wanted = std::min<int64_t>(tiling.count, work / kWorthAThread + 1);
  return std::clamp<int64_t>(wanted, 1, torch::stable::get_num_threads());
}

// W (K*C + K, C_out) with the bias as its last K rows, rows `ld` apart and zeros after them;
// or its transpose.
template <class S>
Buffer<S> pack(const Shape& s, const Widths& width, const Tensor& weight,
               const OptionalTensor& bias, bool transpose) {
  const std::vector<S> w = values<S>(weight, "weight");
  const std::vector<S> b = bias ? values<S>(*bias, "bias") : std::vector<S>();
  const int64_t ld = transpose ? width.z : width.y;
  const int64_t size = (transpose ? s.c_out : width.depth) * ld;
  Buffer<S> packed(size);
  std::fill_n(packed.get(), size, S(0));
  auto put = [&](int64_t row, int64_t o, S value) {
    packed.get()[transpose ? o * ld + row : row * ld + o] = value;
  };
  for (int64_t k = 0; k < s.partitions; ++k)
    for (int64_t o = 0; o < s.c_out; ++o) {
      for (int64_t c = 0; c < s.c_in; ++c)
        put(k * width.x + c, o, w[(k * s.c_out + o) * s.c_in + c]);
      if (bias) put(width.ones + k, o, b[k * s.c_out + o]);
    }
  return packed;
}

// A thread's rows of z for one tile: neighbours added up, then the column sums that carry the bias.
// Those stay from one tile to the next of the same layout.
template <class S>
class Aggregate {
 public:
  Aggregate(int64_t rows, const Widths& width, int64_t partitions)
      : rows_(rows), width_(width), partitions_(partitions), z_(rows * width.z) {}

  const S* operator()(const SkeletonGraph<S>& graph, int64_t frames, const S* x) {
    if (&graph != graph_) set_columns(graph);
    kernels<S>().gather(graph.forward, frames, width_.x, x, graph.joints * width_.x, z_.get(),
                        graph.joints * width_.z);
    return z_.get();
  }

 private:
  void set_columns(const SkeletonGraph<S>& graph) {
    graph_ = &graph;
    if (!graph.joints) return;
    for (int64_t row = 0; row < rows_; ++row)
      std::copy_n(&graph.columns[row % graph.joints * partitions_], partitions_,
                  z_.get() + row * width_.z + width_.ones);
  }

  int64_t rows_;
  Widths width_;
  int64_t partitions_;
  Buffer<S> z_;
  const SkeletonGraph<S>* graph_ = nullptr;
};

template <class S>
void forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
             const Tensor& adjacency, const OptionalTensor& layout_index,
             const OptionalTensor& joint_counts, const OptionalTensor& support, const Tensor& y) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(x, weight, adjacency);
  const Widths width(s, run.lanes);
  const SkeletonGraphs<S> graphs =
      make_graphs<S>(s, width, run.lanes, adjacency, layout_index, joint_counts, support, false);
  const Buffer<S> packed = pack<S>(s, width, weight, bias, false);
  const Tiling tiling(s, width.z * sizeof(S));
  const Activations input(x), output(y);
  for_shares(tiling.count, share_count(tiling, s), [&](int64_t, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * width.x), y_rows(rows * width.y);
    Aggregate<S> aggregate(rows, width, s.partitions);
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = tiling[i];
      const auto& graph = graphs.of(tile.sample);
      const S* z =
          aggregate(graph, tile.frames, input.read(tile, graph.joints, width.x, x_rows.get()));
      S* own = output.in_place<S>(tile, graph.joints, width.y);
      S* to = own ? own : y_rows.get();
      run.product(tile.frames * graph.joints, width.y, bias ? width.depth : width.ones,
                  {z, width.z, 1}, packed.get(), width.y, to, width.y);
      if (!own) output.write(tile, graph.joints, width.y, to);
    }
  });
}

// What one share of the tiles adds to the gradients of the parameters.
template <class S>
struct Sums {
  Buffer<S> weight;                               // (K*C + K, C_out), rows as in Widths
  std::vector<std::vector<S>> products, columns;  // of each layout, see SkeletonGraph::Entry

  Sums(int64_t weight_size, int64_t partitions, const SkeletonGraphs<S>& graphs)
      : weight(weight_size) {
    std::fill_n(weight.get(), weight_size, S(0));
    for (const auto& graph : graphs.layouts) {
      products.emplace_back(graph.product_count(partitions), S(0));
      columns.emplace_back(graph.joints * partitions, S(0));
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
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t w = 0; w < joints; ++w)
      for (int64_t k = 0; k < s.partitions; ++k)
        columns[w * s.partitions + k] += u[(t * joints + w) * width.z + width.ones + k];
  if (!graph.dense)
    return run.link_products(graph.links, frames, width.x, x, joints * width.x, u, joints * width.z,
                             products.data());
  for (int64_t t = 0; t < frames; ++t, x += joints * width.x, u += joints * width.z) {
    for (int64_t c = 0; c < s.c_in; ++c)
      for (int64_t v = 0; v < graph.width; ++v)
        turned[c * graph.width + v] = v < joints ? x[v * width.x + c] : S(0);
    for (int64_t k = 0; k < s.partitions; ++k)
      run.product_add(joints, graph.width, s.c_in, {u + k * width.x, width.z, 1}, turned,
                      graph.width, products.data() + k * joints * graph.width, graph.width);
  }
}

template <class S>
void assign_gradients(const Shape& s, const Widths& width, const SkeletonGraphs<S>& graphs,
                      const std::vector<Sums<S>>& sums, const Wanted& want, const Gradients& out) {
  // The shares' sums are added in order, into the first.
  S* total = sums[0].weight.get();
  for (size_t i = 1; (want.weight || want.bias) && i < sums.size(); ++i)
    for (int64_t j = 0; j < width.depth * width.y; ++j) total[j] += sums[i].weight.get()[j];
  if (want.weight)
    assign<S>(out.weight, [&](int64_t i) {
      const int64_t c = i % s.c_in, o = i / s.c_in % s.c_out, k = i / s.c_in / s.c_out;
      return total[(k * width.x + c) * width.y + o];
    });
  if (want.bias)
    assign<S>(out.bias,
              [&](int64_t i) { return total[(width.ones + i / s.c_out) * width.y + i % s.c_out]; });
  if (!want.adjacency) return;
  std::vector<S> entries(out.adjacency.numel(), S(0));
  for (const auto& sum : sums)
    for (size_t l = 0; l < graphs.layouts.size(); ++l)
      for (const auto& entry : graphs.layouts[l].wanted)
        entries[entry.adjacency] += sum.products[l][entry.product] + sum.columns[l][entry.column];
  assign<S>(out.adjacency, [&](int64_t i) { return entries[i]; });
}

template <class S>
void backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
              const Tensor& adjacency, const OptionalTensor& layout_index,
              const OptionalTensor& joint_counts, const OptionalTensor& support, const Wanted& want,
              const Gradients& out) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(x, weight, adjacency);
  const Widths width(s, run.lanes);
  const SkeletonGraphs<S> graphs = make_graphs<S>(s, width, run.lanes, adjacency, layout_index,
                                                  joint_counts, support, want.adjacency);
  const bool want_u = want.x || want.adjacency, want_z = want.weight || want.bias;
  const Buffer<S> packed = pack<S>(s, width, weight, bias, true);
  const Tiling tiling(s, 2 * width.z * sizeof(S));
  const Activations input(x), gradient(grad), output(want.x ? out.x : x);
  std::vector<Sums<S>> sums;
  const int64_t shares = share_count(tiling, s);
  for (int64_t i = 0; i < shares; ++i)
    sums.emplace_back(want_z ? width.depth * width.y : 0, s.partitions, graphs);

  for_shares(tiling.count, shares, [&](int64_t share, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * width.x), g_rows(rows * width.y), dx_rows(rows * width.x);
    const Buffer<S> u(want_u ? rows * width.z : 0);
    const Buffer<S> turned(s.c_in * round_up(s.joints, run.lanes));
    Aggregate<S> aggregate(want_z ? rows : 0, width, s.partitions);
    Sums<S>& sum = sums[share];
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = tiling[i];
      const auto& graph = graphs.of(tile.sample);
      const int64_t joints = graph.joints, l = &graph - graphs.layouts.data();
      const S* g = gradient.read(tile, joints, width.y, g_rows.get());
      const S* from = nullptr;
      if (want_z || want.adjacency) from = input.read(tile, joints, width.x, x_rows.get());
      if (want_z)
        run.product_add(width.depth, width.y, tile.frames * joints,
                        {aggregate(graph, tile.frames, from), 1, width.z}, g, width.y,
                        sum.weight.get(), width.y);
      if (want_u)
        run.product(tile.frames * joints, width.z, s.c_out, {g, width.y, 1}, packed.get(), width.z,
                    u.get(), width.z);
      if (want.adjacency)
        add_products(s, width, graph, tile.frames, from, u.get(), turned.get(), sum.products[l],
                     sum.columns[l]);
      if (want.x) {
        S* own = output.in_place<S>(tile, joints, width.x);
        S* to = own ? own : dx_rows.get();
        run.gather(graph.backward, tile.frames, width.x, u.get(), joints * width.z, to,
                   joints * width.x);
        if (!own) output.write(tile, joints, width.x, to);
      }
    }
  });
  assign_gradients(s, width, graphs, sums, want, out);
}

Tensor graph_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const Tensor& adjacency, const OptionalTensor& layout_index,
                  const OptionalTensor& joint_counts, const OptionalTensor& support) {
  const Tensor y = empty_activations(x, weight.size(0) / adjacency.size(adjacency.dim() - 3));
  const auto run = x.scalar_type() == ScalarType::Double ? forward<double> : forward<float>;
  run(x, weight, bias, adjacency, layout_index, joint_counts, support, y);
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_conv_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& adjacency, const OptionalTensor& layout_index, const OptionalTensor& joint_counts,
    const OptionalTensor& support, bool want_x, bool want_weight, bool want_bias,
    bool want_adjacency) {
  const Wanted want{want_x, want_weight, want_bias && bias.has_value(), want_adjacency};
  const Gradients out(want, x, weight, bias, adjacency);
  const auto run = x.scalar_type() == ScalarType::Double ? backward<double> : backward<float>;
  run(grad, x, weight, bias, adjacency, layout_index, joint_counts, support, want, out);
  return {out.x, out.weight, out.bias, out.adjacency};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}
