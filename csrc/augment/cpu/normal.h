// Normal numbers lane by lane, for one instruction set; simd.h and philox_loops.h come before it.
// No include guard, as there.

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
