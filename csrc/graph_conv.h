#pragma once
// What the masked graph convolution's implementations share: sizes, and the tensors they return.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

namespace msclr {

using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

struct Shape {
  int64_t samples, c_in, c_out, frames, joints, partitions, layouts;
};

inline Shape shape_of(const Tensor& x, const Tensor& weight, const Tensor& adjacency) {
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

  Gradients(const Wanted& want, const Tensor& x_, const Tensor& weight_,
            const OptionalTensor& bias_, const Tensor& adjacency_)
      : x(want.x ? empty_activations(x_, x_.size(1)) : none(x_)),
        weight(like(weight_, want.weight)),
        bias(bias_ ? like(*bias_, want.bias) : none(x_)),
        adjacency(like(adjacency_, want.adjacency)) {}

 private:
  static Tensor none(const Tensor& of) { return torch::stable::new_empty(of, {0}); }
  static Tensor like(const Tensor& of, bool wanted) {
    return wanted ? torch::stable::new_empty(of, of.sizes()) : none(of);
  }
};

}  // namespace msclr
