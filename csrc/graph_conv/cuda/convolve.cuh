#pragma once
// y[(t,w), :] = sum_k (sum_v A[k,v,w] x[(t,v), :]) W_k^T + (sum_v A[k,v,w]) b_k, in 16-bit numbers.
// With outgoing neighbours and the transposed weight it is the gradient of x.
//
// A block keeps its 64 output channels and walks over tiles. Steps of 32 input channels and up to
// four partitions come through a ring in shared memory, copied two steps ahead, across tiles too;
// a weight that fits stays there. Each thread adds up neighbours, in float, for 4 rows of 8
// channels: the very numbers that it owns in the tensor cores' operand A, as long as operand B has
// its channels in the same order, which is how the weight is packed. So the sums go from registers
// to the tensor cores: no aggregate in memory, and no barrier within a step.

#include "neighbours.cuh"

namespace msclr::gpu {

template <class T>
struct ConvolveArguments {
  Batch batch;
  Graph graph;
  Activations x, y;
  const T* weight;    // (K, chunks, padded, 32)
  const float* bias;  // (K, padded), or null
  int partitions, chunks, padded;
  int group;      // partitions of a step
  bool resident;  // the weight of all steps stays in shared memory
};

namespace convolve {

constexpr int kThreads = 128, kWarpRows = 32, kColumns = kPackedColumns, kStages = 3;
constexpr int kMostPartitions = 4;                  // of a step
constexpr int kRowBytes = kPackedChannels * 2;      // of 32 channels
constexpr int kXBytes = kTileRows * kRowBytes;      // of a step
constexpr int kWeightBytes = kColumns * kRowBytes;  // of a step, for each of its partitions
constexpr int kPitch = kColumns + 8;                // of rows of y: no two in the same banks
constexpr int kOutBytes = kThreads / 32 * 16 * kPitch * 2;
constexpr int kMostResidentBytes = 48 * 1024;

constexpr int shared_bytes(int group, int weight_slots) {
  return kStages * kXBytes + weight_slots * group * kWeightBytes + kOutBytes;
}

// Brings the steps of this block's tiles to shared memory, one per call.
template <class T>
class Loader {
 public:
  __device__ Loader(const ConvolveArguments<T>& a, char* x, char* weight)
      : a_(a), x_(x), weight_(weight), more_(tiles_.next(a.batch, tile_)) {}

  __device__ void next() {
    if (more_) {
      load_x(x_ + stage_ * kXBytes);
      if (!a_.resident || first_tile_)
        load_weight(weight_ + (a_.resident ? step_ : stage_) * a_.group * kWeightBytes);
      advance();
    }
    cp_async_commit();  // an empty group too: groups are counted
  }

 private:
  __device__ void load_x(char* to) {
    load_rows<T, kThreads, kRowBytes / 16>(
        a_.x, tile_, tile_.rows(), chunk_ * kPackedChannels,
        [to](int row, int piece) { return to + row * kRowBytes + piece * 16; });
  }

  __device__ void load_weight(char* to) {
    const char* packed = reinterpret_cast<const char*>(a_.weight);
    for (int i = 0; i < a_.group && partition_ + i < a_.partitions; ++i) {
      const int64_t block = static_cast<int64_t>(partition_ + i) * a_.chunks + chunk_;
      const char* from = packed + (block * a_.padded + blockIdx.y * kColumns) * kRowBytes;
      for (int b = threadIdx.x * 16; b < kWeightBytes; b += kThreads * 16)
        cp_async16(to + i * kWeightBytes + b, from + b, true);
    }
  }

  __device__ void advance() {
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    ++step_;
    if (++chunk_ < a_.chunks) return;
    chunk_ = 0;
    partition_ += a_.group;
    if (partition_ < a_.partitions) return;
    step_ = partition_ = 0;
    first_tile_ = false;
    more_ = tiles_.next(a_.batch, tile_);
  }

  const ConvolveArguments<T>& a_;
  char *x_, *weight_;
  Tiles tiles_;
  Tile tile_;
  bool more_, first_tile_ = true;
  int stage_ = 0, step_ = 0, chunk_ = 0, partition_ = 0;
};

// What a thread owns of its warp's 32 rows: row 16m + 8h + lane/4 is rows[2m + h]. In a row of
// input channels it owns 8 from (lane % 4) * 8 on; in one of output channels, two of every eight.
struct OwnRows {
  int frame[4], joint[4];  // the frame's row of joint 0, and the joint: -1 past the last row

  __device__ OwnRows(const Tile& tile, int first, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + 8 * i + lane / 4;
      frame[i] = tile.frame_of(row) * tile.joints;
      joint[i] = row < tile.rows() ? row - frame[i] : -1;
    }
  }
};

// Operand A of 32 channels for the warp's two blocks of 16 rows, in two steps of 16 channels.
template <class T>
__device__ void aggregate(const Graph& graph, int lists, int joints, const OwnRows& own,
                          const char* x, int lane, uint32_t (&operand)[2][2][4]) {
  float sums[4][8] = {};
  int degree[4], most = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    degree[i] = own.joint[i] >= 0 ? graph.degrees[lists + own.joint[i]] : 0;
    most = max(most, degree[i]);
  }
  for (int j = 0; j < most; ++j) {
    const Link* links = graph.links + static_cast<int64_t>(lists + j) * joints;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (j < degree[i]) {
        const Link link = links[own.joint[i]];
        const int row = own.frame[i] + link.joint;
        add_scaled<T>(sums[i], load16(x + row * kRowBytes + lane % 4 * 16), link.value);
      }
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    const Pack16 upper = pack8<T>(sums[2 * m]), lower = pack8<T>(sums[2 * m + 1]);
    const uint32_t a[2][4] = {{upper.x, lower.x, upper.y, lower.y},
                              {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
    for (int i = 0; i < 4; ++i) operand[m][0][i] = a[0][i], operand[m][1][i] = a[1][i];
  }
}

template <class T>
__device__ void multiply(const uint32_t (&operand)[2][2][4], const char* weight, int columns,
                         bool lower_half, int lane, float (&sums)[2][8][4]) {
#pragma unroll
  for (int n = 0; n < 8; ++n)
    if (n * 8 < columns) {
      const Pack16 b = load16(weight + (n * 8 + lane / 4) * kRowBytes + lane % 4 * 16);
#pragma unroll
      for (int m = 0; m < 2; ++m)
        if (m == 0 || lower_half) {
          mma<T>(sums[m][n], operand[m][0], b.x, b.y);
          mma<T>(sums[m][n], operand[m][1], b.z, b.w);
        }
    }
}

template <class T>
__device__ void add_bias(const ConvolveArguments<T>& a, const Tile& tile, const OwnRows& own,
                         int lane, float (&sums)[2][8][4]) {
  for (int k = 0; k < a.partitions; ++k) {
    const int lists = (tile.layout * a.partitions + k) * a.batch.joints;
    const float* bias = a.bias + k * a.padded + blockIdx.y * kColumns + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = own.joint[i] >= 0 ? a.graph.sums[lists + own.joint[i]] : 0.f;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) sums[i / 2][n][i % 2 * 2 + e] += factor * bias[n * 8 + e];
    }
  }
}

// The warp's rows go through shared memory of its own, so that a store is 16 bytes.
template <class T>
__device__ void store(const ConvolveArguments<T>& a, const Tile& tile, int first_row, int columns,
                      int lane, const float (&sums)[2][8][4], T* out) {
  const Activations& y = a.y;
  T* const start = tile_start<T>(y, tile) + blockIdx.y * kColumns * y.channel;
  auto place = [&](int row) {
    const int t = tile.frame_of(row);
    return start + t * y.frame + (row - t * tile.joints) * y.joint;
  };
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    const int first = first_row + 16 * m, rows = min(16, tile.rows() - first);
    if (rows <= 0) break;
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        *reinterpret_cast<uint32_t*>(out + (8 * h + lane / 4) * kPitch + n * 8 + lane % 4 * 2) =
            pack<T>(sums[m][n][2 * h], sums[m][n][2 * h + 1]);
    __syncwarp();
    if (y.vector) {
      const int piece = lane % 8 * 8;
      for (int row = lane / 8; row < rows && piece < columns; row += 4)
        store16(place(first + row) + piece, load16(out + row * kPitch + piece));
    } else {
#pragma unroll 1
      for (int i = lane; i < rows * columns; i += 32) {
        const auto [row, column] = position(y, i, rows, columns);
        place(first + row)[column * y.channel] = out[row * kPitch + column];
      }
    }
    __syncwarp();
  }
}

}  // namespace convolve

template <class T>
__global__ void __launch_bounds__(convolve::kThreads, 3)
    convolve_tiles(const ConvolveArguments<T> a) {
  using namespace convolve;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int columns = min(kColumns, a.y.channels - static_cast<int>(blockIdx.y) * kColumns);
  char* x = dynamic_shared();
  char* out = x + kStages * kXBytes;
  char* weight = out + kOutBytes;

  Loader<T> loader(a, x, weight);
  for (int i = 0; i < kStages - 1; ++i) loader.next();
  Tiles tiles;
  Tile tile;
  int stage = 0;
  while (tiles.next(a.batch, tile)) {
    const OwnRows own(tile, warp * kWarpRows, lane);
    const int rows = tile.rows() - warp * kWarpRows;
    float sums[2][8][4] = {};
    int slot = 0;
    for (int first = 0; first < a.partitions; first += a.group)
      for (int chunk = 0; chunk < a.chunks; ++chunk, ++slot) {
        cp_async_wait<kStages - 2>();
        __syncthreads();  // this step has come, and all are done with the stage that comes next
        loader.next();
        const char* w = weight + (a.resident ? slot : stage) * a.group * kWeightBytes;
        for (int i = 0; i < a.group && first + i < a.partitions && rows > 0; ++i) {
          const int lists = (tile.layout * a.partitions + first + i) * a.batch.joints;
          uint32_t operand[2][2][4];
          aggregate<T>(a.graph, lists, a.batch.joints, own, x + stage * kXBytes, lane, operand);
          __syncwarp();
          multiply<T>(operand, w + i * kWeightBytes, columns, rows > 16, lane, sums);
        }
        stage = stage + 1 == kStages ? 0 : stage + 1;
      }
    if (a.bias) add_bias(a, tile, own, lane, sums);
    store(a, tile, warp * kWarpRows, columns, lane, sums,
          reinterpret_cast<T*>(out) + warp * 16 * kPitch);
    clear_masked<T>(a.batch, a.y, tile, blockIdx.y * kColumns, columns, kThreads);
  }
}

}  // namespace msclr::gpu
