#pragma once
// How the work is cut: tiles of frames, and the order of their rows in scratch memory.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../common/buffer.h"
#include "../arguments.h"
#include "terms.h"

namespace msclr::graph_conv_cpu {

// How rows of scratch memory are laid out: x's hold the channels, rounded up to kGranule; z's and
// u's those of their partitions, all K of them at most, and then one number a partition: the
// channel of ones.
struct Widths {
  int64_t x, z, y;

  Widths(const Shape& s, int64_t lanes)
      : x(round_up(s.c_in, kGranule)),
        z(round_up(s.partitions * (x + 1), lanes)),
        y(round_up(s.c_out, lanes)) {}
};

// Some frames of one sample.
struct Tile {
  int64_t sample, start, frames;
};

// Tiles whose z fills part of a core's second-level cache.
struct Tiling {
  int64_t frames, per_sample, count, all_frames;

  Tiling(const Shape& s, int64_t row_bytes) : all_frames(s.frames) {
    constexpr int64_t kCacheBytes = 192 * 1024;
    frames = std::clamp<int64_t>(kCacheBytes / (s.joints * row_bytes), 1,
                                 std::max<int64_t>(s.frames, 1));
    per_sample = (s.frames + frames - 1) / frames;
    if (per_sample) frames = (s.frames + per_sample - 1) / per_sample;  // tiles of like size
    count = s.samples * per_sample;
  }

  Tile operator[](int64_t i) const {
    const int64_t start = i % per_sample * frames;
    return {i / per_sample, start, std::min(frames, all_frames - start)};
  }
};

// Joints that have neighbours in the same partitions. Their rows of z hold those partitions only
// and are next to each other in a tile, so that what is multiplied is dense.
struct Group {
  struct Run {  // of consecutive joints
    int64_t joint, count;
  };
  std::vector<int64_t> partitions;
  std::vector<Run> runs;
  int64_t joints = 0;
  int64_t first_row = 0;  // of a tile

  int64_t ones(const Widths& width) const { return std::ssize(partitions) * width.x; }
  int64_t depth(const Widths& width) const { return std::ssize(partitions) * (width.x + 1); }

  void add(int64_t joint) {
    if (runs.empty() || runs.back().joint + runs.back().count != joint) runs.push_back({joint, 0});
    ++runs.back().count;
    ++joints;
  }

  // f(joint, its place in the group)
  template <class F>
  void each(const F& f) const {
    int64_t place = 0;
    for (const Run& run : runs)
      for (int64_t i = 0; i < run.count; ++i) f(run.joint + i, place++);
  }
};

}  // namespace msclr::graph_conv_cpu
