#pragma once
// Numbers of any type in and out of memory.

#include "primitives.cuh"

namespace msclr::gpu {

template <class T>
__device__ T from_float(float x) {
  return {static_cast<uint16_t>(pack<T>(x, 0.f))};
}

// Adds factor * (the eight numbers of p) to the sums.
template <class T>
__device__ void add_scaled(float (&sums)[8], const Pack16& p, float factor) {
  const uint32_t pairs[4] = {p.x, p.y, p.z, p.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[2 * i] += factor * to_float(T{static_cast<uint16_t>(pairs[i])});
    sums[2 * i + 1] += factor * to_float(T{static_cast<uint16_t>(pairs[i] >> 16)});
  }
}

template <class T>
__device__ Pack16 pack8(const float (&x)[8]) {
  return {pack<T>(x[0], x[1]), pack<T>(x[2], x[3]), pack<T>(x[4], x[5]), pack<T>(x[6], x[7])};
}

// The types of parameters are looked up at run time: they are read once, activations often.
__device__ inline float read(const StridedTensor& tensor, int64_t offset) {
  switch (tensor.type) {
    case Type::kFloat:
      return static_cast<const float*>(tensor.data)[offset];
    case Type::kDouble:
      return static_cast<float>(static_cast<const double*>(tensor.data)[offset]);
    case Type::kHalf:
      return to_float(static_cast<const Half*>(tensor.data)[offset]);
    default:
      return to_float(static_cast<const BFloat16*>(tensor.data)[offset]);
  }
}

__device__ inline int read_integer(const StridedTensor& tensor, int64_t offset) {
  if (tensor.type == Type::kInt32) return static_cast<const int32_t*>(tensor.data)[offset];
  return static_cast<int>(static_cast<const int64_t*>(tensor.data)[offset]);
}

__device__ inline bool read_bool(const StridedTensor& tensor, int64_t offset) {
  return static_cast<const bool*>(tensor.data)[offset];
}

__device__ inline void write(const StridedTensor& tensor, int64_t offset, float value) {
  switch (tensor.type) {
    case Type::kFloat:
      static_cast<float*>(tensor.data)[offset] = value;
      break;
    case Type::kDouble:
      static_cast<double*>(tensor.data)[offset] = value;
      break;
    case Type::kHalf:
      static_cast<Half*>(tensor.data)[offset] = from_float<Half>(value);
      break;
    default:
      static_cast<BFloat16*>(tensor.data)[offset] = from_float<BFloat16>(value);
  }
}

}  // namespace msclr::gpu
