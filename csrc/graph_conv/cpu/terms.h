#pragma once
// What the inner loops are given besides numbers.

#include <cstdint>
#include <vector>

namespace msclr::graph_conv_cpu {

// Rows of x, z and u hold a multiple of this many channels of a partition, the last of them zeros.
constexpr int64_t kGranule = 4;

// Where a row is in the first frame of a tile, and how far it is to the same in the next.
struct Row {
  int64_t offset, step;
};

// Slot s is written with the sum of its terms first[s] .. first[s+1]-1, in every frame.
template <class S>
struct Terms {
  struct Term {
    Row source;
    S value;
  };
  std::vector<int32_t> first{0};
  std::vector<Term> terms;
  std::vector<Row> target;

  void add(Row source, S value) { terms.push_back({source, value}); }
  void close(Row to) {
    first.push_back(static_cast<int32_t>(terms.size()));
    target.push_back(to);
  }
};

// Two rows whose product is summed over the frames.
struct Link {
  Row a, b;
};

}  // namespace msclr::graph_conv_cpu
