#pragma once
// dW[k,o,c] = sum over rows of z_k[row, c] g[row, o], z the aggregate of x; db[k,o] likewise with
// the sums of A's columns in z's place. In 16-bit numbers, summed in float.
//
// A block owns up to three partitions, 64 input and 64 output channels, and a share of the tiles.
// x and g of the next tile are on their way while one is worked on; z is made a partition at a
// time, in shared memory, since the product runs over rows: ldmatrix transposes both operands.
// Every share leaves sums of its own, which add_shares adds up in order.

#include "neighbours.cuh"

namespace msclr::gpu {

struct WeightGradientArguments {
  Batch batch;
  Graph graph;
  Activations x, g;
  int partitions, c_in_chunks;
  float* weight;  // (shares, K, C_out, C_in), or null
  float* bias;    // (shares, K, C_out), or null
};

namespace weight_gradient {

constexpr int kThreads = 256, kPartitions = 3, kChannels = 64;
constexpr int kRowBytes = kChannels * 2, kPieces = kRowBytes / 16;
constexpr int kTileBytes = kTileRows * kRowBytes;
constexpr int kSharedBytes = 5 * kTileBytes;  // x and g of two tiles, and z

// Rows are 128 bytes; their pieces are permuted, or all rows would start in the same bank.
__device__ inline int place(int row, int piece) { return row * kRowBytes + (piece ^ row % 8) * 16; }

// The block's part of the work: blockIdx.y is (partitions, output channels, input channels).
struct Part {
  int partition, partitions, c_out, c_in;  // the first ones, and how many partitions

  __device__ explicit Part(const WeightGradientArguments& a) {
    const int c_out_chunks = (a.g.channels + kChannels - 1) / kChannels;
    c_in = blockIdx.y % a.c_in_chunks * kChannels;
    c_out = blockIdx.y / a.c_in_chunks % c_out_chunks * kChannels;
    partition = blockIdx.y / a.c_in_chunks / c_out_chunks * kPartitions;
    partitions = min(kPartitions, a.partitions - partition);
  }
};

template <class T>
__device__ void load(const WeightGradientArguments& a, const Part& part, const Tile& tile, char* x,
                     char* g) {
  const int padded = (tile.rows() + 15) / 16 * 16;
  load_rows<T, kThreads, kPieces>(a.x, tile, padded, part.c_in,
                                  [x](int row, int piece) { return x + place(row, piece); });
  load_rows<T, kThreads, kPieces>(a.g, tile, padded, part.c_out,
                                  [g](int row, int piece) { return g + place(row, piece); });
}

// z, with rows of zeros up to a multiple of 16. A thread adds up two rows' pieces at a time.
template <class T>
__device__ void aggregate(const Graph& graph, int lists, int joints, const Tile& tile,
                          const char* x, char* z) {
  constexpr int kRowsAtOnce = kThreads / kPieces;
  const int piece = threadIdx.x % kPieces, padded = (tile.rows() + 15) / 16 * 16;
#pragma unroll 1
  for (int first = threadIdx.x / kPieces; first < padded; first += 2 * kRowsAtOnce) {
    float sums[2][8] = {};
    int frame[2], joint[2], degree[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first + i * kRowsAtOnce;
      frame[i] = tile.frame_of(row) * tile.joints;
      joint[i] = row - frame[i];
      degree[i] = row < tile.rows() ? graph.degrees[lists + joint[i]] : 0;
    }
    for (int j = 0; j < max(degree[0], degree[1]); ++j) {
      const Link* links = graph.links + static_cast<int64_t>(lists + j) * joints;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (j < degree[i]) {
          const Link link = links[joint[i]];
          add_scaled<T>(sums[i], load16(x + place(frame[i] + link.joint, piece)), link.value);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first + i * kRowsAtOnce;
      if (row < padded) store16(z + place(row, piece), pack8<T>(sums[i]));
    }
  }
}

// A warp owns 16 input channels (operand A) and 32 output channels (operand B).
struct WarpPart {
  int c_in, c_out;
  bool any;
  int columns;  // of the 32, those that exist

  __device__ WarpPart(const WeightGradientArguments& a, const Part& part) {
    const int warp = threadIdx.x / 32;
    c_in = warp % 4 * 16;
    c_out = warp / 4 * 32;
    columns = min(32, a.g.channels - part.c_out - c_out);
    any = part.c_in + c_in < a.x.channels && columns > 0;
  }
};

template <class T>
__device__ void multiply(const WarpPart& own, int rows, int lane, const char* z, const char* g,
                         float (&sums)[4][4]) {
  for (int first = 0; first < rows; first += 16) {
    uint32_t a[4], b[4];
    const int row = first + lane % 8;
    ldmatrix_x4_trans(a, z + place(row + lane / 16 * 8, own.c_in / 8 + lane / 8 % 2));
#pragma unroll
    for (int n = 0; n < 4; n += 2)
      if (n * 8 < own.columns) {
        ldmatrix_x4_trans(b, g + place(row + lane / 8 % 2 * 8, own.c_out / 8 + n + lane / 16));
        mma<T>(sums[n], a, b[0], b[1]);
        mma<T>(sums[n + 1], a, b[2], b[3]);
      }
  }
}

// Of output channels 2 * lane and 2 * lane + 1, over every eighth row.
template <class T>
__device__ void add_bias(const WeightGradientArguments& a, const Part& part, const Tile& tile,
                         int lane, const char* g, float (&sums)[kPartitions][2]) {
  for (int row = threadIdx.x / 32; row < tile.rows(); row += kThreads / 32) {
    const T* pair = reinterpret_cast<const T*>(g + place(row, lane / 4)) + lane % 4 * 2;
    const float g0 = to_float(pair[0]), g1 = to_float(pair[1]);
    const int joint = row - tile.frame_of(row) * tile.joints;
    const int lists = (tile.layout * a.partitions + part.partition) * a.batch.joints + joint;
#pragma unroll
    for (int k = 0; k < kPartitions; ++k)
      if (k < part.partitions) {
        const float factor = a.graph.sums[lists + k * a.batch.joints];
        sums[k][0] += factor * g0;
        sums[k][1] += factor * g1;
      }
  }
}

__device__ inline void store_weight(const WeightGradientArguments& a, const Part& part,
                                    const WarpPart& own, int lane,
                                    const float (&sums)[kPartitions][4][4]) {
#pragma unroll
  for (int k = 0; k < kPartitions; ++k)
    if (k < part.partitions) {
      const int64_t matrix = static_cast<int64_t>(blockIdx.x) * a.partitions + part.partition + k;
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int c = part.c_in + own.c_in + lane / 4 + e / 2 * 8;
          const int o = part.c_out + own.c_out + n * 8 + lane % 4 * 2 + e % 2;
          if (c < a.x.channels && o < a.g.channels)
            a.weight[(matrix * a.g.channels + o) * a.x.channels + c] = sums[k][n][e];
        }
    }
}

__device__ inline void store_bias(const WeightGradientArguments& a, const Part& part, int lane,
                                  const float (&sums)[kPartitions][2], float* shared) {
  constexpr int kWarps = kThreads / 32;
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kPartitions; ++k)
#pragma unroll
    for (int e = 0; e < 2; ++e)
      shared[(threadIdx.x / 32 * kPartitions + k) * kChannels + 2 * lane + e] = sums[k][e];
  __syncthreads();
  const int k = threadIdx.x / kChannels, o = part.c_out + threadIdx.x % kChannels;
  if (k >= part.partitions || o >= a.g.channels) return;
  float total = 0;
  for (int warp = 0; warp < kWarps; ++warp)
    total += shared[(warp * kPartitions + k) * kChannels + threadIdx.x % kChannels];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * a.partitions + part.partition + k;
  a.bias[row * a.g.channels + o] = total;
}

}  // namespace weight_gradient

template <class T>
__global__ void __launch_bounds__(weight_gradient::kThreads, 2)
    weight_gradient_of_share(const WeightGradientArguments a) {
  using namespace weight_gradient;
  const int lane = threadIdx.x % 32;
  const Part part(a);
  const WarpPart own(a, part);
  const bool wants_bias = a.bias && part.c_in == 0;
  char* shared = dynamic_shared();
  char* z = shared + 4 * kTileBytes;
  float sums[kPartitions][4][4] = {}, bias_sums[kPartitions][2] = {};

  Tiles loads, tiles;
  Tile tile, loaded;
  auto load_next = [&](int stage) {
    if (loads.next(a.batch, loaded))
      load<T>(a, part, loaded, shared + 2 * stage * kTileBytes,
              shared + (2 * stage + 1) * kTileBytes);
    cp_async_commit();
  };
  load_next(0);
  for (int stage = 0; tiles.next(a.batch, tile); stage = 1 - stage) {
    cp_async_wait<0>();
    __syncthreads();  // this tile has come, and all are done with the one before
    load_next(1 - stage);
    const char *x = shared + 2 * stage * kTileBytes, *g = x + kTileBytes;
#pragma unroll
    for (int k = 0; k < kPartitions; ++k)
      if (a.weight && k < part.partitions) {
        const int lists = (tile.layout * a.partitions + part.partition + k) * a.batch.joints;
        aggregate<T>(a.graph, lists, a.batch.joints, tile, x, z);
        __syncthreads();
        if (own.any) multiply<T>(own, tile.rows(), lane, z, g, sums[k]);
        __syncthreads();
      }
    if (wants_bias) add_bias<T>(a, part, tile, lane, g, bias_sums);
  }
  if (a.weight) store_weight(a, part, own, lane, sums);
  if (wants_bias) store_bias(a, part, lane, bias_sums, reinterpret_cast<float*>(shared));
}

}  // namespace msclr::gpu
