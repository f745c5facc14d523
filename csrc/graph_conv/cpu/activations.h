#pragma once

#include <array>

#include "../../common/elements.h"
#include "../../common/half.h"
#include "kernels.h"
#include "tiling.h"

namespace msclr::graph_conv_cpu {

// A tensor (N, C, T, V) of any strides, read or written a tile at a time as rows of `width`
// numbers: the channels and zeros after them. The rows of a group lie frame by frame from its
// first_row on.
class Activations {
 public:
  explicit Activations(const Tensor& tensor)
      : data_(tensor.data_ptr()), type_(tensor.scalar_type()) {
    for (int i = 0; i < 4; ++i) size_[i] = tensor.size(i), stride_[i] = tensor.stride(i);
  }

  // Memory of its own shape, as a segment of packed rows is.
  Activations(void* data, ScalarType type, std::array<int64_t, 4> size,
              std::array<int64_t, 4> stride)
      : data_(data), type_(type), size_(size), stride_(stride) {}

  // The rows, in `buffer` or in the tensor's own memory where it has that form already.
  template <class S>
  const S* read(const Tile& tile, const std::vector<Group>& groups, int64_t width,
                S* buffer) const {
    if (const S* own = in_place<S>(tile, groups, width)) return own;
    const int64_t channels = size_[1];
    each_run(tile, groups, [&](auto* from, int64_t rows, int64_t first_row) {
      using T = std::remove_pointer_t<decltype(from)>;
      S* to = buffer + first_row * width;
      if constexpr (std::is_same_v<T, S>)
        if (channels_together())
          return kernels<S>().copy_rows(from, rows, channels, stride_[3], to, width, width);
      if constexpr (kIsHalf<T> && std::is_same_v<S, float>)
        if (channels_together()) return widen_rows(from, rows, channels, stride_[3], to, width);
      for (int64_t r = 0; r < rows; ++r, from += stride_[3], to += width) {
        for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<S>(from[c * stride_[1]]);
        for (int64_t c = channels; c < width; ++c) to[c] = S(0);
      }
    });
    return buffer;
  }

  // Where the rows may be written directly, or null.
  template <class S>
  S* in_place(const Tile& tile, const std::vector<Group>& groups, int64_t width) const {
    const bool natural = groups.size() == 1 && groups[0].joints == size_[3];
    const bool same = type_ == scalar_type<S>() && size_[1] == width && channels_together() &&
                      stride_[3] == width && stride_[2] == width * size_[3];
    return natural && same ? frame<S>(tile) : nullptr;
  }

  // Writes the rows; joints at or past `joints`, which no group has, become 0.
  template <class S>
  void write(const Tile& tile, const std::vector<Group>& groups, int64_t joints, int64_t width,
             const S* buffer) const {
    const int64_t channels = size_[1];
    each_run(tile, groups, [&](auto* to, int64_t rows, int64_t first_row) {
      using T = std::remove_pointer_t<decltype(to)>;
      const S* from = buffer + first_row * width;
      if constexpr (std::is_same_v<T, S>)
        if (channels_together())
          return kernels<S>().copy_rows(from, rows, channels, width, to, stride_[3], channels);
      if constexpr (kIsHalf<T> && std::is_same_v<S, float>)
        if (channels_together()) return narrow_rows(from, rows, channels, width, to, stride_[3]);
      for (int64_t r = 0; r < rows; ++r, to += stride_[3], from += width)
        for (int64_t c = 0; c < channels; ++c) to[c * stride_[1]] = static_cast<T>(from[c]);
    });
    if (joints < size_[3]) clear(tile, joints);
  }

 private:
  bool channels_together() const { return stride_[1] == 1 || size_[1] == 1; }

  template <class T>
  T* frame(const Tile& tile) const {
    return static_cast<T*>(data_) + tile.sample * stride_[0] + tile.start * stride_[2];
  }

  template <class S>
  static constexpr ScalarType scalar_type() {
    return std::is_same_v<S, double> ? ScalarType::Double : ScalarType::Float;
  }

  // f(element of the run's first joint, how many joints, row of the first)
  template <class F>
  void each_run(const Tile& tile, const std::vector<Group>& groups, const F& f) const {
    dispatch(type_, "x", [&](auto* tag) {
      auto* data = frame<std::remove_pointer_t<decltype(tag)>>(tile);
      for (const Group& group : groups) {
        int64_t row = group.first_row;
        for (int64_t t = 0; t < tile.frames; ++t)
          for (const Group::Run& run : group.runs) {
            f(data + t * stride_[2] + run.joint * stride_[3], run.count, row);
            row += run.count;
          }
      }
    });
  }

  void clear(const Tile& tile, int64_t joints) const {
    Group masked;
    for (int64_t v = joints; v < size_[3]; ++v) masked.add(v);
    const int64_t channels = size_[1];
    const bool together = channels_together() && stride_[3] == channels;
    each_run(tile, {masked}, [&](auto* to, int64_t rows, int64_t) {
      const std::remove_pointer_t<decltype(to)> zero = 0;
      if (together) return void(std::fill_n(to, rows * channels, zero));
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < channels; ++c) to[r * stride_[3] + c * stride_[1]] = zero;
    });
  }

  void* data_;
  ScalarType type_;
  std::array<int64_t, 4> size_, stride_;
};

}  // namespace msclr::graph_conv_cpu
