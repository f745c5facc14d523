#pragma once
// Rows of bfloat16 and float16 numbers to rows of floats and back, for this processor.

#include <bit>
#include <cstdint>
#include <type_traits>

#include "elements.h"
#include "instruction_set.h"
#include "strided.h"

namespace msclr {

struct HalfKernels {
  // in, rows, channels, distance of rows in `in`, out, width of rows of `out`
  using Widen = void(const uint16_t*, int64_t, int64_t, int64_t, float*, int64_t);
  // in, rows, channels, width of rows of `in`, out, distance of rows in `out`
  using Narrow = void(const float*, int64_t, int64_t, int64_t, uint16_t*, int64_t);
  Widen *widen_bfloat16, *widen_half;
  Narrow *narrow_bfloat16, *narrow_half;
};

namespace half_loops {
#define SIMD_KERNELS "half_loops.h"
#include "simd_targets.h"
#undef SIMD_KERNELS
}  // namespace half_loops

template <class T>
constexpr bool kIsHalf = std::is_same_v<T, BFloat16> || std::is_same_v<T, Half>;

// Rows of `channels` numbers of T, `stride` apart, become rows of `width` floats, zeros at the end.
template <class T>
void widen_rows(const T* in, int64_t rows, int64_t channels, int64_t stride, float* out,
                int64_t width) {
  using namespace half_loops;
  const HalfKernels& run = SIMD_CHOOSE(kHalfKernels);
  (std::is_same_v<T, Half> ? run.widen_half : run.widen_bfloat16)(
      reinterpret_cast<const uint16_t*>(in), rows, channels, stride, out, width);
}

// The way back, rounding to the nearest, ties to even.
template <class T>
void narrow_rows(const float* in, int64_t rows, int64_t channels, int64_t width, T* out,
                 int64_t stride) {
  using namespace half_loops;
  const HalfKernels& run = SIMD_CHOOSE(kHalfKernels);
  (std::is_same_v<T, Half> ? run.narrow_half : run.narrow_bfloat16)(
      in, rows, channels, width, reinterpret_cast<uint16_t*>(out), stride);
}

}  // namespace msclr
