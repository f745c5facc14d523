#pragma once
// As much of CUDA as our kernels use, in C++: they run where there is no GPU, and misuse that a GPU
// may get away with is an error here. csrc/graph_conv/cuda/primitives.cuh includes this in place of
// PTX.
//
// The threads of a block are fibers of one thread, switched at barriers and warp-wide instructions;
// machine.cpp runs them. What it finds:
//   - barriers and warp-wide instructions that only some threads reach, or not the same one;
//   - shared memory read before it was written (NaN), or past its end (a guard page);
//   - asynchronous copies used before they were waited for (NaN until then), or never waited for;
//   - missing barriers: a fiber runs on until it has to wait, and tests take turns at the order;
//   - memory accesses out of range (guard pages), misaligned ones, and undefined behaviour.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "../../../csrc/graph_conv/cuda/strided_tensor.h"

#define __global__
#define __device__
#define __launch_bounds__(...)

namespace cuda_on_cpu {

struct Index {
  unsigned x = 0, y = 0;
};

// Ends the kernel: the launch reports the message.
[[noreturn]] void fail(const char* message);

void barrier();

// Called by all lanes of a warp; when the last has come, `run` gets what each of them brought.
void warp_wide(const char* name, void* own, void (*run)(void* const (&of_lanes)[32]));

void copy_later(void* shared, const void* global, bool copy);
void commit_copies();
void wait_for_copies(int pending);
char* shared_memory();

void check_alignment(const void* address, size_t bytes);

}  // namespace cuda_on_cpu

inline cuda_on_cpu::Index threadIdx, blockIdx, gridDim;

inline void __syncthreads() { cuda_on_cpu::barrier(); }
inline void __syncwarp() {
  cuda_on_cpu::warp_wide("__syncwarp", nullptr, [](void* const(&)[32]) {});
}

namespace msclr::gpu {

using std::max;
using std::min;

inline char* dynamic_shared() { return cuda_on_cpu::shared_memory(); }

inline void fail_unless(bool holds, const char* what) {
  if (!holds) cuda_on_cpu::fail(what);
}

struct Pack16 {
  uint32_t x, y, z, w;
};

inline Pack16 load16(const void* from) {
  cuda_on_cpu::check_alignment(from, 16);
  Pack16 p;
  std::memcpy(&p, from, 16);
  return p;
}

inline void store16(void* to, const Pack16& p) {
  cuda_on_cpu::check_alignment(to, 16);
  std::memcpy(to, &p, 16);
}

inline void cp_async16(void* shared, const void* global, bool copy) {
  cuda_on_cpu::copy_later(shared, global, copy);
}
inline void cp_async_commit() { cuda_on_cpu::commit_copies(); }
template <int kPending>
void cp_async_wait() {
  cuda_on_cpu::wait_for_copies(kPending);
}

inline float to_float(BFloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
inline float to_float(Half x) { return static_cast<float>(std::bit_cast<_Float16>(x.bits)); }

inline uint32_t bits_of(float x, BFloat16) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to the nearest, ties to even
}
inline uint32_t bits_of(float x, Half) { return std::bit_cast<uint16_t>(static_cast<_Float16>(x)); }

template <class T>
uint32_t pack(float first, float second) {
  return bits_of(first, T()) | bits_of(second, T()) << 16;
}

// Lane 4g + q is given [g][2q] and [g][2q + 1] of each matrix's transpose.
inline void ldmatrix_x4_trans(uint32_t (&m)[4], const void* row) {
  struct Lane {
    uint32_t* out;
    const uint16_t* row;
  } own{m, static_cast<const uint16_t*>(row)};
  cuda_on_cpu::check_alignment(row, 16);
  cuda_on_cpu::warp_wide("ldmatrix", &own, [](void* const(&lanes)[32]) {
    auto lane = [&](int i) { return static_cast<Lane*>(lanes[i]); };
    for (int i = 0; i < 32; ++i)
      for (int matrix = 0; matrix < 4; ++matrix) {
        const int row = i % 4 * 2, column = i / 4;
        lane(i)->out[matrix] = lane(8 * matrix + row)->row[column] |
                               uint32_t{lane(8 * matrix + row + 1)->row[column]} << 16;
      }
  });
}

// m16n8k16 as the PTX manual lays it out. Lane 4g + q holds, in pairs of columns (of rows for b):
//   a: (g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8)    b: (2q, g), (2q + 8, g)
//   d: (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)
template <class T>
void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Lane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } own{d, a, {b0, b1}};
  cuda_on_cpu::warp_wide("mma", &own, [](void* const(&lanes)[32]) {
    float left[16][16], right[16][8];
    for (int i = 0; i < 32; ++i) {
      const Lane& lane = *static_cast<Lane*>(lanes[i]);
      for (int half = 0; half < 2; ++half) {
        auto number = [half](uint32_t pair) {
          return to_float(T{static_cast<uint16_t>(pair >> 16 * half)});
        };
        const int g = i / 4, q = i % 4 * 2 + half;
        for (int j = 0; j < 4; ++j) left[g + j % 2 * 8][q + j / 2 * 8] = number(lane.a[j]);
        for (int j = 0; j < 2; ++j) right[q + j * 8][g] = number(lane.b[j]);
      }
    }
    for (int i = 0; i < 32; ++i)
      for (int j = 0; j < 4; ++j) {
        const int row = i / 4 + j / 2 * 8, column = i % 4 * 2 + j % 2;
        double sum = static_cast<Lane*>(lanes[i])->d[j];
        for (int k = 0; k < 16; ++k) sum += double{left[row][k]} * right[k][column];
        static_cast<Lane*>(lanes[i])->d[j] = static_cast<float>(sum);
      }
  });
}

inline unsigned ballot(bool vote) {
  struct Lane {
    bool vote;
    unsigned all;
  } own{vote, 0};
  cuda_on_cpu::warp_wide("ballot", &own, [](void* const(&lanes)[32]) {
    unsigned all = 0;
    for (int i = 0; i < 32; ++i) all |= unsigned{static_cast<Lane*>(lanes[i])->vote} << i;
    for (void* lane : lanes) static_cast<Lane*>(lane)->all = all;
  });
  return own.all;
}

inline int count_bits(unsigned bits) { return std::popcount(bits); }

template <class S>
S shuffle_xor(S value, int mask) {
  struct Lane {
    S value, other;
    int mask;
  } own{value, value, mask};
  cuda_on_cpu::warp_wide("shuffle", &own, [](void* const(&lanes)[32]) {
    for (int i = 0; i < 32; ++i) {
      Lane* lane = static_cast<Lane*>(lanes[i]);
      lane->other = static_cast<Lane*>(lanes[i ^ lane->mask])->value;
    }
  });
  return own.other;
}

}  // namespace msclr::gpu
