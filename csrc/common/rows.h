#pragma once

#include <algorithm>

#include "elements.h"
#include "half.h"

namespace msclr {

// The rows of a floating point tensor (.., D) of two or three dimensions and any strides, counted
// in the order of its indices, read and written as numbers of type S.
class Rows {
 public:
  explicit Rows(const Tensor& tensor)
      : tensor_(tensor),
        inner_(std::max<int64_t>(tensor.size(tensor.dim() - 2), 1)),
        outer_stride_(tensor.dim() == 3 ? tensor.stride(0) : 0),
        stride_(tensor.stride(tensor.dim() - 2)) {}

  int64_t dim() const { return tensor_.size(tensor_.dim() - 1); }

  // Rows from `first` on, each followed by zeros up to `width` numbers.
  template <class S>
  void read(int64_t first, int64_t count, S* to, int64_t width) const {
    dispatch(tensor_.scalar_type(), "rows", [&](auto* tag) {
      for (int64_t r = first; r < first + count; ++r, to += width) {
        read_row(at<std::remove_pointer_t<decltype(tag)>>(r), to);
        std::fill(to + dim(), to + width, S(0));
      }
    });
  }

  // A row in the tensor's own memory, where it holds numbers of type S side by side, else null; the
  // row after it is stride() further on. For tensors of two dimensions.
  template <class S>
  const S* in_place(int64_t row) const {
    constexpr auto type = std::is_same_v<S, double> ? ScalarType::Double : ScalarType::Float;
    return tensor_.scalar_type() == type && column_stride() == 1 ? at<S>(row) : nullptr;
  }
  int64_t stride() const { return stride_; }

  template <class S>
  void write(int64_t row, const S* from) const {
    dispatch(tensor_.scalar_type(), "rows", [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      T* to = at<T>(row);
      const int64_t count = dim(), step = column_stride();
      for (int64_t c = 0; c < count; ++c) to[c * step] = static_cast<T>(from[c]);
    });
  }

 private:
  int64_t column_stride() const { return tensor_.stride(tensor_.dim() - 1); }

  template <class T>
  T* at(int64_t row) const {
    return static_cast<T*>(tensor_.data_ptr()) + row / inner_ * outer_stride_ +
           row % inner_ * stride_;
  }

  template <class T, class S>
  void read_row(const T* from, S* to) const {
    const int64_t count = dim(), step = column_stride();
    if (step == 1) {
      if constexpr (std::is_same_v<T, S>) {
        std::copy_n(from, count, to);
        return;
      }
      if constexpr (kIsHalf<T> && std::is_same_v<S, float>)
        return widen_rows(from, 1, count, count, to, count);
    }
    for (int64_t c = 0; c < count; ++c) to[c] = static_cast<S>(from[c * step]);
  }

  Tensor tensor_;
  int64_t inner_, outer_stride_, stride_;
};

}  // namespace msclr
