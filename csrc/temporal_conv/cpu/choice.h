#pragma once
// Which algorithm a segment is computed with.

#include <cstdlib>
#include <type_traits>
#include <vector>

#include "windows.h"

namespace msclr::temporal_conv_cpu {

enum class Algorithm { kFastest, kDirect, kSpectral };

// Products of a frame and a tap that one joint of a clip takes: those of frames the clip has.
inline int64_t tap_count(int64_t frames) {
  int64_t count = 0;
  for (int64_t k = -kPadding; k <= kPadding; ++k)
    count += std::max<int64_t>(frames - std::abs(k), 0);
  return count;
}

// What one pass costs besides its products, as many multiplications: transforms, for a window and a
// channel, and the weights' transforms, for a weight of one tap. Measured on a processor with
// AVX-512, 9 to 50 frames and 16 to 256 channels.
struct Costs {
  int64_t products, window, weight;
};
constexpr Costs kForwardCosts = {1, 450, 1000}, kBackwardCosts = {2, 2300, 3000};

// Whether the spectral form, of stride 1 only, has less to do.
inline bool spectral_pays(const Shape& shape, const Segment& segment, const Costs& costs) {
  const int64_t joints = segment.samples * segment.joints;
  const int64_t windows = joints * window_count(segment.frames);
  const int64_t weights = shape.c_in * shape.c_out;
  const int64_t direct = costs.products * joints * tap_count(segment.frames) * weights;
  const int64_t spectral = costs.products * windows * kSlots * weights +
                           costs.window * windows * (shape.c_in + shape.c_out) +
                           costs.weight * weights;
  return spectral < direct;
}

// The work of a call: tiles for the one algorithm, chunks for the other.
struct Work {
  std::vector<Tile> tiles;
  std::vector<Chunk> chunks;
};

// `width` numbers per row of a tile are held in cache.
template <class S>
Work work_of(const Shape& shape, int64_t width, Algorithm algorithm, const Costs& costs) {
  Work work;
  for (const Segment& segment : shape.segments) {
    const bool can = std::is_same_v<S, float> && shape.stride == 1;
    if (can && algorithm != Algorithm::kDirect &&
        (algorithm == Algorithm::kSpectral || spectral_pays(shape, segment, costs)))
      add_chunks(segment, chunk_windows<S>(), work.chunks);
    else
      add_tiles(segment, shape.stride, width * sizeof(S), work.tiles);
  }
  return work;
}

}  // namespace msclr::temporal_conv_cpu
