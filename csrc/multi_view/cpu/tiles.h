#pragma once

#include "problem.h"
#include "turns.h"

namespace msclr::multi_view_cpu {

// Calls body(a, b), of which every thread makes one by make_body(), for the nodes a <= b that meet;
// never at once for two pairs with a node in common. Neighbouring nodes go together, so that their
// rows are found in the second-level cache again.
template <class MakeBody>
void for_each_tile(const Problem& problem, const MakeBody& make_body) {
  const int64_t nodes = std::ssize(problem.nodes);
  const int64_t together = std::clamp<int64_t>(nodes / 32, 1, 4);
  auto each_pair = [&](int64_t i, int64_t j, const auto& f) {
    for (int64_t b = j * together; b < std::min((j + 1) * together, nodes); ++b)
      for (int64_t a = i * together; a < (i + 1) * together && a <= b; ++a)
        if (problem.meet(a, b)) f(a, b);
  };
  auto wanted = [&](int64_t i, int64_t j) {
    bool any = false;
    each_pair(i, j, [&](int64_t, int64_t) { any = true; });
    return any;
  };
  Turns((nodes + together - 1) / together).run(wanted, [&] {
    return [&each_pair, body = make_body()](int64_t i, int64_t j) { each_pair(i, j, body); };
  });
}

}  // namespace msclr::multi_view_cpu
