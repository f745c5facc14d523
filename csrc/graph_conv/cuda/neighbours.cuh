#pragma once
// What the other kernels read instead of adjacency and weight, made on the device.

#include "tiles.cuh"

namespace msclr::gpu {

struct Link {
  float value;
  int32_t joint;
};

// The j-th neighbour of joint w is at [j][w]: lanes of consecutive joints read one line.
struct Graph {
  Link* links;       // (L, K, V, V)
  int32_t* degrees;  // (L, K, V)
  float* sums;       // (L, K, V) of the neighbours' values: what a bias is multiplied with
};

struct NeighbourArguments {
  Batch batch;
  StridedTensor adjacency, support;  // (L, K, V, V); support may be absent
  int partitions;
  bool outgoing;  // of joint v all w with A[v, w], as the gradient of x wants it
  Graph graph;
};

constexpr int kListThreads = 128;

// A warp a list.
static __global__ void __launch_bounds__(kListThreads) find_neighbours(const NeighbourArguments a) {
  const int lane = threadIdx.x % 32, list = (blockIdx.x * kListThreads + threadIdx.x) / 32;
  for (int n = blockIdx.x * kListThreads + threadIdx.x; n < a.batch.samples;
       n += gridDim.x * kListThreads) {
    const int l = layout_of(a.batch, n);
    fail_unless(0 <= l && l < a.batch.layouts, "layout_index must lie in 0..L-1");
  }
  const int joints_all = a.batch.joints;
  if (list >= a.batch.layouts * a.partitions * joints_all) return;

  const int joint = list % joints_all, k = list / joints_all % a.partitions;
  const int l = list / joints_all / a.partitions, joints = joints_of(a.batch, l);
  fail_unless(0 <= joints && joints <= joints_all, "joint_counts must lie in 0..V");
  auto offset = [&](const StridedTensor& tensor, int v, int w) {
    return l * tensor.stride[0] + k * tensor.stride[1] + v * tensor.stride[2] +
           w * tensor.stride[3];
  };
  int degree = 0;
  float sum = 0;
  for (int first = 0; first < joints; first += 32) {
    const int other = first + lane;
    const int v = a.outgoing ? joint : other, w = a.outgoing ? other : joint;
    const bool real = joint < joints && other < joints;
    const bool wanted = real && (!a.support.data || read_bool(a.support, offset(a.support, v, w)));
    const float value = wanted ? read(a.adjacency, offset(a.adjacency, v, w)) : 0.f;
    const unsigned found = ballot(value != 0.f);
    if (value != 0.f) {
      const int j = degree + count_bits(found & ((1u << lane) - 1));
      a.graph.links[static_cast<int64_t>(list - joint + j) * joints_all + joint] = {value, other};
    }
    degree += count_bits(found);
    sum += value;
  }
  for (int lanes = 16; lanes; lanes /= 2) sum += shuffle_xor(sum, lanes);
  if (lane == 0) {
    a.graph.degrees[list] = degree;
    a.graph.sums[list] = sum;
  }
}

// The weight as the tensor cores take it: a lane's 16 bytes are 8 consecutive input channels of one
// output channel, and 32 input channels of 8 output channels make the 512 bytes of a warp.
constexpr int kPackedChannels = 32, kPackedColumns = 64, kPackThreads = 256;

template <class T>
struct PackArguments {
  StridedTensor weight, bias;  // (K*C_out, C_in), (K*C_out) or absent
  int partitions;
  int depth, columns;  // input and output channels of the product
  int chunks, padded;  // depth in chunks of 32, columns rounded up to 64
  bool transpose;      // the product's input channels are the weight's output channels
  T* packed;           // (K, chunks, padded, 32), zeros in what was added
  float* packed_bias;  // (K, padded), or null
};

template <class T>
__global__ void __launch_bounds__(kPackThreads) pack_weight(const PackArguments<T> a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  const int64_t size = static_cast<int64_t>(a.partitions) * a.chunks * a.padded * kPackedChannels;
  if (i < size) {
    const int64_t row = i / kPackedChannels, n = row % a.padded, k = row / a.padded / a.chunks;
    const int64_t c = row / a.padded % a.chunks * kPackedChannels + i % kPackedChannels;
    const int64_t row_stride = a.weight.stride[2], stride = a.weight.stride[3];
    float value = 0;
    if (c < a.depth && n < a.columns)
      value = read(a.weight, a.transpose ? (k * a.depth + c) * row_stride + n * stride
                                         : (k * a.columns + n) * row_stride + c * stride);
    a.packed[i] = from_float<T>(value);
  } else if (a.packed_bias && i - size < static_cast<int64_t>(a.partitions) * a.padded) {
    const int64_t n = (i - size) % a.padded, k = (i - size) / a.padded;
    const bool real = a.bias.data && n < a.columns;
    a.packed_bias[i - size] = real ? read(a.bias, (k * a.columns + n) * a.bias.stride[3]) : 0.f;
  }
}

}  // namespace msclr::gpu
