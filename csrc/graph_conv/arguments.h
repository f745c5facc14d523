#pragma once
// What the masked graph convolution's implementations share: its arguments, their sizes, and the
// tensors that are returned.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

namespace msclr {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// See kernels/graph_conv/operator.py.
struct Arguments {
  Tensor x, weight;
  OptionalTensor bias;
  Tensor adjacency;
  OptionalTensor layout_index, joint_counts, support;
};

struct Shape {
  int64_t samples, c_in, c_out, frames, joints, partitions, layouts;
};

inline Shape shape_of(const Arguments& a) {
  const Tensor &x = a.x, &weight = a.weight, &adjacency = a.adjacency;
  const int64_t dim = adjacency.dim();
  const int64_t k = adjacency.size(dim - 3);
  // Python has checked the arguments; this keeps calls past it within their memory.
  STD_TORCH_CHECK(weight.size(1) == x.size(1) && weight.size(0) % k == 0,
                  "weight must be (K*C_out, C_in) with K as in adjacency and C_in as in x");
  STD_TORCH_CHECK(adjacency.size(dim - 1) == x.size(3) && adjacency.size(dim - 2) == x.size(3),
                  "adjacency must have V rows and columns, with V as in x");
  return {x.size(0),
          x.size(1),
          weight.size(0) / k,
          x.size(2),
          x.size(3),
          k,
          dim == 4 ? adjacency.size(0) : 1};
}

// Channels-last, unless x is contiguous in the (N, C, T, V) order.
inline Tensor empty_activations(const Tensor& x, int64_t channels) {
  const bool channels_last = x.stride(1) == 1 || !x.is_contiguous();
  return torch::stable::empty({x.size(0), channels, x.size(2), x.size(3)}, x.scalar_type(),
                              std::nullopt, x.device(), std::nullopt,
                              channels_last ? torch::headeronly::MemoryFormat::ChannelsLast
                                            : torch::headeronly::MemoryFormat::Contiguous);
}

struct Wanted {
  bool x, weight, bias, adjacency;
};

// The gradients to be filled in: empty where one is not wanted.
struct Gradients {
  Tensor x, weight, bias, adjacency;

  Gradients(const Wanted& want, const Arguments& a)
      : Gradients(want, a, want.x ? empty_activations(a.x, a.x.size(1)) : none(a.x)) {}
  Gradients(const Wanted& want, const Arguments& a, const Tensor& of_x)
      : x(of_x),
        weight(like(a.weight, want.weight)),
        bias(a.bias ? like(*a.bias, want.bias) : none(a.x)),
        adjacency(like(a.adjacency, want.adjacency)) {}

 private:
  static Tensor none(const Tensor& of) { return torch::stable::new_empty(of, {0}); }
  static Tensor like(const Tensor& of, bool wanted) {
    return wanted ? torch::stable::new_empty(of, of.sizes()) : none(of);
  }
};

}  // namespace msclr
