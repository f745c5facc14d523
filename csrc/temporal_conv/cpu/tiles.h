#pragma once
// How the work is cut: tiles of frames.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../arguments.h"
#include "matrix.h"

namespace msclr::temporal_conv_cpu {

// Some frames of y and of those joints of one sample; and the same frames of x, times the stride.
struct Tile {
  const Segment* segment;
  int64_t sample, joint, joints, start, frames;
};

// Frames first, first + step, .. of a sample's rows in x or y.
struct Frames {
  int64_t first, count, step, all;  // the sample has frames 0 .. all-1

  // Which of them the sample has: begin() .. end()-1.
  int64_t begin() const { return std::clamp<int64_t>((step - 1 - first) / step, 0, count); }
  int64_t end() const {
    const int64_t last = all - first + step - 1;
    return std::clamp<int64_t>(last < 0 ? 0 : last / step, begin(), count);
  }
};

// f(part of the matrix, its first row's place among all rows) for the frames that the sample has,
// in as few parts as there can be. `sample_row` is the row of the sample's first frame.
template <class F>
void each_part(const Tile& tile, const Frames& frames, int64_t sample_row, int64_t columns,
               const F& f) {
  const int64_t joints = tile.segment->joints, begin = frames.begin(), end = frames.end();
  const auto row = [&](int64_t i) {
    return sample_row + (frames.first + frames.step * i) * joints + tile.joint;
  };
  if (begin == end) return;
  if (tile.joints == 1) {
    f(Part{row(begin), end - begin, frames.step * joints, 0, columns}, begin);
  } else if (frames.step == 1 && tile.joints == joints) {
    f(Part{row(begin), (end - begin) * joints, 1, 0, columns}, begin * joints);
  } else {
    for (int64_t i = begin; i < end; ++i)
      f(Part{row(i), tile.joints, 1, 0, columns}, i * tile.joints);
  }
}

inline int64_t x_row(const Tile& tile) {
  return tile.segment->first_row + tile.sample * tile.segment->frames * tile.segment->joints;
}
inline int64_t y_row(const Tile& tile) {
  return tile.segment->first_out_row +
         tile.sample * tile.segment->out_frames * tile.segment->joints;
}

// Tiles of one segment, of which the normalized rows fill part of a core's second-level cache.
inline void add_tiles(const Segment& segment, int64_t stride, int64_t row_bytes,
                      std::vector<Tile>& tiles) {
  constexpr int64_t kCacheBytes = 256 * 1024, kFewest = 8;
  if (segment.out_frames * segment.joints == 0) return;
  const int64_t fit = kCacheBytes / (segment.joints * row_bytes * stride) - 2 * kPadding / stride;
  const int64_t most =
      std::clamp<int64_t>(fit, std::min(kFewest, segment.out_frames), segment.out_frames);
  const int64_t per_sample = (segment.out_frames + most - 1) / most;
  for (int64_t n = 0; n < segment.samples; ++n)
    for (int64_t i = 0; i < per_sample; ++i) {
      const int64_t start = segment.out_frames * i / per_sample;
      const int64_t end = segment.out_frames * (i + 1) / per_sample;
      tiles.push_back({&segment, n, 0, segment.joints, start, end - start});
    }
}

}  // namespace msclr::temporal_conv_cpu
