// Conversions between float and numbers of 16 bits, for one instruction set: see simd.h, which is
// included here, for what must be defined before.

#include "simd.h"

typedef uint32_t Words __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(SIMD_BYTES / 2), aligned(2), may_alias));

// Rows of `channels` numbers of 16 bits, `stride` apart, become rows of `width` floats, filled up
// with zeros: f(words) does whole vectors, numbers of type T are left to the compiler.
template <class T, class F>
SIMD_INLINE void widen(const uint16_t* in, int64_t rows, int64_t channels, int64_t stride,
                       float* out, int64_t width, const F& f) {
  constexpr int64_t L = kLanes<float>;
  if (stride == channels && width == channels) channels = width = rows * channels, rows = 1;
  for (int64_t r = 0; r < rows; ++r, in += stride, out += width) {
    int64_t c = 0;
    for (; c + L <= channels; c += L) {
      const Halves half = *reinterpret_cast<const Halves*>(in + c);
      store(out + c, (Vector<float>)f(__builtin_convertvector(half, Words)));
    }
    for (; c < channels; ++c) out[c] = static_cast<float>(std::bit_cast<T>(in[c]));
    for (; c < width; ++c) out[c] = 0;
  }
}

// The way back: rows of floats, `width` apart, to rows of 16 bits.
template <class T, class F>
SIMD_INLINE void narrow(const float* in, int64_t rows, int64_t channels, int64_t width,
                        uint16_t* out, int64_t stride, const F& f) {
  constexpr int64_t L = kLanes<float>;
  if (stride == channels && width == channels) channels = width = rows * channels, rows = 1;
  for (int64_t r = 0; r < rows; ++r, in += width, out += stride) {
    int64_t c = 0;
    for (; c + L <= channels; c += L)
      *reinterpret_cast<Halves*>(out + c) = __builtin_convertvector(f((Words)load(in + c)), Halves);
    for (; c < channels; ++c) out[c] = std::bit_cast<uint16_t>(static_cast<T>(in[c]));
  }
}

SIMD_TARGET inline void widen_bfloat16(const uint16_t* in, int64_t rows, int64_t channels,
                                       int64_t stride, float* out, int64_t width) {
  widen<BFloat16>(in, rows, channels, stride, out, width,
                  [](Words bits) SIMD_TARGET -> Words { return bits << 16; });
}

// Without an arithmetic on subnormal numbers, which may be off: those of float16 get the exponent
// 2^-14 and a leading 1, which is subtracted again; all others get a wider exponent.
SIMD_TARGET inline void widen_half(const uint16_t* in, int64_t rows, int64_t channels,
                                   int64_t stride, float* out, int64_t width) {
  widen<Half>(in, rows, channels, stride, out, width, [](Words bits) SIMD_TARGET -> Words {
    const Words magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
    const Words normal = (magnitude << 13) + (112u << 23);
    const Words endless = normal + (112u << 23);  // infinity and NaN
    const Words small = (Words)((Vector<float>)((magnitude << 13) + (113u << 23)) - 0x1p-14f);
    const Words wider = (Whole)magnitude >= 0x7c00 ? endless : normal;
    return ((Whole)magnitude < 0x400 ? small : wider) | sign;
  });
}

// To the nearest, ties to even; NaN stays NaN.
SIMD_TARGET inline void narrow_bfloat16(const float* in, int64_t rows, int64_t channels,
                                        int64_t width, uint16_t* out, int64_t stride) {
  narrow<BFloat16>(in, rows, channels, width, out, stride, [](Words bits) SIMD_TARGET -> Words {
    const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    return (Whole)(bits & 0x7fffffffu) > 0x7f800000 ? Words{} + 0x7fc0u : rounded;
  });
}

// The same for float16. Added to a number below 2^-14, 1/2 leaves its multiple of 2^-24 in the
// lowest bits, rounded.
SIMD_TARGET inline void narrow_half(const float* in, int64_t rows, int64_t channels, int64_t width,
                                    uint16_t* out, int64_t stride) {
  narrow<Half>(in, rows, channels, width, out, stride, [](Words bits) SIMD_TARGET -> Words {
    const Words unsigned_bits = bits & 0x7fffffffu;
    const Whole magnitude = (Whole)unsigned_bits;
    const Words small = (Words)((Vector<float>)unsigned_bits + 0.5f) - (126u << 23);
    const Words normal =
        (unsigned_bits - (112u << 23) + 0xfffu + ((unsigned_bits >> 13) & 1)) >> 13;
    Words half = magnitude < (113 << 23) ? small : normal;
    half = magnitude >= (143 << 23) ? Words{} + 0x7c00u : half;
    half = magnitude > (255 << 23) ? Words{} + 0x7e00u : half;
    return half | ((bits >> 16) & 0x8000u);
  });
}

constexpr HalfKernels kHalfKernels = {
    .widen_bfloat16 = &widen_bfloat16,
    .widen_half = &widen_half,
    .narrow_bfloat16 = &narrow_bfloat16,
    .narrow_half = &narrow_half,
};
