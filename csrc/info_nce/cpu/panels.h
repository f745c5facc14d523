#pragma once

#include "../../common/buffer.h"
#include "../../common/rows.h"
#include "kernels.h"

namespace msclr::info_nce_cpu {

// Similarities of so many bank rows are in cache at a time. A multiple of 6 rows, which AVX-512's
// product takes at once. More rows share the sum over a tile, but leave the caches.
constexpr int64_t kTile = 180;

// The columns of a panel, a multiple of every processor's lanes.
template <class S>
constexpr int64_t kPanel = 256 / sizeof(S);

// Some of a block of queries, transposed: (D, width), width being `count` rounded up to whole
// vectors; zeros fill it up.
template <class S>
struct Panel {
  const S* queries;
  int64_t first, count, width;  // the first of the block's rows
};

// A block of queries as the right-hand side of similarities = bank queries^T. The lanes of a vector
// belong to as many queries, so no sum or maximum ever runs across one.
template <class S>
class Panels {
 public:
  Panels(const Rows& queries, int64_t first, int64_t count)
      : dim_(queries.dim()), count_(count), data_(dim_ * round_up(count, kernels<S>().lanes)) {
    std::vector<S> row(dim_);
    each([&](const Panel<S>& panel) {
      S* to = data_.get() + dim_ * panel.first;
      std::fill_n(to, dim_ * panel.width, S(0));
      for (int64_t r = 0; r < panel.count; ++r) {
        queries.read(first + panel.first + r, 1, row.data(), dim_);
        for (int64_t c = 0; c < dim_; ++c) to[c * panel.width + r] = row[c];
      }
    });
  }

  template <class F>
  void each(const F& f) const {
    for (int64_t r = 0; r < count_; r += kPanel<S>) {
      const int64_t count = std::min(kPanel<S>, count_ - r);
      f(Panel<S>{data_.get() + dim_ * r, r, count, round_up(count, kernels<S>().lanes)});
    }
  }

 private:
  int64_t dim_, count_;
  Buffer<S> data_;
};

// Rows of the bank as numbers, a tile at a time: where they are if they are numbers already and
// fill whole vectors, else copied.
template <class S>
class BankTile {
 public:
  explicit BankTile(int64_t dim)
      : dim_(dim),
        width_(round_up(dim, kernels<S>().lanes)),
        copy_(kTile * width_),
        sum_(kPanel<S> * width_) {}

  void read(const Rows& bank, int64_t first, int64_t count) {
    count_ = count;
    stride_ = bank.stride();
    rows_ = dim_ == width_ ? bank.in_place<S>(first) : nullptr;
    if (rows_) return;
    bank.read(first, count, copy_.get(), width_);
    stride_ = width_;
    rows_ = copy_.get();
  }

  // to (count, width) = bank rows times queries
  void similarities(const Panel<S>& panel, S* to) const {
    kernels<S>().product(count_, panel.width, dim_, {rows_, stride_, 1}, panel.queries, panel.width,
                         to, panel.width);
  }

  // to (queries, D) += weights^T times bank rows, weights being (count, width). The tile's sum is
  // made apart: its terms would lose their last digits in one over thousands of rows.
  void add_weighted(const Panel<S>& panel, const S* weights, S* to, int64_t to_stride) {
    kernels<S>().product(panel.count, width_, count_, {weights, 1, panel.width}, rows_, stride_,
                         sum_.get(), width_);
    for (int64_t i = 0; i < panel.count; ++i)
      kernels<S>().add(sum_.get() + i * width_, width_, to + i * to_stride);
  }

  int64_t count() const { return count_; }

 private:
  const int64_t dim_, width_;
  const Buffer<S> copy_, sum_;
  const S* rows_ = nullptr;
  int64_t stride_ = 0, count_ = 0;
};

}  // namespace msclr::info_nce_cpu
