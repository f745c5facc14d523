#pragma once
// y[(t,w), o] = sum_k (sum_v A[k,v,w] x[(t,v), :]) W_k^T + sum_v A[k,v,w] b_k, in 16-bit numbers.
// With outgoing neighbours and the transposed weight it is the gradient of x.
//
// A block keeps its 64 output channels and walks over tiles. Steps of 32 input channels (and up to
// four partitions) come through a ring in shared memory, copied two steps ahead, across tiles too;
// weights that fit stay there. Each thread adds up neighbours, in float, for 4 rows x 8 channels:
// the very elements that are its own in the tensor cores' operand A, given that operand B's
// channels are in the same order, which packing saw to. So the sums go from registers to the
// tensor cores: no aggregate in shared memory, and no barrier within a step.

#include "neighbours.cuh"

namespace msclr::cuda {

template <class T>
struct ConvolveArguments {
  Batch batch;
  Graph<float> graph;
  Activations x, y;
  const T* weight;    // (K, chunks, padded, 32)
  const float* bias;  // (K, padded), or null
  int partitions, chunks, padded;
  int group;         // partitions of a step
  int weight_slots;  // in shared memory: all steps', or a ring
};

struct Convolve {
  static constexpr int kThreads = 128, kWarpRows = 32, kColumns = 64, kStages = 3;
  static constexpr int kChunk = kPackedChannels, kMostPartitions = 4;
  static constexpr int kRowBytes = kChunk * 2, kXBytes = kTileRows * kRowBytes;
  static constexpr int kWeightBytes = kColumns * kRowBytes;    // of a partition
  static constexpr int kPitch = kColumns + 8;                  // of y's rows, free of conflicts
  static constexpr int kOutBytes = 16 * kPitch * 2;            // of a warp
  static constexpr int kMostResidentBytes = 48 * 1024;

  static constexpr int shared_bytes(int group, int weight_slots) {
    return kStages * kXBytes + weight_slots * group * kWeightBytes +
           kThreads / 32 * kOutBytes;
  }
};

// Brings the steps of this block's tiles to shared memory, one a call.
template <class T>
class ConvolveSteps {
 public:
  __device__ ConvolveSteps(const ConvolveArguments<T>& a, char* x, char* weight)
      : a_(a), x_(x), weight_(weight) {
    more_ = tiles_.next(a.batch, tile_);
  }

  __device__ void load_next() {
    if (more_) load();
    cp_async_commit();  // an empty group too: groups are counted
  }

 private:
  __device__ void load() {
    using C = Convolve;
    char* x = x_ + stage_ * C::kXBytes;
    load_rows<T, C::kThreads, C::kRowBytes / 16>(
        a_.x, tile_, tile_.rows(), chunk_ * C::kChunk,
        [x](int row, int piece) { return x + row * C::kRowBytes + piece * 16; });
    if (slot_ < a_.weight_slots) load_weight(weight_ + slot_ * a_.group * C::kWeightBytes);
    if (++stage_ == C::kStages) stage_ = 0;
    advance();
  }

  __device__ void load_weight(char* to) {
    using C = Convolve;
    for (int i = 0; i < a_.group && first_partition_ + i < a_.partitions; ++i) {
      const int64_t block = static_cast<int64_t>(first_partition_ + i) * a_.chunks + chunk_;
      const char* from = reinterpret_cast<const char*>(a_.weight) +
                         (block * a_.padded + blockIdx.y * C::kColumns) * C::kRowBytes;
      for (int b = threadIdx.x * 16; b < C::kWeightBytes; b += C::kThreads * 16)
        cp_async16(to + i * C::kWeightBytes + b, from + b, true);
    }
  }

  __device__ void advance() {
    const bool resident = a_.weight_slots != Convolve::kStages;
    ++slot_;
    if (!resident && slot_ == a_.weight_slots) slot_ = 0;
    if (++chunk_ < a_.chunks) return;
    chunk_ = 0;
    first_partition_ += a_.group;
    if (first_partition_ < a_.partitions) return;
    first_partition_ = 0;
    more_ = tiles_.next(a_.batch, tile_);
  }

  const ConvolveArguments<T>& a_;
  char *x_, *weight_;
  Tiles tiles_;
  Tile tile_;
  bool more_;
  int stage_ = 0, slot_ = 0, chunk_ = 0, first_partition_ = 0;
};
