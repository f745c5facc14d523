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

#include <tuple>

#include "cpu/backward.h"
#include "cpu/forward.h"

namespace {

using namespace msclr;
using namespace msclr::graph_conv_cpu;

// `numbers`: how many of them a row of scratch memory has, in widths of z.
template <class S>
Problem<S> problem(const Arguments& a, const Parameters<S>& parameters, int64_t numbers,
                   bool want_adjacency) {
  const Shape s = shape_of(a);
  const Widths width(s, kernels<S>().lanes);
  const Tiling tiling(s, numbers * width.z * sizeof(S));
  auto graphs = make_graphs<S>(s, width, tiling.frames, kernels<S>().lanes, a, want_adjacency);
  return {s, width, tiling, std::move(graphs), parameters};
}

template <class S>
void run_forward(const Arguments& a, const Tensor& y) {
  const Parameters<S> parameters(a.weight, a.bias);
  const Problem<S> p = problem(a, parameters, 1, false);
  forward(p, Activations(a.x), Activations(y), p.shares(torch::stable::get_num_threads()),
          [](auto&&...) {});
}

template <class S>
void run_backward(const Tensor& grad, const Arguments& a, const Wanted& want,
                  const Gradients& out) {
  const Parameters<S> parameters(a.weight, a.bias);
  const Problem<S> p = problem(a, parameters, 2, want.adjacency);
  const Activations of_y(grad);
  auto gradient = [&](const Tile& tile, const std::vector<Group>& groups, S* buffer) {
    return of_y.read(tile, groups, p.width.y, buffer);
  };
  Totals<S> totals(p.s, want.adjacency ? out.adjacency.numel() : 0);
  backward(p, gradient, Activations(a.x), Activations(want.x ? out.x : a.x), want,
           p.shares(torch::stable::get_num_threads()), totals, [](auto&&...) {});
  totals.assign_to(want, out);
}

Tensor graph_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const Tensor& adjacency, const OptionalTensor& layout_index,
                  const OptionalTensor& joint_counts, const OptionalTensor& support) {
  const Tensor y = empty_activations(x, weight.size(0) / adjacency.size(adjacency.dim() - 3));
  const auto run = x.scalar_type() == ScalarType::Double ? run_forward<double> : run_forward<float>;
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
  const auto run =
      x.scalar_type() == ScalarType::Double ? run_backward<double> : run_backward<float>;
  run(grad, given, want, out);
  return {out.x, out.weight, out.bias, out.adjacency};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}
