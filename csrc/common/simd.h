// Vector types and a register-blocked matrix product for one instruction set.
//
// No include guard: a file that needs several instruction sets includes this once for each, within
// a namespace of its own, after defining
//   SIMD_TARGET     the functions' target attribute
//   SIMD_BYTES      width of a vector register
//   SIMD_REGISTERS  how many there are
// and, once for all of them, Strided of strided.h.
// Vectors are GCC/Clang vector extensions: `a * b + c` is one fused multiply-add.

#define SIMD_INLINE SIMD_TARGET inline __attribute__((always_inline))

template <class S>
struct VectorOf {
  typedef S type __attribute__((vector_size(SIMD_BYTES), aligned(sizeof(S)), may_alias));
};
template <class S>
using Vector = typename VectorOf<S>::type;  // unaligned loads and stores are allowed

template <class S>
constexpr int64_t kLanes = SIMD_BYTES / sizeof(S);

template <class S>
SIMD_INLINE Vector<S> load(const S* p) {
  return *reinterpret_cast<const Vector<S>*>(p);
}

template <class S>
SIMD_INLINE void store(S* p, Vector<S> v) {
  *reinterpret_cast<Vector<S>*>(p) = v;
}

// relu that keeps NaN, as PyTorch's does.
template <class S>
SIMD_INLINE Vector<S> relu_of(Vector<S> v) {
  const Vector<S> zero = {};
  return v < zero ? zero : v;
}

template <class S>
SIMD_INLINE S sum_lanes(Vector<S> v) {
  S total = 0;
  for (int64_t i = 0; i < kLanes<S>; ++i) total += v[i];
  return total;
}

// f(c, std::integral_constant<int, N>) for every N vectors of columns, from column c on.
template <class S, class F>
SIMD_INLINE void each_columns(int64_t width, const F& f) {
  constexpr int64_t L = kLanes<S>;
  int64_t c = 0;
  for (; c + 4 * L <= width; c += 4 * L) f(c, std::integral_constant<int, 4>());
  for (; c < width; c += L) f(c, std::integral_constant<int, 1>());
}

// MR rows of NR vectors of a product, in registers.
template <class S, int MR, int NR>
struct Block {
  static constexpr int64_t L = kLanes<S>;
  Vector<S> sum[MR][NR] = {};

  SIMD_INLINE void load_from(const S* c, int64_t ldc) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) sum[i][j] = load(c + i * ldc + j * L);
  }

  // += A[MR x depth] B[depth x NR vectors]
  SIMD_INLINE void add(int64_t depth, Strided<S> a, const S* b, int64_t ldb) {
    for (int64_t k = 0; k < depth; ++k) {
      Vector<S> row[NR];
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) row[j] = load(b + k * ldb + j * L);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const S factor = a.data[i * a.rows + k * a.columns];
#pragma GCC unroll 8
        for (int j = 0; j < NR; ++j) sum[i][j] += factor * row[j];
      }
    }
  }

  SIMD_INLINE void store_to(S* c, int64_t ldc) const {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NR; ++j) store(c + i * ldc + j * L, sum[i][j]);
  }
};

// C[M x NR vectors] (+)= A[M = MR x K] B[K x NR vectors], all of C in registers.
template <class S, int MR, int NR, bool ADD>
SIMD_INLINE void block_product(int64_t depth, Strided<S> a, const S* b, int64_t ldb, S* c,
                               int64_t ldc) {
  Block<S, MR, NR> block;
  if constexpr (ADD) block.load_from(c, ldc);
  block.add(depth, a, b, ldb);
  block.store_to(c, ldc);
}

// As many rows at a time as the registers hold sums for, next to NR columns of B and one factor.
template <class S, int NR, bool ADD>
SIMD_TARGET void panel_product(int64_t m, int64_t depth, Strided<S> a, const S* b, int64_t ldb,
                               S* c, int64_t ldc) {
  constexpr int MR = (SIMD_REGISTERS - NR - 1) / NR > 14 ? 14 : (SIMD_REGISTERS - NR - 1) / NR;
  int64_t i = 0;
  auto rows = [&]<int M>(std::integral_constant<int, M>) SIMD_TARGET {
    if constexpr (M <= MR)
      for (; i + M <= m; i += M)
        block_product<S, M, NR, ADD>(depth, {a.data + i * a.rows, a.rows, a.columns}, b, ldb,
                                     c + i * ldc, ldc);
  };
  rows(std::integral_constant<int, MR>());
  rows(std::integral_constant<int, 8>());
  rows(std::integral_constant<int, 4>());
  rows(std::integral_constant<int, 2>());
  rows(std::integral_constant<int, 1>());
}

// C[m x n] (+)= A[m x depth] B[depth x n]; n is a multiple of the lanes, B and C have rows of
// ldb and ldc elements.
template <class S, bool ADD>
SIMD_TARGET void product(int64_t m, int64_t n, int64_t depth, Strided<S> a, const S* b, int64_t ldb,
                         S* c, int64_t ldc) {
  constexpr int64_t L = kLanes<S>;
  constexpr int64_t kWidest = SIMD_REGISTERS == 32 ? 4 : 2;  // vectors of a panel
  int64_t j = 0;
  for (; j + kWidest * L <= n; j += kWidest * L)
    panel_product<S, kWidest, ADD>(m, depth, a, b + j, ldb, c + j, ldc);
  switch ((n - j) / L) {
    case 3:
      return panel_product<S, 3, ADD>(m, depth, a, b + j, ldb, c + j, ldc);
    case 2:
      return panel_product<S, 2, ADD>(m, depth, a, b + j, ldb, c + j, ldc);
    case 1:
      return panel_product<S, 1, ADD>(m, depth, a, b + j, ldb, c + j, ldc);
  }
}
