#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace msclr {

// body(i) for i = 0 .. count-1, on as many threads as there are.
template <class F>
void in_parallel(int64_t count, const F& body) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

// body(first, last) for parts of 0 .. count-1, one per thread.
template <class F>
void in_ranges(int64_t count, const F& body) {
  torch::stable::parallel_for(0, count, 1, body);
}

}  // namespace msclr
