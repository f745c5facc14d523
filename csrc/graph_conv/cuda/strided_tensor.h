#pragma once
// What the host hands to a kernel: tensors by address, element type, sizes and strides.

#include <cstdint>

namespace msclr::gpu {

enum class Type : int32_t { kFloat, kDouble, kHalf, kBFloat16, kInt32, kInt64, kBool };

// 16-bit numbers are moved about and fed to the tensor cores; sums are in float.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// Dimensions are aligned at the right; those missing on the left have size 1.
struct StridedTensor {
  void* data = nullptr;  // null: no such tensor
  Type type = Type::kFloat;
  int64_t size[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};
};

}  // namespace msclr::gpu
