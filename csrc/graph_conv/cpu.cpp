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

#include "../common/buffer.h"
#include "arguments.h"
#include "cpu/activations.h"
#include "cpu/kernels.h"
#include "cpu/skeleton_graph.h"

namespace {

using namespace msclr;
using namespace msclr::graph_conv_cpu;

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

// The parameters as dense rows of numbers: (K, C_out, C_in) and (K, C_out), the latter empty
// without a bias.
template <class S>
struct Parameters {
  std::vector<S> weight, bias;

  Parameters(const Tensor& w, const OptionalTensor& b)
      : weight(values<S>(w, "weight")), bias(b ? values<S>(*b, "bias") : std::vector<S>()) {}
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

template <class S>
void forward(const Arguments& a, const Tensor& y) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(a);
  const Widths width(s, run.lanes);
  const Tiling tiling(s, width.z * sizeof(S));
  const auto graphs = make_graphs<S>(s, width, tiling.frames, run.lanes, a, false);
  const Parameters<S> parameters(a.weight, a.bias);
  const Packed<S> packed = for_groups(graphs, [&](const Group& group) {
    return pack(s, width, group, parameters, false, width.y);
  });
  const Activations input(a.x), output(y);
  for_shares(tiling.count, share_count(tiling, s), [&](int64_t, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * width.x), y_rows(rows * width.y);
    Aggregate<S> aggregate(tiling, s, width);
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = tiling[i];
      const auto& graph = graphs.of(tile.sample);
      const auto& weights = packed[&graph - graphs.layouts.data()];
      const S* z =
          aggregate(graph, tile.frames, input.read(tile, graph.order, width.x, x_rows.get()));
      S* own = output.in_place<S>(tile, graph.groups, width.y);
      S* to = own ? own : y_rows.get();
      for (size_t g = 0; g < weights.size(); ++g) {
        const Group& group = graph.groups[g];
        run.product(tile.frames * group.joints, width.y,
                    a.bias ? group.depth(width) : group.ones(width),
                    {z + group.first_row * width.z, width.z, 1}, weights[g].get(), width.y,
                    to + group.first_row * width.y, width.y);
      }
      if (!own) output.write(tile, graph.groups, graph.joints, width.y, to);
    }
  });
}

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

// Adds up the shares in their order, whatever thread each ran on.
template <class S>
void assign_gradients(const Shape& s, const Widths& width, const SkeletonGraphs<S>& graphs,
                      const std::vector<Sums<S>>& sums, const Wanted& want, const Gradients& out) {
  std::vector<S> weight(want.weight ? s.partitions * s.c_out * s.c_in : 0, S(0));
  std::vector<S> bias(s.partitions * s.c_out, S(0)), adjacency(out.adjacency.numel(), S(0));
  for (const Sums<S>& sum : sums)
    for (size_t l = 0; l < graphs.layouts.size(); ++l) {
      const auto& graph = graphs.layouts[l];
      for (size_t g = 0; g < graph.groups.size() && (want.weight || want.bias); ++g)
        each_row(s, width, graph.groups[g], [&](int64_t row, int64_t k, int64_t c) {
          const S* from = sum.weight[l][g].get() + row * width.y;
          for (int64_t o = 0; o < s.c_out; ++o)
            if (c == s.c_in)
              bias[k * s.c_out + o] += from[o];
            else if (want.weight)
              weight[(k * s.c_out + o) * s.c_in + c] += from[o];
        });
      for (const auto& entry : graph.wanted)
        adjacency[entry.adjacency] += sum.products[l][entry.product] + sum.columns[l][entry.column];
    }
  if (want.weight) assign<S>(out.weight, [&](int64_t i) { return weight[i]; });
  if (want.bias) assign<S>(out.bias, [&](int64_t i) { return bias[i]; });
  if (want.adjacency) assign<S>(out.adjacency, [&](int64_t i) { return adjacency[i]; });
}

template <class S>
void backward(const Tensor& grad, const Arguments& a, const Wanted& want, const Gradients& out) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(a);
  const Widths width(s, run.lanes);
  const Tiling tiling(s, 2 * width.z * sizeof(S));
  const auto graphs = make_graphs<S>(s, width, tiling.frames, run.lanes, a, want.adjacency);
  const bool want_u = want.x || want.adjacency, want_z = want.weight || want.bias;
  const Parameters<S> parameters(a.weight, a.bias);
  const Packed<S> packed = for_groups(graphs, [&](const Group& group) {
    return pack(s, width, group, parameters, true, round_up(group.depth(width), run.lanes));
  });
  const Activations input(a.x), gradient(grad), output(want.x ? out.x : a.x);
  std::vector<Sums<S>> sums;
  const int64_t shares = share_count(tiling, s);
  for (int64_t i = 0; i < shares; ++i) sums.emplace_back(s, width, graphs);

  for_shares(tiling.count, shares, [&](int64_t share, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * width.x), g_rows(rows * width.y), dx_rows(rows * width.x);
    const Buffer<S> u(rows * width.z), turned(s.c_in * round_up(s.joints, run.lanes));
    Aggregate<S> aggregate(tiling, s, width);
    Sums<S>& sum = sums[share];
    for (int64_t i = first; i < last; ++i) {
      const Tile tile = tiling[i];
      const auto& graph = graphs.of(tile.sample);
      const int64_t l = &graph - graphs.layouts.data();
      const S* g_all = gradient.read(tile, graph.groups, width.y, g_rows.get());
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
        if (!own) output.write(tile, graph.order, graph.joints, width.x, to);
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
  run({x, weight, bias, adjacency, layout_index, joint_counts, support}, y);
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_conv_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& adjacency, const OptionalTensor& layout_index, const OptionalTensor& joint_counts,
    const OptionalTensor& support, bool want_x, bool want_weight, bool want_bias,
    bool want_adjacency) {
  const Wanted want{want_x, want_weight, want_bias && bias.has_value(), want_adjacency};
  const Arguments given{x, weight, bias, adjacency, layout_index, joint_counts, support};
  const Gradients out(want, given);
  const auto run = x.scalar_type() == ScalarType::Double ? backward<double> : backward<float>;
  run(grad, given, want, out);
  return {out.x, out.weight, out.bias, out.adjacency};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}
