#pragma once
// dA[k,v,w] = sum over frames of p_k[v, :] . g[w, :], p_k = W_k x + b_k, in 16-bit numbers.
//
// A block owns one layout, one partition, 64 joints w and a share of the tiles. Per 64 output
// channels it makes p of a tile with one product and multiplies it, frame by frame, by g: for
// graphs of 25 joints the whole V x V block costs the tensor cores less than p did, so a known
// support changes nothing here; add_shares leaves out what lies outside. Sums stay in registers
// throughout.

#include "neighbours.cuh"

namespace msclr::gpu {

template <class T>
struct AdjacencyGradientArguments {
  Batch batch;
  Activations x, g;
  const T* weight;    // (K, chunks, padded, 32)
  const float* bias;  // (K, padded)
  int partitions, chunks, padded;
  float* adjacency;  // (shares, L, K, V, V)
};

namespace adjacency_gradient {

constexpr int kThreads = 256, kWarps = kThreads / 32, kColumns = kPackedColumns, kJoints = 64;
constexpr int kRowBytes = kPackedChannels * 2, kXBytes = kTileRows * kRowBytes;
constexpr int kWeightBytes = kColumns * kRowBytes, kStageBytes = kXBytes + kWeightBytes;
constexpr int kColumnBytes = kColumns / kPackedChannels * kXBytes;  // 64 channels of a tile
constexpr int kSharedBytes = 2 * kStageBytes + 3 * kColumnBytes;    // two of g, one of p

// How the warps share out a frame's joints v, 16 each, and the frames.
struct Split {
  int blocks, frames;  // their product is the number of warps

  __device__ explicit Split(int joints) {
    blocks = 1;
    while (blocks * 16 < joints) blocks *= 2;
    frames = kWarps / blocks;
  }
};

// Brings 32 channels of x with their weight, and at each first of them 64 channels of g.
template <class T>
class Loader {
 public:
  __device__ Loader(const AdjacencyGradientArguments<T>& a, int layout, int partition, char* stages,
                    char* g)
      : a_(a), layout_(layout), partition_(partition), stages_(stages), g_(g) {
    more_ = tiles_.next(a.batch, tile_, layout);
  }

  __device__ void next() {
    if (more_) {
      load_x();
      load_weight();
      if (chunk_ == 0) load_g();
      advance();
    }
    cp_async_commit();
  }

 private:
  __device__ void load_x() {
    char* to = stages_ + stage_ * kStageBytes;
    load_rows<T, kThreads, kRowBytes / 16>(
        a_.x, tile_, tile_.rows(), chunk_ * kPackedChannels,
        [to](int row, int piece) { return to + row * kRowBytes + piece * 16; });
  }

  __device__ void load_weight() {
    char* to = stages_ + stage_ * kStageBytes + kXBytes;
    const int64_t block = static_cast<int64_t>(partition_) * a_.chunks + chunk_;
    const char* from =
        reinterpret_cast<const char*>(a_.weight) + (block * a_.padded + column_) * kRowBytes;
    for (int b = threadIdx.x * 16; b < kWeightBytes; b += kThreads * 16)
      cp_async16(to + b, from + b, true);
  }

  __device__ void load_g() {
    char* to = g_ + g_stage_ * kColumnBytes;
    constexpr int kPieces = kRowBytes / 16;
    load_rows<T, kThreads, 2 * kPieces>(
        a_.g, tile_, tile_.rows(), column_, [to](int row, int piece) {
          return to + piece / kPieces * kXBytes + row * kRowBytes + piece % kPieces * 16;
        });
  }

  __device__ void advance() {
    stage_ = 1 - stage_;
    if (++chunk_ < a_.chunks) return;
    chunk_ = 0;
    g_stage_ = 1 - g_stage_;
    column_ += kColumns;
    if (column_ < a_.padded) return;
    column_ = 0;
    more_ = tiles_.next(a_.batch, tile_, layout_);
  }

  const AdjacencyGradientArguments<T>& a_;
  int layout_, partition_;
  char *stages_, *g_;
  Tiles tiles_;
  Tile tile_;
  bool more_;
  int stage_ = 0, g_stage_ = 0, chunk_ = 0, column_ = 0;
};

// Two rows' 32 channels as operand A: the upper row is the thread's own of rows 0-7, see OwnRows.
__device__ inline void operand_a(const char* upper_row, const char* lower_row, int lane,
                                 uint32_t (&first)[4], uint32_t (&second)[4]) {
  const Pack16 upper = load16(upper_row + lane % 4 * 16);
  const Pack16 lower = load16(lower_row + lane % 4 * 16);
  first[0] = upper.x, first[1] = lower.x, first[2] = upper.y, first[3] = lower.y;
  second[0] = upper.z, second[1] = lower.z, second[2] = upper.w, second[3] = lower.w;
}

// Adds 32 channels of x times the weight to the warp's 16 rows of p.
template <class T>
__device__ void multiply(const char* stage, int columns, int lane, float (&sums)[8][4]) {
  const char* row = stage + (threadIdx.x / 32 * 16 + lane / 4) * kRowBytes;
  uint32_t first[4], second[4];
  operand_a(row, row + 8 * kRowBytes, lane, first, second);
#pragma unroll
  for (int n = 0; n < 8; ++n)
    if (n * 8 < columns) {
      const Pack16 b = load16(stage + kXBytes + (n * 8 + lane / 4) * kRowBytes + lane % 4 * 16);
      mma<T>(sums[n], first, b.x, b.y);
      mma<T>(sums[n], second, b.z, b.w);
    }
}

template <class T>
__device__ void store_p(const float* bias, int lane, const float (&sums)[8][4], char* p) {
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int column = n * 8 + lane % 4 * 2;
    const float b0 = bias[column], b1 = bias[column + 1];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = threadIdx.x / 32 * 16 + 8 * h + lane / 4;
      char* to = p + column / kPackedChannels * kXBytes + row * kRowBytes;
      *reinterpret_cast<uint32_t*>(to + column % kPackedChannels * 2) =
          pack<T>(sums[n][2 * h] + b0, sums[n][2 * h + 1] + b1);
    }
  }
}

// Joints past the last read it again: they touch only sums of their own, which are not stored.
template <class T>
__device__ void multiply_frames(const Tile& tile, const Split& split, int first_w, int columns,
                                int lane, const char* p, const char* g, float (&sums)[8][4]) {
  const int warp = threadIdx.x / 32, last = tile.joints - 1;
  const int v = warp % split.blocks * 16 + lane / 4;
  if (warp % split.blocks * 16 > last) return;
  for (int frame = warp / split.blocks; frame < tile.frames; frame += split.frames)
    for (int channel = 0; channel < columns; channel += kPackedChannels) {
      const int half = channel / kPackedChannels * kXBytes + frame * tile.joints * kRowBytes;
      uint32_t a[2][4];
      operand_a(p + half + min(v, last) * kRowBytes, p + half + min(v + 8, last) * kRowBytes, lane,
                a[0], a[1]);
#pragma unroll
      for (int n = 0; n < 8; ++n)
        if (first_w + n * 8 <= last) {
          const int w = min(first_w + n * 8 + lane / 4, last);
          const Pack16 b = load16(g + half + w * kRowBytes + lane % 4 * 16);
          mma<T>(sums[n], a[0], b.x, b.y);
          mma<T>(sums[n], a[1], b.z, b.w);
        }
    }
}

// Adds up the warps that shared the frames, in order.
__device__ inline void store(int joints, int all, const Split& split, int first_w, int lane,
                             const float (&sums)[8][4], float* shared, float* out) {
  const int warp = threadIdx.x / 32, rows = split.blocks * 16;
  __syncthreads();
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int v = warp % split.blocks * 16 + lane / 4 + e / 2 * 8;
      const int w = n * 8 + lane % 4 * 2 + e % 2;
      shared[(warp / split.blocks * rows + v) * kJoints + w] = sums[n][e];
    }
  __syncthreads();
  for (int i = threadIdx.x; i < all * kJoints; i += kThreads) {
    const int v = i / kJoints, w = i % kJoints;
    if (first_w + w >= all) continue;
    float total = 0;
    for (int part = 0; part < split.frames && v < joints && first_w + w < joints; ++part)
      total += shared[(part * rows + v) * kJoints + w];
    out[v * all + first_w + w] = total;
  }
}

}  // namespace adjacency_gradient

template <class T>
__global__ void __launch_bounds__(adjacency_gradient::kThreads, 2)
    adjacency_gradient_of_share(const AdjacencyGradientArguments<T> a) {
  using namespace adjacency_gradient;
  const int lane = threadIdx.x % 32, all = a.batch.joints;
  const int halves = (all + kJoints - 1) / kJoints, matrix = blockIdx.y / halves;
  const int layout = matrix / a.partitions, partition = matrix % a.partitions;
  const int first_w = blockIdx.y % halves * kJoints;
  const int joints = joints_of(a.batch, layout);
  const Split split(joints);
  char* stages = dynamic_shared();
  char* g = stages + 2 * kStageBytes;
  char* p = g + 2 * kColumnBytes;
  float sums[8][4] = {};

  Loader<T> loader(a, layout, partition, stages, g);
  loader.next();
  Tiles tiles;
  Tile tile;
  int stage = 0, g_stage = 0;
  while (tiles.next(a.batch, tile, layout))
    for (int column = 0; column < a.padded; column += kColumns, g_stage = 1 - g_stage) {
      const int columns = min(kColumns, a.g.channels - column);
      float p_sums[8][4] = {};
      for (int chunk = 0; chunk < a.chunks; ++chunk, stage = 1 - stage) {
        cp_async_wait<0>();
        __syncthreads();  // this step has come, and all are done with the one before
        loader.next();
        multiply<T>(stages + stage * kStageBytes, columns, lane, p_sums);
      }
      store_p<T>(a.bias + partition * a.padded + column, lane, p_sums, p);
      __syncthreads();
      multiply_frames<T>(tile, split, first_w, columns, lane, p, g + g_stage * kColumnBytes, sums);
    }
  store(
      joints, all, split, first_w, lane, sums, reinterpret_cast<float*>(stages),
      a.adjacency + (static_cast<int64_t>(blockIdx.x) * (gridDim.y / halves) + matrix) * all * all);
}

}  // namespace msclr::gpu
