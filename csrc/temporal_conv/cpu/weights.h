#pragma once
// Weights (C_out, C_in, 9) as the products read them, and gradients back from there.

#include <mutex>
#include <optional>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/parallel.h"
#include "kernels.h"

namespace msclr::temporal_conv_cpu {

// The convolution's weights, or those of its transpose, which takes rows of y to rows of x.
template <class S>
struct Weights {
  const S* data;  // (C_out, C_in, 9)
  int64_t c_in, c_out;
  bool transpose;

  int64_t depth() const { return transpose ? c_out : c_in; }
  int64_t columns() const { return transpose ? c_in : c_out; }
  const S* taps(int64_t i, int64_t j) const {
    return data + (transpose ? i * c_in + j : j * c_in + i) * kTaps;
  }
};

template <class S>
class Packed {
 public:
  Packed(int64_t slots, int64_t depth, int64_t columns, int64_t panel)
      : buffer_(slots * depth * round_up(columns, kernels<S>().lanes)),
        panels_{buffer_.get(), slots, depth, round_up(columns, kernels<S>().lanes), panel} {}

  operator const Panels<S>&() const { return panels_; }
  const Panels<S>& panels() const { return panels_; }

 private:
  Buffer<S> buffer_;
  Panels<S> panels_;
};

// Something made by the first thread that needs it.
template <class T>
class Lazy {
 public:
  template <class F>
  const T& get(const F& make) {
    std::call_once(once_, [&] { value_.emplace(make()); });
    return *value_;
  }

 private:
  std::once_flag once_;
  std::optional<T> value_;
};

// f(row, first column, how many, the taps of these entries (9, how many)) for all of the matrix.
template <class S, class F>
void each_taps(const Weights<S>& weights, const Panels<S>& panels, const F& f) {
  in_parallel((panels.columns + panels.widest - 1) / panels.widest, [&](int64_t panel) {
    const int64_t column = panel * panels.widest, width = panels.width(column);
    const int64_t real = std::min(width, weights.columns() - column);
    std::vector<S> taps(kTaps * width, S(0));
    for (int64_t i = 0; i < panels.depth; ++i) {
      for (int64_t j = 0; j < real; ++j) {
        const S* from = weights.taps(i, column + j);
        for (int64_t k = 0; k < kTaps; ++k) taps[k * width + j] = from[k];
      }
      f(i, column, width, taps.data());
    }
  });
}

// A matrix a tap.
template <class S>
Packed<S> pack_taps(const Weights<S>& weights) {
  Packed<S> packed(kTaps, weights.depth(), weights.columns(), kernels<S>().panel);
  each_taps<S>(weights, packed, [&](int64_t i, int64_t column, int64_t width, const S* taps) {
    for (int64_t k = 0; k < kTaps; ++k)
      std::copy_n(taps + k * width, width, packed.panels().at(column, k) + i * width);
  });
  return packed;
}

}  // namespace msclr::temporal_conv_cpu
