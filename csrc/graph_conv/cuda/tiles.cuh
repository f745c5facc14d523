#pragma once
// How activations are cut: a tile is some frames of one sample, at most 128 rows (frame, joint), of
// real joints only. A block walks over its share of the tiles.

#include "elements.cuh"

namespace msclr::gpu {

constexpr int kTileRows = 128;  // also the largest number of joints

// Tensors (N, C, T, V) in any strides.
struct Activations {
  void* data;
  int64_t sample, channel, frame, joint;  // strides
  int channels;
  bool vector;  // pieces of 16 bytes along the channels are aligned
};

struct Batch {
  int samples, frames, joints, layouts;
  int tiles;                                 // of each sample, were all its joints real
  StridedTensor layout_index, joint_counts;  // (N), (L), or no data: one layout, all joints real
};

__device__ inline int layout_of(const Batch& batch, int sample) {
  if (!batch.layout_index.data) return 0;
  return read_integer(batch.layout_index, sample * batch.layout_index.stride[3]);
}

__device__ inline int joints_of(const Batch& batch, int layout) {
  if (!batch.joint_counts.data) return batch.joints;
  return read_integer(batch.joint_counts, layout * batch.joint_counts.stride[3]);
}

struct Tile {
  int sample, layout, joints, start, frames;
  uint32_t reciprocal;  // of joints, times 2^16, rounded up: exact for rows below 2^9

  __device__ int rows() const { return frames * joints; }
  __device__ int frame_of(int row) const { return static_cast<int>(row * reciprocal >> 16); }
};

// The tiles of this block: blockIdx.x, blockIdx.x + gridDim.x, ...
class Tiles {
 public:
  __device__ Tiles() : next_(blockIdx.x) {}

  // Moves on to the next tile, if given of one layout only; false after the last.
  __device__ bool next(const Batch& batch, Tile& tile, int only_layout = -1) {
    const unsigned count = static_cast<unsigned>(batch.samples) * batch.tiles;
    while (next_ < count) {
      tile.sample = next_ / batch.tiles;
      const int index = next_ % batch.tiles;
      next_ += gridDim.x;
      tile.layout = layout_of(batch, tile.sample);
      if (only_layout >= 0 && tile.layout != only_layout) continue;
      tile.joints = joints_of(batch, tile.layout);
      const int most = kTileRows / max(tile.joints, 1);  // frames
      tile.start = index * most;
      tile.frames = min(most, batch.frames - tile.start);
      tile.reciprocal = 65536u / max(tile.joints, 1) + 1;
      if (tile.frames > 0) return true;  // a layout of few joints needs fewer tiles
    }
    return false;
  }

 private:
  unsigned next_;
};

template <class T>
__device__ T* tile_start(const Activations& x, const Tile& tile) {
  return static_cast<T*>(x.data) + tile.sample * x.sample + tile.start * x.frame;
}

// Where element i of a (rows, channels) block is: along what is contiguous in memory.
struct Position {
  int row, channel;
};

__device__ inline Position position(const Activations& x, int i, int rows, int channels) {
  if (x.channel == 1) return {i / channels, i % channels};
  return {i % rows, i / rows};
}

// kPieces pieces of 16 bytes, from channel `first` on, of each of the tile's rows go to
// place(row, piece) in shared memory. Zeros past the last channel, and up to row `padded`.
template <class T, int kThreads, int kPieces, class Place>
__device__ void load_rows(const Activations& x, const Tile& tile, int padded, int first,
                          const Place& place) {
  constexpr int kWidth = 16 / sizeof(T);
  const T* origin = tile_start<const T>(x, tile);
  const int rows = tile.rows();
  if (x.vector) {
#pragma unroll 1  // copies are not waited for
    for (int i = threadIdx.x; i < padded * kPieces; i += kThreads) {
      const int row = i / kPieces, piece = i % kPieces, c = first + piece * kWidth;
      const int t = tile.frame_of(row), v = row - t * tile.joints;
      const bool real = row < rows && c < x.channels;
      cp_async16(place(row, piece), real ? origin + t * x.frame + v * x.joint + c : origin, real);
    }
    return;
  }
#pragma unroll 2
  for (int i = threadIdx.x; i < padded * kPieces * kWidth; i += kThreads) {
    const auto [row, channel] = position(x, i, padded, kPieces * kWidth);
    const int t = tile.frame_of(row), v = row - t * tile.joints, c = first + channel;
    const bool real = row < rows && c < x.channels;
    T* to = reinterpret_cast<T*>(place(row, channel / kWidth)) + channel % kWidth;
    *to = real ? origin[t * x.frame + v * x.joint + c * x.channel] : T{};
  }
}

// Zeros where joints of the tile's frames are masked, in channels first .. first + channels - 1.
template <class T>
__device__ void clear_masked(const Batch& batch, const Activations& y, const Tile& tile, int first,
                             int channels, int threads) {
  const int masked = batch.joints - tile.joints, width = y.vector ? 16 / sizeof(T) : 1;
  const int pieces = channels / width, rows = tile.frames * masked;
  for (int i = threadIdx.x; i < rows * pieces; i += threads) {
    const auto [row, piece] = position(y, i, rows, pieces);
    T* to = tile_start<T>(y, tile) + row / masked * y.frame +
            (tile.joints + row % masked) * y.joint + (first + piece * width) * y.channel;
    if (y.vector)
      store16(to, {0, 0, 0, 0});
    else
      *to = T{};
  }
}

}  // namespace msclr::gpu
