#pragma once
// The forward pass over all tiles and chunks, on all threads.

#include <vector>

#include "../../common/parallel.h"
#include "direct.h"
#include "spectral.h"

namespace msclr::temporal_conv_cpu {

template <class S>
void forward_tiles(const Forward<S>& to, const std::vector<Tile>& tiles, Lazy<Packed<S>>& taps,
                   std::vector<double>& total) {
  if (tiles.empty()) return;
  const Panels<S>& packed = taps.get([&] { return pack_taps(to.weights); });
  TileSums sums(tiles.size(), total.size());
  in_ranges(tiles.size(), [&](int64_t first, int64_t last) {
    DirectForward<S> direct(to, packed, tiles);
    std::vector<S> of_tile(total.size(), S(0));
    for (int64_t i = first; i < last; ++i) {
      direct.run(tiles[i], of_tile.data());
      sums.take(i, of_tile.data());
    }
  });
  sums.add_to(total);
}

template <class S>
void forward_chunks(const Forward<S>& to, const std::vector<Chunk>& chunks, Lazy<Packed<S>>& taps,
                    std::vector<double>& total) {
  if (chunks.empty()) return;
  const Packed<S> slots = pack_slots(to.weights);
  TileSums sums(chunks.size(), total.size());
  in_ranges(chunks.size(), [&](int64_t first, int64_t last) {
    SpectralForward<S> spectral(to, slots, taps);
    std::vector<S> of_chunk(total.size(), S(0));
    for (int64_t i = first; i < last; ++i) {
      spectral.run(chunks[i], of_chunk.data());
      sums.take(i, of_chunk.data());
    }
  });
  sums.add_to(total);
}

}  // namespace msclr::temporal_conv_cpu
