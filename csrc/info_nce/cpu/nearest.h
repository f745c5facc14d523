#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace msclr::info_nce_cpu {

// The k bank rows of the largest similarity to each of some queries; of equal ones the lower row.
template <class S>
class Nearest {
 public:
  Nearest(int64_t queries, int64_t k) : k_(k), heaps_(k ? queries : 0) {
    for (auto& heap : heaps_) heap.reserve(k);
  }

  // Similarities `step` apart to `count` rows from `first_row` on, rows that come after all others
  // so far; the largest of them tells whether a look at them is worth it.
  void offer(int64_t query, const S* similarities, int64_t step, int64_t count, int64_t first_row,
             S largest) {
    if (!k_) return;
    Heap& heap = heaps_[query];
    int64_t j = 0;
    for (; j < count && !full(heap); ++j) offer(heap, {similarities[j * step], first_row + j});
    if (j == count || !(largest > heap.front().similarity)) return;
    for (; j < count; ++j)
      if (similarities[j * step] > heap.front().similarity)
        offer(heap, {similarities[j * step], first_row + j});
  }

  void merge(const Nearest& other) {
    for (size_t q = 0; q < heaps_.size(); ++q)
      for (const Neighbour& each : other.heaps_[q]) offer(heaps_[q], each);
  }

  // Writes the k rows, the nearest first.
  void take(int64_t query, int64_t* rows) {
    if (!k_) return;
    auto& heap = heaps_[query];
    std::sort_heap(heap.begin(), heap.end(), closer);
    for (const Neighbour& each : heap) *rows++ = each.row;
  }

 private:
  struct Neighbour {
    S similarity;
    int64_t row;
  };
  using Heap = std::vector<Neighbour>;  // of at most k, the least close at the front

  static bool closer(const Neighbour& a, const Neighbour& b) {
    return a.similarity > b.similarity || (a.similarity == b.similarity && a.row < b.row);
  }

  bool full(const Heap& heap) const { return std::ssize(heap) == k_; }

  void offer(Heap& heap, const Neighbour& each) {
    if (full(heap)) {
      if (!closer(each, heap.front())) return;
      std::pop_heap(heap.begin(), heap.end(), closer);
      heap.back() = each;
    } else {
      heap.push_back(each);
    }
    std::push_heap(heap.begin(), heap.end(), closer);
  }

  int64_t k_;
  std::vector<Heap> heaps_;
};

}  // namespace msclr::info_nce_cpu
