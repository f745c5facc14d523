#pragma once
// The gradients of spectral.h, a group of chunks at a time. The slots of a group's rows of x and of
// g are kept until all its chunks are done: then the weights' gradient of each slot is one product
// over all the group's windows, and no thread needs a gradient of its own.

#include <vector>

#include "direct_backward.h"
#include "spectral.h"

namespace msclr::temporal_conv_cpu {

// The weights' gradient in every slot, a matrix (C_in, width) each.
template <class S>
class SlotSums {
 public:
  SlotSums(int64_t c_in, int64_t width) : c_in_(c_in), width_(width), sums_(kSlots * c_in * width) {
    std::fill_n(sums_.get(), kSlots * c_in * width, S(0));
  }
  S* slot(int64_t m) const { return sums_.get() + m * c_in_ * width_; }

  // += x' g of all windows; x and g are slots as they were analyzed.
  void add(const Slots<S>& x, const Slots<S>& g, int64_t windows) const {
    const int64_t panel = kernels<S>().panel, panels = (width_ + panel - 1) / panel;
    in_parallel(kSlots * panels, [&](int64_t i) {
      const int64_t m = i / panels, column = i % panels * panel;
      const RowsAt<const S> a = x.slot(m), b = g.slot(partner(m));
      kernels<S>().product_add(c_in_, std::min(panel, width_ - column), windows,
                               {a.data, 1, a.stride}, b.data + column, b.stride, slot(m) + column,
                               width_);
    });
  }

  // Adds the gradient of the taps to `to`, (C_out, C_in, 9).
  void add_to(std::vector<double>& to) const {
    const int64_t c_out = to.size() / (c_in_ * kTaps);
    in_parallel(c_in_, [&](int64_t c) {
      std::vector<S> taps(kTaps * width_);
      spectral_kernels<S>().synthesize_taps(width_, {slot(0) + c * width_, c_in_ * width_},
                                            {taps.data(), width_});
      for (int64_t o = 0; o < c_out; ++o)
        for (int64_t k = 0; k < kTaps; ++k) to[(o * c_in_ + c) * kTaps + k] += taps[k * width_ + o];
    });
  }

 private:
  // p' Q and q' P: see spectral.h.
  static int64_t partner(int64_t m) {
    const int64_t place = m < 2 ? 0 : (m - 2) % 3;
    return place == 0 ? m : place == 1 ? m + 1 : m - 1;
  }

  int64_t c_in_, width_;
  Buffer<S> sums_;
};

// A group's slots.
template <class S>
struct GroupSlots {
  Slots<S> x, g;

  GroupSlots(const Backward<S>& to, int64_t windows)
      : x(windows, spread<S>(to.norm.scale.size())), g(windows, spread<S>(to.g.width)) {}
};

// One thread's work on the chunks of a group.
template <class S>
class SpectralBackward {
 public:
  SpectralBackward(const Backward<S>& to, const Panels<S>* transposed)
      : to_(to),
        x_width_(to.norm.scale.size()),
        frames_((kLength + 1) * std::max(x_width_, to.g.width)),
        scratch_((kLength + 1) * std::max(x_width_, to.g.width)),
        unused_(to.g.width, S(0)),
        g_(to.e ? chunk_windows<S>() : 0, spread<S>(to.g.width)) {
    if (to.e) products_.emplace(*transposed);
  }

  // Fills in the group's slots from window `first` on, which are 0 where a window is not finite,
  // and does all else but the weights' gradient. Adds to the sums of e (2, width of x) and of g.
  // Returns which windows are not finite: nothing is done for them.
  std::vector<int64_t> run(const Chunk& chunk, const GroupSlots<S>* group, int64_t first, S* e_sums,
                           S* g_sums) {
    std::vector<bool> finite(chunk.count, true);
    std::vector<int64_t> left;
    for (int64_t i = 0; i < chunk.count; ++i) {
      if (to_.e) finite[i] = analyze_gradient(chunk, i, kPadding, g_, i, unused_.data());
      if (to_.want_weight) finite[i] = analyze_weight(chunk, i, *group, first, finite[i], g_sums);
      if (!finite[i]) left.push_back(i);
    }
    if (to_.e)
      products_->run(chunk.count, g_.slot(0), g_.slot_distance(),
                     [&](int64_t column, int64_t i, RowsAt<S> frames) {
                       if (finite[i]) finish(chunk, i, column, frames, e_sums);
                     });
    return left;
  }

 private:
  bool analyze_gradient(const Chunk& chunk, int64_t i, int64_t margin, const Slots<S>& slots,
                        int64_t place, S* sums) {
    const Tile tile = chunk.tile(i);
    return analyze_window(
        chunk, tile, margin, y_row(tile), frames_.get(), to_.g.width, slots, place,
        [&](const Part& part, S* rows) { to_.g.read(part, rows, scratch_.get(), sums); });
  }

  // The weights' gradient takes a window's own frames of g, and those of x around them.
  bool analyze_weight(const Chunk& chunk, int64_t i, const GroupSlots<S>& group, int64_t first,
                      bool finite, S* g_sums) {
    const Tile tile = chunk.tile(i);
    finite = finite && analyze_window(chunk, tile, kPadding, x_row(tile), frames_.get(), x_width_,
                                      group.x, first + i, [&](const Part& part, S* rows) {
                                        to_.norm.read(to_.x, part, rows);
                                      });
    own_sums_.assign(to_.g.width, S(0));
    finite = finite && analyze_gradient(chunk, i, 0, group.g, first + i, own_sums_.data());
    if (!finite) {
      group.x.clear(first + i);
      group.g.clear(first + i);
      return false;
    }
    for (int64_t o = 0; o < to_.g.width; ++o) g_sums[o] += own_sums_[o];
    return true;
  }

  void finish(const Chunk& chunk, int64_t i, int64_t column, RowsAt<S> frames, S* sums) const {
    const Tile tile = chunk.tile(i);
    const Part part = own_part(tile, x_row(tile), column, frames.stride);
    const RowsAt<S> rows = own_rows(chunk, tile, frames);
    const RowsAt<const S> x = to_.x.read(part, scratch_.get());
    kernels<S>().finish_gradient(part.count, part.columns, {rows.data, rows.stride}, x,
                                 to_.norm.scale.data() + column, to_.norm.shift.data() + column,
                                 to_.e->target(part, rows.data), {sums + column, x_width_});
    to_.e->write(part, rows.data);
  }

  const Backward<S>& to_;
  int64_t x_width_;
  Buffer<S> frames_, scratch_;
  std::vector<S> unused_;
  Slots<S> g_;
  std::optional<Products<S>> products_;
  std::vector<S> own_sums_;
};

}  // namespace msclr::temporal_conv_cpu
