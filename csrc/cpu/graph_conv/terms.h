#pragma once
// What the inner loops are given besides numbers.

#include <cstdint>
#include <vector>

namespace msclr::graph_conv_cpu {

// Rows of x and z hold a multiple of this many channels, the last of them zeros.
constexpr int64_t kGranule = 4;

// Slot s writes at target[s] the sum of its terms first[s] .. first[s+1]-1.
template <class S>
struct Terms {
  std::vector<int32_t> first{0};
  std::vector<int32_t> source;
  std::vector<S> value;
  std::vector<int64_t> target;

  void add(int64_t from, S factor) {
    source.push_back(static_cast<int32_t>(from));
    value.push_back(factor);
  }
  void close(int64_t to) {
    first.push_back(static_cast<int32_t>(source.size()));
    target.push_back(to);
  }
};

struct Link {
  int64_t a, b;
};

}  // namespace msclr::graph_conv_cpu
