#pragma once

#include <cmath>

#include "../../common/buffer.h"
#include "kernels.h"

namespace msclr::block_cpu {

// The factors 0 and 1 / (1 - p) of a block's dropout, drawn from a counter: those of a number
// depend on the seed, the block and the number's place alone, so the backward pass draws them
// again.
template <class S>
class Dropout {
 public:
  Dropout(double p, uint64_t seed, int64_t block, int64_t columns)
      : p_(p),
        columns_(columns),
        counter_{0,
                 0,
                 static_cast<uint32_t>(block),
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}},
        factors_(p > 0 ? kRows * columns + 64 : 0) {}

  static constexpr int64_t kRows = 64;  // at a time: whole groups, whatever the columns

  // Of rows row .. row + kRows - 1, `row` being a multiple of kRows; null without dropout.
  RowsAt<const S> rows(int64_t row) const {
    if (p_ <= 0) return {nullptr, 0};
    const int64_t group = row / kRows * columns_;
    Counter counter = counter_;
    counter.clip = static_cast<uint32_t>(group >> 28);  // blocks count in 32 bits
    const double threshold = std::min(std::round(p_ * 0x1p32), 0x1p32 - 1);
    kernels<S>().dropout_factors(group & 0xfffffff, columns_, counter,
                                 static_cast<uint32_t>(threshold), static_cast<S>(1 / (1 - p_)),
                                 factors_.get());
    return {factors_.get(), columns_};
  }

 private:
  double p_;
  int64_t columns_;
  Counter counter_;
  Buffer<S> factors_;
};

}  // namespace msclr::block_cpu
