// Random words and normal numbers lane by lane, for one instruction set; simd.h comes before it. No
// include guard, as there.

typedef uint64_t Wide __attribute__((vector_size(SIMD_BYTES), aligned(8), may_alias));
typedef uint32_t Words __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));

// The product of the lower halves of each lane; what stands in the upper halves does not matter.
SIMD_INLINE Wide multiply_low(Wide a, uint64_t factor) {
  const Wide b = Wide{} + factor;
#if SIMD_BYTES == 64
  return (Wide)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);  // GCC warns of others
#elif SIMD_BYTES == 32
  return (Wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xffffffffu) * b;
#endif
}

// Philox-4x32-10 of counters whose words lie in the lower halves of lanes; so do the results.
SIMD_INLINE void philox_rounds(Wide c[4], const Counter& of) {
  uint32_t k0 = of.key[0], k1 = of.key[1];
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Wide p0 = multiply_low(c[0], 0xD2511F53u), p1 = multiply_low(c[2], 0xCD9E8D57u);
    c[0] = (p1 >> 32) ^ c[1] ^ static_cast<uint64_t>(k0);
    c[1] = p1;
    c[2] = (p0 >> 32) ^ c[3] ^ static_cast<uint64_t>(k1);
    c[3] = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// The four words of blocks `first`, first + 1, .., one a lane.
SIMD_INLINE void philox(uint32_t first, const Counter& of, Words words[4]) {
  Wide step = {};
  for (int64_t i = 0; i < kLanes<uint64_t>; ++i) step[i] = 2 * i;
  Wide even[4], odd[4];
  even[0] = step + static_cast<uint64_t>(first);
  odd[0] = even[0] + 1;
  const uint32_t rest[4] = {0, of.clip, of.epoch, of.purpose};
#pragma GCC unroll 3
  for (int w = 1; w < 4; ++w) even[w] = odd[w] = Wide{} + rest[w];
  philox_rounds(even, of);
  philox_rounds(odd, of);
#pragma GCC unroll 4
  for (int w = 0; w < 4; ++w) words[w] = (Words)((even[w] & 0xffffffffu) | (odd[w] << 32));
}

SIMD_INLINE Vector<float> to_float(Words x) {
  return __builtin_convertvector((Whole)x, Vector<float>);
}

SIMD_INLINE Vector<float> square_root(Vector<float> x) {
#if SIMD_BYTES == 64
  return (Vector<float>)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif SIMD_BYTES == 32
  return (Vector<float>)_mm256_sqrt_ps((__m256)x);
#else
  for (int64_t i = 0; i < kLanes<float>; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// sqrt(-2 ln u), u = (word / 2^8 + 1) / 2^24. u is 2^e (1 + f) with f in sqrt(1/2)-1 .. sqrt(2)-1,
// and ln(1 + f) is f + f^2 times a polynomial of the least largest relative error of all (3e-8).
SIMD_INLINE Vector<float> normal_radius(Words word) {
  constexpr uint32_t kRootHalf = 0x3f3504f3u;  // the bits of sqrt(1/2)
  const Words bits = (Words)to_float((word >> 8) + 1);
  const Whole e = (Whole)(bits - kRootHalf) >> 23;
  const Vector<float> f = (Vector<float>)(bits - ((Words)e << 23)) - 1.f;
  Vector<float> p = Vector<float>{} + 0x1.65c778p-4f;
  p = p * f - 0x1.25049ep-3f;
  p = p * f + 0x1.318526p-3f;
  p = p * f - 0x1.535d30p-3f;
  p = p * f + 0x1.98d2c0p-3f;
  p = p * f - 0x1.00049ap-2f;
  p = p * f + 0x1.5556f4p-2f;
  p = p * f - 0x1.fffffap-2f;
  const Vector<float> exponent = __builtin_convertvector(e - 24, Vector<float>);
  return square_root(-2.f * (exponent * 0x1.62e430p-1f + (p * (f * f) + f)));
}

// The cosine and sine of 2 pi word / 2^32, of which the upper 24 bits count: quarter turns, and the
// rest t pi/4 with t in -1..1, whose sine and cosine are polynomials (errors 3e-9 and 4e-8).
SIMD_INLINE void turn(Words word, Vector<float>& cosine, Vector<float>& sine) {
  const Words angle = word >> 8;
  const Words quarter = (angle + (1u << 21)) >> 22;
  const Vector<float> t = to_float(angle - (quarter << 22)) * 0x1p-21f;
  const Vector<float> z = t * t;
  Vector<float> s = Vector<float>{} - 0x1.2d9302p-15f;
  s = s * z + 0x1.465e92p-9f;
  s = s * z - 0x1.4abbbap-4f;
  s = (s * z + 0x1.921fb6p-1f) * t;
  Vector<float> c = Vector<float>{} - 0x1.4e844ap-12f;
  c = c * z + 0x1.03b090p-6f;
  c = c * z - 0x1.3bd39cp-2f;
  c = c * z + 1.f;
  const Whole swapped = (Whole)(quarter << 31) < 0;
  const Words cosine_sign = ((quarter + 1) >> 1) << 31, sine_sign = (quarter >> 1) << 31;
  cosine = (Vector<float>)((Words)(swapped ? s : c) ^ cosine_sign);
  sine = (Vector<float>)((Words)(swapped ? c : s) ^ sine_sign);
}
