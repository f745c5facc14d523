// The inner loops of augmented batches, for one instruction set: see simd.h, which is included
// here, for what must be defined before. Where nothing else is said, arrays have room for whole
// vectors.

#include "../../common/simd.h"

#include "../../common/philox_loops.h"
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

// y[t] = sum over o of taps[o] x[t + o - 7], for rows of x that lie 7 before the first to 7 past
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

constexpr Kernels kKernels = {
    .any_16 = &any<uint16_t>,
    .any_32 = &any<uint32_t>,
    .transform = &transform,
    .blur = &blur,
    .subtract = &subtract,
    .lanes = kLanes<float>,
};
