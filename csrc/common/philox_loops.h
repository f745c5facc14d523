// Random words lane by lane, for one instruction set; simd.h comes before it. No include guard, as
// there. Philox-4x32-10 by Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

typedef uint64_t Wide __attribute__((vector_size(SIMD_BYTES), aligned(8), may_alias));
typedef uint32_t Words __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));

// The product of the lower halves of each lane; what the upper halves hold does not matter.
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

// The four words of blocks `first`, first + 1, .., one per lane.
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
