#pragma once
// The last step of a parameter's gradient: the shares' sums, added up in an order that is always
// the same, in the parameter's own type.

#include "elements.cuh"

namespace msclr::gpu {

struct ShareArguments {
  const float* sums;  // (shares, count)
  int shares;
  int64_t count;
  StridedTensor support;   // (L, K, V, V), 0 outside it; or absent
  StridedTensor gradient;  // contiguous
};

constexpr int kShareThreads = 256, kShareElements = 32;  // of a block

static __global__ void __launch_bounds__(kShareThreads) add_shares(const ShareArguments a) {
  constexpr int kGroups = kShareThreads / kShareElements;
  const int lane = threadIdx.x % kShareElements, group = threadIdx.x / kShareElements;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kShareElements + lane;
  float* parts = reinterpret_cast<float*>(dynamic_shared());  // (groups, elements)
  float sum = 0;
#pragma unroll 4
  for (int share = group; share < a.shares; share += kGroups)
    if (i < a.count) sum += a.sums[share * a.count + i];
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || i >= a.count) return;
  float total = 0;
  for (int other = 0; other < kGroups; ++other) total += parts[other * kShareElements + lane];
  if (a.support.data) {
    int64_t offset = 0, rest = i;
    for (int d = 3; d >= 0; --d) {
      offset += rest % a.gradient.size[d] * a.support.stride[d];
      rest /= a.gradient.size[d];
    }
    if (!read_bool(a.support, offset)) total = 0;
  }
  write(a.gradient, i, total);
}

}  // namespace msclr::gpu
