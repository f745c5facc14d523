// 2^y lane by lane, for one instruction set; simd.h comes before it. No include guard, as there.

// For y below the largest exponent. Under 2^-126 it stays there; NaN stays NaN. In float the error
// is under 1 ulp: y is split into an integer, which becomes the exponent, and f in [-1/2, 1/2],
// whose power is a polynomial of the least largest relative error (2e-9 before rounding).
template <class S>
SIMD_INLINE Vector<S> exp2_of(Vector<S> y) {
  if constexpr (std::is_same_v<S, double>) {
    for (int64_t i = 0; i < kLanes<S>; ++i) y[i] = std::exp2(y[i]);
    return y;
  } else {
    typedef int32_t Bits __attribute__((vector_size(SIMD_BYTES)));
    constexpr float kRound = 0x1.8p23f;  // added, leaves y's nearest integer in the lowest bits
    const Vector<S> lowest = Vector<S>{} - 126.f;
    y = y < lowest ? lowest : y;
    const Vector<S> shifted = y + kRound;
    const Vector<S> f = y - (shifted - kRound);
    Vector<S> power = Vector<S>{} + 0x1.41fbbcp-13f;
    power = power * f + 0x1.5f3e54p-10f;
    power = power * f + 0x1.3b2d4cp-7f;
    power = power * f + 0x1.c6aee8p-5f;
    power = power * f + 0x1.ebfbdcp-3f;
    power = power * f + 0x1.62e430p-1f;
    power = power * f + 1.f;
    return (Vector<S>)((Bits)power + ((Bits)shifted << 23));
  }
}
