#pragma once
// How the spectral form cuts the work: windows of frames of one joint, many of them a chunk.

#include <vector>

#include "direct.h"

namespace msclr::temporal_conv_cpu {

// A clip of up to so many frames is one window: a transform of length 18 wraps round in the four
// frames of zeros that are left.
constexpr int64_t kWholeClip = kLength - kPadding;
// A longer one is cut into blocks of so many frames, each read with four more on both sides.
constexpr int64_t kBlock = kLength - 2 * kPadding;

inline int64_t window_count(int64_t frames) {  // of a clip
  return frames <= kWholeClip ? 1 : (frames + kBlock - 1) / kBlock;
}

// Some windows of one segment, counted sample by sample, window by window and joint by joint.
struct Chunk {
  const Segment* segment;
  int64_t first, count;

  bool whole_clips() const { return segment->frames <= kWholeClip; }

  // The frames that come out of a window, of one joint.
  Tile tile(int64_t i) const {
    const int64_t joints = segment->joints, windows = window_count(segment->frames);
    const int64_t at = first + i, window = at / joints % windows;
    const int64_t start = segment->frames * window / windows;
    const int64_t end = segment->frames * (window + 1) / windows;
    return {segment, at / joints / windows, at % joints, 1, start, end - start};
  }

  // The frame in a window's middle.
  int64_t middle(const Tile& tile) const {
    return whole_clips() ? segment->frames / 2 : tile.start + kBlock / 2;
  }
};

// Windows of a chunk. Their slots are to stay in the second-level cache, next to a panel of the
// products, and each weight is read once a chunk.
template <class S>
int64_t chunk_windows() {
  constexpr int64_t kMost = 96;
  const int64_t height = spectral_kernels<S>().height;
  return kMost / height * height;
}

// Chunks of up to `most` windows.
inline void add_chunks(const Segment& segment, int64_t most, std::vector<Chunk>& chunks) {
  if (segment.frames == 0) return;
  const int64_t all = segment.samples * segment.joints * window_count(segment.frames);
  for (int64_t first = 0; first < all; first += most)
    chunks.push_back({&segment, first, std::min(most, all - first)});
}

// A buffer of one row of `width` numbers for each slot and window: [slot][window][width].
template <class S>
class Slots {
 public:
  Slots(int64_t windows, int64_t width)
      : row_(width), slot_(windows * width + kApart), buffer_(kSlots * slot_) {}

  // All slots of one window.
  RowsAt<S> window(int64_t i) const { return {buffer_.get() + i * row_, slot_}; }
  RowsAt<const S> slot(int64_t m) const { return {buffer_.get() + m * slot_, row_}; }
  int64_t slot_distance() const { return slot_; }

  void clear(int64_t i) const {
    for (int64_t m = 0; m < kSlots; ++m)
      std::fill_n(buffer_.get() + m * slot_ + i * row_, row_, S(0));
  }

 private:
  // Keeps the slots of a window from sharing a cache set, where rows are a power of two.
  static constexpr int64_t kApart = 64 / sizeof(S);
  int64_t row_, slot_;
  Buffer<S> buffer_;
};

// Brings a window's frames into a buffer and transforms them into row `place` of each slot; returns
// whether all is finite. With `margin` frames around the window's own, zeros where the clip has
// none; f(part, rows) reads a part of them. The buffer has room for a row more than the transform
// is long.
template <class S, class F>
bool analyze_window(const Chunk& chunk, const Tile& tile, int64_t margin, int64_t sample_row,
                    S* buffer, int64_t width, const Slots<S>& slots, int64_t place, const F& f) {
  const bool wide = margin > 0 && !chunk.whole_clips();
  const int64_t half = wide ? kLength / 2 : kHalf;
  const int64_t top = chunk.middle(tile) - half;  // the frame of the buffer's first row
  const Frames frames{tile.start - margin, tile.frames + 2 * margin, 1, tile.segment->frames};
  const int64_t begin = frames.first + frames.begin() - top;
  const int64_t end = frames.first + frames.end() - top;
  clear_rows(buffer, 0, begin, width);
  clear_rows(buffer, end, 2 * half + 1, width);
  each_part(tile, frames, sample_row, width,
            [&](const Part& part, int64_t) { f(part, buffer + begin * width); });
  const auto analyze = wide ? spectral_kernels<S>().analyze_block : spectral_kernels<S>().analyze;
  return analyze(width, {buffer, width}, slots.window(place), slots.slot(0).stride);
}

}  // namespace msclr::temporal_conv_cpu
