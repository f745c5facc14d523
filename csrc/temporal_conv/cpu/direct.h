#pragma once
// The convolution as it is written: a tile's rows are normalized into a buffer in cache, with zeros
// where the clip has no frames; there a tap is a shift by whole frames of rows, and y one product
// whose sums stay in registers over all taps.
//
// With stride s the buffer holds s planes, of the frames that leave the same remainder: in a plane
// the frames that one tap reads follow each other again.

#include <vector>

#include "operands.h"
#include "tiles.h"
#include "weights.h"

namespace msclr::temporal_conv_cpu {

// How far the taps reach, in frames of y.
inline int64_t reach(int64_t stride) { return 2 * kPadding / stride; }

inline int64_t most_rows(const std::vector<Tile>& tiles, int64_t extra_frames) {
  int64_t most = 0;
  for (const Tile& tile : tiles) most = std::max(most, (tile.frames + extra_frames) * tile.joints);
  return most;
}

template <class S>
void clear_rows(S* rows, int64_t first, int64_t last, int64_t width) {
  std::fill(rows + first * width, rows + last * width, S(0));
}

// The normalized rows of a tile.
template <class S>
class Source {
 public:
  Source(const Matrix<S>& x, const Norm<S>& norm, int64_t stride, const std::vector<Tile>& tiles)
      : x_(x),
        norm_(norm),
        stride_(stride),
        width_(norm.scale.size()),
        plane_(most_rows(tiles, reach(stride)) * width_),
        buffer_(stride * plane_) {}

  void read(const Tile& tile) {
    const int64_t count = tile.frames + reach(stride_);
    for (int64_t p = 0; p < stride_; ++p) {
      const Frames frames{stride_ * tile.start - kPadding + p, count, stride_,
                          tile.segment->frames};
      S* plane = buffer_.get() + p * plane_;
      clear_rows(plane, 0, frames.begin() * tile.joints, width_);
      clear_rows(plane, frames.end() * tile.joints, count * tile.joints, width_);
      each_part(tile, frames, x_row(tile), width_, [&](const Part& part, int64_t place) {
        norm_.read(x_, part, plane + place * width_);
      });
    }
  }

  // The taps that make the tile's frames of y.
  Taps<S> taps(const Tile& tile) const {
    Taps<S> taps;
    for (int64_t k = 0; k < kTaps; ++k) {
      const Frames read{stride_ * tile.start + k - kPadding, tile.frames, stride_,
                        tile.segment->frames};
      const S* plane = buffer_.get() + k % stride_ * plane_;
      taps.add({plane + k / stride_ * tile.joints * width_, k, read.begin(), read.end()});
    }
    return taps;
  }

  int64_t width() const { return width_; }

 private:
  const Matrix<S>& x_;
  const Norm<S>& norm_;
  int64_t stride_, width_, plane_;
  Buffer<S> buffer_;
};

// What the forward pass needs, and where it goes.
template <class S>
struct Forward {
  const Matrix<S>& x;
  const Norm<S>& norm;
  Weights<S> weights;
  const std::vector<S>& bias;
  int64_t stride;
  const Matrix<S>& y;
};

template <class S>
class DirectForward {
 public:
  DirectForward(const Forward<S>& to, const Panels<S>& taps, const std::vector<Tile>& tiles)
      : to_(to),
        taps_(taps),
        source_(to.x, to.norm, to.stride, tiles),
        width_(to.bias.size()),
        rows_(most_rows(tiles, 0) * width_) {}

  // Adds to `sums` (2, width).
  void run(const Tile& tile, S* sums) {
    source_.read(tile);
    kernels<S>().convolve(source_.taps(tile), tile.frames, tile.joints, source_.width(), taps_,
                          {rows_.get(), width_});
    const Frames frames{tile.start, tile.frames, 1, tile.segment->out_frames};
    each_part(tile, frames, y_row(tile), width_, [&](const Part& part, int64_t place) {
      S* rows = rows_.get() + place * width_;
      kernels<S>().finish(part.count, width_, {rows, width_}, to_.bias.data(),
                          to_.y.target(part, rows), {sums, width_});
      to_.y.write(part, rows);
    });
  }

 private:
  const Forward<S>& to_;
  const Panels<S>& taps_;
  Source<S> source_;
  int64_t width_;
  Buffer<S> rows_;
};

}  // namespace msclr::temporal_conv_cpu
