#pragma once

#include <utility>

#include "positives.h"
#include "work.h"

namespace msclr::info_nce_cpu {

// What pulls at the columns: u / (T sum) of every query, by the weight of a column, and of every
// clip what each of its positives gets for being one (see backward.h). Rows of D numbers and zeros.
template <class S>
class Pull {
 public:
  Pull(int64_t queries, int64_t clips, int64_t dim)
      : stride(round_up(dim, kernels<S>().lanes)),
        queries_(queries * stride, S(0)),
        clips_(clips * stride, S(0)) {}

  S* of_query(int64_t i) { return queries_.data() + i * stride; }
  S* of_clip(int64_t clip) { return clips_.data() + clip * stride; }
  const S* of_query(int64_t i) const { return queries_.data() + i * stride; }
  const S* of_clip(int64_t clip) const { return clips_.data() + clip * stride; }

  const int64_t stride;

 private:
  std::vector<S> queries_, clips_;
};

// The gradient of the bank, in a second pass over it: the weights of a tile with a panel of queries
// are computed again, relative to each query's largest, and the tile's rows are their product with
// the pulls.
template <class S>
class BankGradient {
 public:
  BankGradient(const Inputs& in, const Pull<S>& pull, const std::vector<S>& largest,
               const Positives& positives)
      : in_(in), pull_(pull), panels_(in.queries, 0, in.query_count()), largest_(largest) {
    largest_.resize(round_up(in.query_count(), kernels<S>().lanes));
    for (int64_t clip = 0; clip < in.batch; ++clip)
      for (const int64_t row : positives[clip]) positives_.emplace_back(row, clip);
    std::sort(positives_.begin(), positives_.end());
  }

  void run(const Rows& to) const {
    const int64_t tiles = (in_.bank_rows + kTile - 1) / kTile, parts = thread_count(in_);
    in_parallel(parts, [&](int64_t part) {
      BankTile<S> tile(in_.dim);
      const Buffer<S> weights(kTile * kPanel<S>), sum(kTile * pull_.stride);
      const Range own(tiles, part, parts);
      for (int64_t first = own.first * kTile; first < std::min(own.last * kTile, in_.bank_rows);
           first += kTile) {
        tile.read(in_.bank, first, std::min(kTile, in_.bank_rows - first));
        std::fill_n(sum.get(), kTile * pull_.stride, S(0));
        panels_.each([&](const Panel<S>& panel) { add(panel, tile, weights.get(), sum.get()); });
        add_positives(first, tile.count(), sum.get());
        for (int64_t r = 0; r < tile.count(); ++r)
          to.write(first + r, sum.get() + r * pull_.stride);
      }
    });
  }

 private:
  void add(const Panel<S>& panel, const BankTile<S>& tile, S* weights, S* sum) const {
    S unused[kPanel<S>];
    tile.similarities(panel, weights);
    kernels<S>().weigh(weights, tile.count(), panel.width, largest_.data() + panel.first,
                       in_.log2_factor(), unused);
    kernels<S>().product_add(tile.count(), pull_.stride, panel.count, {weights, panel.width, 1},
                             pull_.of_query(panel.first), pull_.stride, sum, pull_.stride);
  }

  void add_positives(int64_t first, int64_t count, S* sum) const {
    auto each =
        std::lower_bound(positives_.begin(), positives_.end(), std::pair(first, int64_t(0)));
    for (; each != positives_.end() && each->first < first + count; ++each)
      for (int64_t c = 0; c < in_.dim; ++c)
        sum[(each->first - first) * pull_.stride + c] += pull_.of_clip(each->second)[c];
  }

  const Inputs& in_;
  const Pull<S>& pull_;
  const Panels<S> panels_;
  std::vector<S> largest_;                              // similarity of each query
  std::vector<std::pair<int64_t, int64_t>> positives_;  // (bank row, clip), sorted
};

}  // namespace msclr::info_nce_cpu
