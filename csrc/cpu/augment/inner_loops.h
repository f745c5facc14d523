// The inner loops of augmented batches, for one instruction set: see simd.h, which is included
// here, for what must be defined before. Where nothing else is said, arrays have room for whole
// vectors.

#include "../simd.h"
#include "normal.h"

// f(i) for every vector of n floats.
template <class F>
SIMD_INLINE void each_vector(int64_t n, const F& f) {
  for (int64_t i = 0; i < n; i += kLanes<float>) f(i);
}

// x y z x y z .. of as many joints as there are lanes, as three vectors.
template <int AXIS, size_t... I>
SIMD_INLINE Vector<float> every_third(const float* from, std::index_sequence<I...>) {
  constexpr int L = sizeof...(I);
  const Vector<float> a = load(from), b = load(from + L), c = load(from + 2 * L);
  const Vector<float> ab =
      __builtin_shufflevector(a, b, (int(3 * I + AXIS) < 2 * L ? int(3 * I + AXIS) : 0)...);
  return __builtin_shufflevector(ab, c,
                                 (int(3 * I + AXIS) < 2 * L ? int(I) : int(3 * I + AXIS) - L)...);
}

// The PART-th vector of x y z x y z ..
template <int PART, size_t... I>
SIMD_INLINE Vector<float> interleaved(const Vector<float> xyz[3], std::index_sequence<I...>) {
  constexpr int L = sizeof...(I);
  const Vector<float> xy = __builtin_shufflevector(
      xyz[0], xyz[1], ((PART * L + int(I)) / 3 + (PART * L + int(I)) % 3 % 2 * L)...);
  return __builtin_shufflevector(
      xy, xyz[2], ((PART * L + int(I)) % 3 == 2 ? L + (PART * L + int(I)) / 3 : int(I))...);
}

// Adds sd times normal numbers, those of the joints whose blocks are `first`, first + 1, ..
SIMD_INLINE void add_noise(uint32_t first, const Counter& of, const float sd[3],
                           Vector<float> xyz[3]) {
  Words words[4];
  philox(first, of, words);
  Vector<float> cosine, sine;
  turn(words[1], cosine, sine);
  const Vector<float> radius = normal_radius(words[0]);
  xyz[0] += sd[0] * (radius * cosine);
  xyz[1] += sd[1] * (radius * sine);
  if (sd[2] == 0) return;
  turn(words[3], cosine, sine);
  xyz[2] += sd[2] * (normal_radius(words[2]) * cosine);
}

// As many joints as there are lanes become matrix @ joint, plus noise from block `first` on.
template <bool NOISE>
SIMD_INLINE void transform_lanes(const float* x, const Draws& draws, uint32_t first,
                                 const Counter& of, float* y) {
  constexpr int64_t L = kLanes<float>;
  constexpr auto lanes = std::make_index_sequence<L>();
  const float* m = draws.matrix;
  const Vector<float> p[3] = {every_third<0>(x, lanes), every_third<1>(x, lanes),
                              every_third<2>(x, lanes)};
  Vector<float> q[3];
#pragma GCC unroll 3
  for (int r = 0; r < 3; ++r) q[r] = m[3 * r] * p[0] + m[3 * r + 1] * p[1] + m[3 * r + 2] * p[2];
  if constexpr (NOISE) add_noise(first, of, draws.noise_sd, q);
  store(y, interleaved<0>(q, lanes));
  store(y + L, interleaved<1>(q, lanes));
  store(y + 2 * L, interleaved<2>(q, lanes));
}

// Reads and writes no more than the joints there are: x and y may be anyone's memory.
template <bool NOISE>
SIMD_INLINE void transform_as(const float* x, int64_t joints, const Draws& draws, uint32_t first,
                              const Counter& of, float* y) {
  constexpr int64_t L = kLanes<float>;
  int64_t i = 0;
  for (; i + L <= joints; i += L)
    transform_lanes<NOISE>(x + 3 * i, draws, first + static_cast<uint32_t>(i), of, y + 3 * i);
  if (i == joints) return;
  float part[3 * L] = {}, made[3 * L];
  std::memcpy(part, x + 3 * i, 3 * (joints - i) * sizeof(float));
  transform_lanes<NOISE>(part, draws, first + static_cast<uint32_t>(i), of, made);
  std::memcpy(y + 3 * i, made, 3 * (joints - i) * sizeof(float));
}

SIMD_TARGET void transform(const float* x, int64_t joints, const Draws& draws, bool noisy,
                           uint32_t first, const Counter& of, float* y) {
  noisy ? transform_as<true>(x, joints, draws, first, of, y)
        : transform_as<false>(x, joints, draws, first, of, y);
}

// y[t] = sum over o of taps[o] x[t + o - 7], for rows of x that stand 7 before the first to 7 past
// the last of y. Four rows of y at a time: 18 loads for their 60 products. The last vector of a row
// overlaps the one before, so that only rows shorter than a vector want room past the end.
SIMD_TARGET void blur(const float* x, int64_t rows, int64_t width, const float* taps, float* y) {
  constexpr int kRows = 4;
  const int64_t last = width < kLanes<float> ? 0 : width - kLanes<float>;
  auto several = [&]<int N>(int64_t t, std::integral_constant<int, N>) SIMD_TARGET {
    for (int64_t next = 0; next < width; next += kLanes<float>) {
      const int64_t i = next < last ? next : last;
      Vector<float> sum[N] = {};
#pragma GCC unroll 18
      for (int r = 0; r < N + kTaps - 1; ++r) {
        const Vector<float> row = load(x + (t + r) * width + i);
#pragma GCC unroll 4
        for (int j = 0; j < N; ++j)
          if (r >= j && r - j < kTaps) sum[j] += taps[r - j] * row;
      }
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) store(y + (t + j) * width + i, sum[j]);
    }
  };
  int64_t t = 0;
  for (; t + kRows <= rows; t += kRows) several(t, std::integral_constant<int, kRows>());
  for (; t < rows; ++t) several(t, std::integral_constant<int, 1>());
}

// y = a - b
SIMD_TARGET void subtract(const float* a, const float* b, int64_t n, float* y) {
  each_vector(n, [&](int64_t i) SIMD_TARGET { store(y + i, load(a + i) - load(b + i)); });
}

// Whether any of n floating point numbers, given as bits, is not 0. Looks no further than needed.
template <class Bits>
SIMD_TARGET bool any(const Bits* x, int64_t n) {
  constexpr int64_t kBlock = 256;
  constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;
  for (int64_t first = 0; first < n; first += kBlock) {
    Bits bits = 0;
    const int64_t last = first + kBlock < n ? first + kBlock : n;
    for (int64_t i = first; i < last; ++i) bits |= x[i];
    if (bits & kMagnitude) return true;
  }
  return false;
}

typedef uint16_t Halves __attribute__((vector_size(SIMD_BYTES / 2), aligned(2), may_alias));

// y = f(x) for n numbers of 16 bits as words; y has room for whole vectors, x is read to its end.
template <class F>
SIMD_INLINE void widen(const uint16_t* x, int64_t n, float* y, const F& f) {
  constexpr int64_t L = kLanes<float>;
  auto words = [](const uint16_t* from) SIMD_TARGET {
    return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words);
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) store(y + i, (Vector<float>)f(words(x + i)));
  uint16_t rest[L] = {};
  std::memcpy(rest, x + i, (n - i) * sizeof(uint16_t));
  if (i < n) store(y + i, (Vector<float>)f(words(rest)));
}

// y = f(x) as 16 bits for n numbers; x has room for whole vectors, y is written to its end.
template <class F>
SIMD_INLINE void narrow(const float* x, int64_t n, uint16_t* y, const F& f) {
  constexpr int64_t L = kLanes<float>;
  auto put = [&](int64_t i, uint16_t* to) SIMD_TARGET {
    *reinterpret_cast<Halves*>(to) = __builtin_convertvector(f((Words)load(x + i)), Halves);
  };
  int64_t i = 0;
  for (; i + L <= n; i += L) put(i, y + i);
  uint16_t rest[L];
  if (i < n) put(i, rest);
  std::memcpy(y + i, rest, (n - i) * sizeof(uint16_t));
}

SIMD_TARGET void widen_bfloat16(const uint16_t* x, int64_t n, float* y) {
  widen(x, n, y, [](Words bits) SIMD_TARGET -> Words { return bits << 16; });
}

// Subnormal numbers are whole multiples of 2^-24; all others get a wider exponent.
SIMD_TARGET void widen_half(const uint16_t* x, int64_t n, float* y) {
  widen(x, n, y, [](Words bits) SIMD_TARGET -> Words {
    const Words magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
    const Words normal = (magnitude << 13) + (112u << 23);
    const Words endless = normal + (112u << 23);  // infinity and NaN
    const Words small = (Words)(to_float(magnitude) * 0x1p-24f);
    const Words wider = (Whole)magnitude >= 0x7c00 ? endless : normal;
    return ((Whole)magnitude < 0x400 ? small : wider) | sign;
  });
}

// To the nearest, ties to even; NaN stays NaN.
SIMD_TARGET void narrow_bfloat16(const float* x, int64_t n, uint16_t* y) {
  narrow(x, n, y, [](Words bits) SIMD_TARGET -> Words {
    const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    return (Whole)(bits & 0x7fffffffu) > 0x7f800000 ? Words{} + 0x7fc0u : rounded;
  });
}

// The same for float16. Added to a number below 2^-14, 1/2 leaves its multiple of 2^-24 in the
// lowest bits, rounded.
SIMD_TARGET void narrow_half(const float* x, int64_t n, uint16_t* y) {
  narrow(x, n, y, [](Words bits) SIMD_TARGET -> Words {
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

constexpr Kernels kKernels = {&any<uint16_t>, &any<uint32_t>, &widen_bfloat16, &widen_half,
                              &transform,     &blur,          &subtract,       &narrow_bfloat16,
                              &narrow_half,   kLanes<float>};
