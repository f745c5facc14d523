#pragma once
// The backward pass over all tiles and chunks, on all threads.

#include <optional>
#include <vector>

#include "../../common/parallel.h"
#include "direct_backward.h"
#include "spectral_backward.h"

namespace msclr::temporal_conv_cpu {

// Each share has a copy of the weights' gradient, which takes time of its own. Their number must
// not depend on that of the threads.
inline int64_t share_count(int64_t rows, int64_t tiles) {
  constexpr int64_t kRows = 2048, kMost = 16;
  return std::clamp<int64_t>(std::min(rows / kRows, tiles), 1, kMost);
}

// What the tiles and chunks of a call add up to.
struct Totals {
  std::vector<double> e;       // (2, width of x)
  std::vector<double> g;       // (width of y)
  std::vector<double> weight;  // (C_out, C_in, 9)
};

template <class S>
void backward_tiles(const Backward<S>& to, const std::vector<Tile>& tiles, Lazy<Packed<S>>& taps,
                    Totals& total) {
  if (tiles.empty()) return;
  const Panels<S>& transposed = taps.get([&] { return pack_taps(to.transposed); });
  const int64_t shares = share_count(to.rows, tiles.size());
  TileSums e_sums(tiles.size(), total.e.size()), g_sums(tiles.size(), total.g.size());
  std::vector<WeightSums<S>> w_sums(to.want_weight ? shares : 0, {to.x.columns(), to.g.width});
  in_ranges(shares, [&](int64_t first_share, int64_t last_share) {
    DirectBackward<S> direct(to, &transposed, tiles);
    std::vector<S> of_e(total.e.size(), S(0)), of_g(total.g.size(), S(0));
    for (int64_t share = first_share; share < last_share; ++share) {
      const int64_t count = tiles.size(), last = count * (share + 1) / shares;
      for (int64_t i = count * share / shares; i < last; ++i) {
        direct.run(tiles[i], of_e.data(), of_g.data(), to.want_weight ? &w_sums[share] : nullptr);
        e_sums.take(i, of_e.data());
        g_sums.take(i, of_g.data());
      }
    }
  });
  e_sums.add_to(total.e);
  g_sums.add_to(total.g);
  for (const auto& share : w_sums) share.add_to(total.weight);
}

// The chunks, a group at a time.
template <class S>
class ChunksBackward {
 public:
  ChunksBackward(const Backward<S>& to, const std::vector<Chunk>& chunks, Lazy<Packed<S>>& taps,
                 const Totals& total)
      : to_(to),
        chunks_(chunks),
        taps_(taps),
        count_(chunks.size()),
        e_sums_(count_, total.e.size()),
        g_sums_(count_, total.g.size()),
        left_(count_),
        of_e_(total.e.size(), S(0)),
        of_g_(total.g.size(), S(0)) {
    if (to.e) weights_.emplace(pack_slots(to.transposed));
    if (!to.want_weight) return;
    slots_.emplace(to, std::min(kGroup, count_) * chunk_windows<S>());
    w_sums_.emplace(to.x.columns(), to.g.width);
  }

  void run(Totals& total) {
    for (int64_t first = 0; first < count_; first += kGroup)
      run_group(first, std::min(first + kGroup, count_));
    run_left(total);
    e_sums_.add_to(total.e);
    g_sums_.add_to(total.g);
    if (w_sums_) w_sums_->add_to(total.weight);
  }

 private:
  static constexpr int64_t kGroup = 8;  // chunks, which threads can share

  void run_group(int64_t first, int64_t last) {
    std::vector<int64_t> windows{0};  // before each chunk of the group
    for (int64_t i = first; i < last; ++i) windows.push_back(windows.back() + chunks_[i].count);
    in_ranges(last - first, [&](int64_t begin, int64_t end) {
      SpectralBackward<S> spectral(to_, weights_ ? &weights_->panels() : nullptr);
      std::vector<S> of_e(of_e_.size(), S(0)), of_g(of_g_.size(), S(0));
      for (int64_t i = first + begin; i < first + end; ++i) {
        left_[i] = spectral.run(chunks_[i], slots_ ? &*slots_ : nullptr, windows[i - first],
                                of_e.data(), of_g.data());
        e_sums_.take(i, of_e.data());
        g_sums_.take(i, of_g.data());
      }
    });
    if (w_sums_) w_sums_->add(slots_->x, slots_->g, windows.back());
  }

  // The windows that are not finite, which the spectral form left out.
  void run_left(Totals& total) {
    std::optional<WeightSums<S>> weight;
    for (int64_t i = 0; i < count_; ++i)
      for (int64_t window : left_[i]) {
        if (!weight) weight.emplace(to_.x.columns(), to_.g.width);
        const std::vector<Tile> tiles{chunks_[i].tile(window)};
        const Panels<S>& taps = taps_.get([&] { return pack_taps(to_.transposed); });
        DirectBackward<S>(to_, &taps, tiles).run(tiles[0], of_e_.data(), of_g_.data(), &*weight);
        e_sums_.take(i, of_e_.data());
        g_sums_.take(i, of_g_.data());
      }
    if (weight && to_.want_weight) weight->add_to(total.weight);
  }

  const Backward<S>& to_;
  const std::vector<Chunk>& chunks_;
  Lazy<Packed<S>>& taps_;
  int64_t count_;
  TileSums e_sums_, g_sums_;
  std::vector<std::vector<int64_t>> left_;
  std::vector<S> of_e_, of_g_;
  std::optional<Packed<S>> weights_;
  std::optional<GroupSlots<S>> slots_;
  std::optional<SlotSums<S>> w_sums_;
};

}  // namespace msclr::temporal_conv_cpu
