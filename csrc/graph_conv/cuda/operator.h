#pragma once
// The operator as launches: which kernels, on what grids, with what scratch memory.

#include "adjacency_gradient.cuh"
#include "convolve.cuh"
#include "launches.h"
#include "weight_gradient.cuh"

namespace msclr::gpu {

// Half and BFloat16, on the tensor cores.
template <class T, class Device>
class OnTensorCores : Launches<Device> {
  using Base = Launches<Device>;
  using Base::batch_, Base::device_, Base::p_, Base::partitions_, Base::c_in_, Base::c_out_;

 public:
  using Base::Base;

  // The product `from` -> `to`: y from x, or outgoing: the gradient of x from that of y.
  void convolve(const StridedTensor& from, const StridedTensor& to, const StridedTensor& bias,
                bool outgoing) {
    namespace c = convolve;
    if (Base::tiles() == 0 || to.size[1] == 0) return;
    const PackArguments<T> packed = pack(from.size[1], to.size[1], bias, outgoing);
    ConvolveArguments<T> a{batch_, Base::neighbours(outgoing), activations(from), activations(to),
                           packed.packed};
    a.bias = bias.data ? packed.packed_bias : nullptr;
    a.partitions = partitions_, a.chunks = packed.chunks, a.padded = packed.padded;
    const int groups = ceil_div(partitions_, c::kMostPartitions), steps = groups * a.chunks;
    a.group = ceil_div(partitions_, groups);
    a.resident = int64_t{1} * steps * a.group * c::kWeightBytes <= c::kMostResidentBytes;
    const int shared = c::shared_bytes(a.group, a.resident ? steps : c::kStages);
    const int rows = a.padded / c::kColumns;
    const auto kernel = convolve_tiles<T>;
    device_.run(kernel, Base::shares(kernel, rows, c::kThreads, shared), rows, c::kThreads, shared,
                a);
  }

  void weight_gradient(const StridedTensor& grad, const StridedTensor& weight,
                       const StridedTensor& bias) {
    namespace w = weight_gradient;
    const int chunks = ceil_div(std::max(c_in_, 1), w::kChannels);
    const int rows =
        ceil_div(partitions_, w::kPartitions) * ceil_div(c_out_, w::kChannels) * chunks;
    const auto kernel = weight_gradient_of_share<T>;
    const int shares = Base::shares(kernel, rows, w::kThreads, w::kSharedBytes);
    WeightGradientArguments a{batch_,      {},    activations(p_.x), activations(grad),
                              partitions_, chunks};
    a.weight = weight.data ? Base::template scratch<float>(shares * Base::weights()) : nullptr;
    a.bias = bias.data ? Base::template scratch<float>(shares * Base::biases()) : nullptr;
    if (shares > 0) {
      a.graph = Base::neighbours(false);
      device_.run(kernel, shares, rows, w::kThreads, w::kSharedBytes, a);
    }
    if (weight.data) Base::add_up(a.weight, shares, Base::weights(), weight);
    if (bias.data) Base::add_up(a.bias, shares, Base::biases(), bias);
  }

  void adjacency_gradient(const StridedTensor& grad, const StridedTensor& adjacency) {
    namespace g = adjacency_gradient;
    const auto kernel = adjacency_gradient_of_share<T>;
    const int rows = Base::matrices() * ceil_div(batch_.joints, g::kJoints);
    const int shares = Base::odd_shares(kernel, rows, g::kThreads, g::kSharedBytes);
    AdjacencyGradientArguments<T> a{batch_, activations(p_.x), activations(grad)};
    a.adjacency = Base::template scratch<float>(shares * Base::links());
    if (shares > 0) {
      const PackArguments<T> packed = pack(c_in_, c_out_, p_.bias, false);
      a.weight = packed.packed, a.bias = packed.packed_bias;
      a.partitions = partitions_, a.chunks = packed.chunks, a.padded = packed.padded;
      device_.run(kernel, shares, rows, g::kThreads, g::kSharedBytes, a);
    }
    Base::add_up(a.adjacency, shares, Base::links(), adjacency, p_.support);
  }

 private:
  PackArguments<T> pack(int64_t depth, int64_t columns, const StridedTensor& bias, bool transpose) {
    PackArguments<T> a{p_.weight, bias, partitions_};
    a.depth = static_cast<int>(depth), a.columns = static_cast<int>(columns);
    a.chunks = ceil_div(std::max(a.depth, 1), kPackedChannels);
    a.padded = ceil_div(std::max(a.columns, 1), kPackedColumns) * kPackedColumns;
    a.transpose = transpose;
    const int64_t biases = int64_t{1} * partitions_ * a.padded;
    const int64_t size = biases * a.chunks * kPackedChannels;
    a.packed = Base::template scratch<T>(size);
    a.packed_bias = Base::template scratch<float>(biases);
    device_.run(pack_weight<T>, ceil_div(size + biases, kPackThreads), 1, kPackThreads, 0, a);
    return a;
  }
};

// Calls f with the operator for x's type.
template <class Device, class F>
void with_operator(Device& device, const Problem& p, const F& f) {
  if (p.x.type == Type::kHalf) return f(OnTensorCores<Half, Device>(device, p));
  return f(OnTensorCores<BFloat16, Device>(device, p));
}

template <class Device>
void forward(Device& device, const Problem& p, const StridedTensor& y) {
  with_operator(device, p, [&](auto op) { op.convolve(p.x, y, p.bias, false); });
}

template <class Device>
void backward(Device& device, const Problem& p, const StridedTensor& grad,
              const GradientTensors& out) {
  with_operator(device, p, [&](auto op) {
    if (out.x.data) op.convolve(grad, out.x, StridedTensor(), true);
    if (out.weight.data || out.bias.data) op.weight_gradient(grad, out.weight, out.bias);
    if (out.adjacency.data) op.adjacency_gradient(grad, out.adjacency);
  });
}

}  // namespace msclr::gpu
