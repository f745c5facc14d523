#pragma once
// The instructions that CUDA C++ has no name for, each under a plain one.

#include <cstdint>

#include "strided_tensor.h"

#ifndef __CUDACC__
#include "cuda_on_cpu/cuda.h"  // tests/kernels/cuda_on_cpu: the same names in C++
#else

#undef NDEBUG  // fail_unless is a check of input, not of our own code
#include <cassert>

namespace msclr::gpu {

__device__ inline char* dynamic_shared() {
  extern __shared__ __align__(16) char shared[];
  return shared;
}

// Ends the kernel with an error where a value that came from the user is out of range.
__device__ inline void fail_unless(bool holds, const char* what) {
  assert(holds && what);
  (void)what;
}

struct Pack16 {
  uint32_t x, y, z, w;
};

__device__ inline Pack16 load16(const void* from) {
  const uint4 u = *static_cast<const uint4*>(from);
  return {u.x, u.y, u.z, u.w};
}

__device__ inline void store16(void* to, const Pack16& p) {
  *static_cast<uint4*>(to) = make_uint4(p.x, p.y, p.z, p.w);
}

// 16 bytes from global to shared memory, there after cp_async_wait; zeros where `copy` is false.
__device__ inline void cp_async16(void* shared, const void* global, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(copy ? 16 : 0)
               : "memory");
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Waits until all but this thread's last kPending groups have come.
template <int kPending>
__device__ inline void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit numbers, transposed: lanes 8i .. 8i+7 name the rows of matrix i.
__device__ inline void ldmatrix_x4_trans(uint32_t (&m)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

// d (16, 8) += a (16, 16) b (16, 8), spread over the warp as PTX lays out m16n8k16.
template <class T>
__device__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#define MSCLR_MMA(T, NAME)                                                                         \
  template <>                                                                                      \
  __device__ inline void mma<T>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME                            \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"          \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                  \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                  \
  }
MSCLR_MMA(BFloat16, "bf16")
MSCLR_MMA(Half, "f16")
#undef MSCLR_MMA

// Two numbers in one register, the first in its lower half.
template <class T>
__device__ uint32_t pack(float first, float second);

template <>
__device__ inline uint32_t pack<BFloat16>(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

template <>
__device__ inline uint32_t pack<Half>(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}

__device__ inline float to_float(BFloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}

__device__ inline float to_float(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

__device__ inline unsigned ballot(bool vote) { return __ballot_sync(~0u, vote); }
__device__ inline int count_bits(unsigned bits) { return __popc(bits); }

__device__ inline float shuffle_xor(float value, int lanes) {
  return __shfl_xor_sync(~0u, value, lanes);
}

}  // namespace msclr::gpu

#endif
