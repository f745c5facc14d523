#pragma once
// Elements of tensors of any floating point type, read and written as numbers of one type.

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <type_traits>
#include <vector>

namespace msclr {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Calls f with a null pointer of the element type of a floating point tensor.
template <class F>
void dispatch(ScalarType type, const char* name, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return f(static_cast<double*>(nullptr));
    case ScalarType::BFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case ScalarType::Half:
      return f(static_cast<Half*>(nullptr));
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, bfloat16 or float16");
  }
}

// Any floating point tensor, contiguous or not, as numbers of type S in the order of its indices.
template <class S>
std::vector<S> values(const Tensor& tensor, const char* name) {
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<S> out(dense.numel());
  dispatch(dense.scalar_type(), name, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* from = static_cast<const T*>(dense.const_data_ptr());
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<S>(from[i]);
  });
  return out;
}

// Every element of a contiguous floating point tensor from its index.
template <class S, class F>
void assign(const Tensor& tensor, const F& value) {
  dispatch(tensor.scalar_type(), "gradient", [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* to = static_cast<T*>(tensor.mutable_data_ptr());
    const int64_t count = tensor.numel();
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(value(i));
  });
}

inline std::vector<int64_t> integers(const Tensor& tensor) {
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<int64_t> out(dense.numel());
  if (dense.scalar_type() == ScalarType::Int)
    std::copy_n(static_cast<const int32_t*>(dense.const_data_ptr()), out.size(), out.begin());
  else
    std::copy_n(static_cast<const int64_t*>(dense.const_data_ptr()), out.size(), out.begin());
  return out;
}

}  // namespace msclr
