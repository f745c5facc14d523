#pragma once
// Rows of activations of any floating point type, read and written as numbers of type S.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/elements.h"
#include "../../common/half.h"
#include "kernels.h"

namespace msclr::temporal_conv_cpu {

// Some rows of a matrix, `step` apart, and some of its columns.
struct Part {
  int64_t row, count, step, column, columns;
};

// A contiguous matrix (R, C). Columns are taken up to a multiple of the lanes: those past C are
// read as zeros and not written.
template <class S>
class Matrix {
 public:
  explicit Matrix(const Tensor& tensor)
      : tensor_(torch::stable::contiguous(tensor)),
        data_(tensor_.data_ptr()),
        type_(tensor_.scalar_type()),
        columns_(tensor.size(1)) {}

  int64_t columns() const { return columns_; }

  // The rows where they are, if they are there in the form of the inner loops.
  bool in_place(const Part& part) const {
    constexpr auto own = std::is_same_v<S, double> ? ScalarType::Double : ScalarType::Float;
    return type_ == own && part.column + part.columns <= columns_;
  }
  RowsAt<S> at(const Part& part) const {
    return {static_cast<S*>(data_) + part.row * columns_ + part.column, part.step * columns_};
  }

  // The rows, in place or in `buffer`, one after the other.
  RowsAt<const S> read(const Part& part, S* buffer) const {
    if (in_place(part)) return {at(part).data, at(part).stride};
    dispatch(type_, "rows", [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      const T* from = first<T>(part);
      const int64_t channels = real(part), distance = part.step * columns_;
      if constexpr (kIsHalf<T> && std::is_same_v<S, float>)
        return widen_rows(from, part.count, channels, distance, buffer, part.columns);
      S* to = buffer;
      for (int64_t r = 0; r < part.count; ++r, from += distance, to += part.columns)
        std::fill(std::copy_n(from, channels, to), to + part.columns, S(0));
    });
    return {buffer, part.columns};
  }

  // Where to compute the rows: in place or in `buffer`; write() then brings them from there.
  RowsAt<S> target(const Part& part, S* buffer) const {
    return in_place(part) ? at(part) : RowsAt<S>{buffer, part.columns};
  }
  void write(const Part& part, const S* buffer) const {
    if (in_place(part)) return;
    dispatch(type_, "rows", [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      T* to = first<T>(part);
      const int64_t channels = real(part), distance = part.step * columns_;
      if constexpr (kIsHalf<T> && std::is_same_v<S, float>)
        return narrow_rows(buffer, part.count, channels, part.columns, to, distance);
      const S* from = buffer;
      for (int64_t r = 0; r < part.count; ++r, from += part.columns, to += distance)
        std::copy_n(from, channels, to);
    });
  }

 private:
  int64_t real(const Part& part) const { return std::min(part.columns, columns_ - part.column); }

  template <class T>
  T* first(const Part& part) const {
    return static_cast<T*>(data_) + part.row * columns_ + part.column;
  }

  Tensor tensor_;
  void* data_;
  ScalarType type_;
  int64_t columns_;
};

// A number for each channel, then zeros up to a multiple of the lanes.
template <class S>
std::vector<S> padded(const Tensor& tensor, const char* name) {
  std::vector<S> out = values<S>(tensor, name);
  out.resize(round_up(out.size(), kernels<S>().lanes), S(0));
  return out;
}

}  // namespace msclr::temporal_conv_cpu
