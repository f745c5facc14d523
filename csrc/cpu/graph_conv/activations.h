#pragma once

#include <array>

#include "../elements.h"
#include "kernels.h"

namespace msclr::graph_conv_cpu {

// Some frames of one sample.
struct Tile {
  int64_t sample, start, frames;
};

// A tensor (N, C, T, V) of any strides, read or written a tile of frames at a time.
class Activations {
 public:
  explicit Activations(const Tensor& tensor) : tensor_(tensor) {
    for (int i = 0; i < 4; ++i) stride_[i] = tensor.stride(i);
  }

  // Frames of one sample as rows (t, v) of `width` numbers, the channels and zeros after them;
  // the tensor's own memory where it has that form already.
  template <class S>
  const S* read(const Tile& tile, int64_t joints, int64_t width, S* buffer) const {
    if (const S* own = in_place<S>(tile, joints, width)) return own;
    const int64_t channels = tensor_.size(1);
    if (bfloat16_rows()) {
      const uint16_t* from = frame<uint16_t>(tile);
      for (int64_t t = 0; t < tile.frames; ++t, from += stride_[2], buffer += joints * width)
        kernels<S>().widen(from, joints, channels, stride_[3], buffer, width);
      return buffer - tile.frames * joints * width;
    }
    each_row(tile, joints, [&](auto* from, int64_t row) {
      S* to = buffer + row * width;
      for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<S>(from[c * stride_[1]]);
      for (int64_t c = channels; c < width; ++c) to[c] = S(0);
    });
    return buffer;
  }

  // Where rows (t, v) of `width` numbers may be written directly, or null.
  template <class S>
  S* in_place(const Tile& tile, int64_t joints, int64_t width) const {
    const bool same = tensor_.scalar_type() == scalar_type<S>() && joints == tensor_.size(3) &&
                      tensor_.size(1) == width && (stride_[1] == 1 || width == 1) &&
                      stride_[3] == width && stride_[2] == width * joints;
    if (!same) return nullptr;
    return frame<S>(tile);
  }

  // Rows (t, v) of `width` numbers into frames of a sample; joints at or past `joints` become 0.
  template <class S>
  void write(const Tile& tile, int64_t joints, int64_t width, const S* buffer) const {
    const int64_t channels = tensor_.size(1), all = tensor_.size(3);
    if (bfloat16_rows()) {
      uint16_t* to = frame<uint16_t>(tile);
      for (int64_t t = 0; t < tile.frames; ++t, to += stride_[2], buffer += joints * width) {
        kernels<S>().narrow(buffer, joints, channels, width, to, stride_[3]);
        for (int64_t v = joints; v < all; ++v) std::fill_n(to + v * stride_[3], channels, 0);
      }
      return;
    }
    each_row(tile, all, [&](auto* to, int64_t row) {
      using T = std::remove_pointer_t<decltype(to)>;
      const int64_t t = row / all, v = row % all;
      const S* from = buffer + (t * joints + v) * width;
      for (int64_t c = 0; c < channels; ++c)
        to[c * stride_[1]] = v < joints ? static_cast<T>(from[c]) : T(0);
    });
  }

 private:
  bool bfloat16_rows() const {
    return tensor_.scalar_type() == ScalarType::BFloat16 &&
           (stride_[1] == 1 || tensor_.size(1) == 1);
  }

  template <class T>
  T* frame(const Tile& tile) const {
    return static_cast<T*>(tensor_.data_ptr()) + tile.sample * stride_[0] + tile.start * stride_[2];
  }

  template <class S>
  static constexpr ScalarType scalar_type() {
    return std::is_same_v<S, double> ? ScalarType::Double : ScalarType::Float;
  }

  template <class F>
  void each_row(const Tile& tile, int64_t joints, const F& f) const {
    dispatch(tensor_.scalar_type(), "x", [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      T* data = frame<T>(tile);
      for (int64_t t = 0; t < tile.frames; ++t)
        for (int64_t v = 0; v < joints; ++v)
          f(data + t * stride_[2] + v * stride_[3], t * joints + v);
    });
  }

  Tensor tensor_;
  std::array<int64_t, 4> stride_;
};

}  // namespace msclr::graph_conv_cpu
