// Includes SIMD_KERNELS, a file of inner loops written on simd.h, once for each instruction set,
// into the namespaces portable, avx2 and avx512 of where this is included; SIMD_CHOOSE(name) is
// then name in the one in use (instruction_set.h). No include guard: each operator does so once.

namespace portable {
#define SIMD_TARGET
#define SIMD_BYTES 16
#define SIMD_REGISTERS 16
#include SIMD_KERNELS
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace portable

#ifdef __x86_64__
namespace avx2 {
#define SIMD_TARGET __attribute__((target("avx2,fma")))
#define SIMD_BYTES 32
#define SIMD_REGISTERS 16
#include SIMD_KERNELS
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace avx2

namespace avx512 {
#define SIMD_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#define SIMD_BYTES 64
#define SIMD_REGISTERS 32
#include SIMD_KERNELS
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace avx512
#endif

#ifdef __x86_64__
#define SIMD_CHOOSE(name)                                  \
  (msclr::instruction_set == msclr::kAvx512 ? avx512::name \
   : msclr::instruction_set == msclr::kAvx2 ? avx2::name   \
                                            : portable::name)
#else
#define SIMD_CHOOSE(name) portable::name
#endif
