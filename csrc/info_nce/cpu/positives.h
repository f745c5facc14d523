#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "../../common/elements.h"

namespace msclr::info_nce_cpu {

// The bank rows that are positives of each clip besides its key, every one once.
class Positives {
 public:
  // positives: (B, R) with -1 for none; mined: (P, B, k), whose rows of all views join in.
  Positives(int64_t batch, int64_t bank_rows, const std::optional<Tensor>& positives,
            const std::optional<Tensor>& mined)
      : of_clip_(batch) {
    if (positives) add(*positives, bank_rows);
    if (mined) add(*mined, bank_rows);
    for (auto& rows : of_clip_) {
      std::sort(rows.begin(), rows.end());
      rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    }
  }

  const std::vector<int64_t>& operator[](int64_t clip) const { return of_clip_[clip]; }

 private:
  void add(const Tensor& tensor, int64_t bank_rows) {
    const int64_t batch = of_clip_.size(), dim = tensor.dim();
    STD_TORCH_CHECK(
        tensor.scalar_type() == ScalarType::Long && dim >= 2 && tensor.size(dim - 2) == batch,
        "positives must be int64 (B, R)");
    const std::vector<int64_t> rows = integers(tensor);
    const int64_t width = tensor.size(dim - 1);
    for (size_t i = 0; i < rows.size(); ++i) {
      STD_TORCH_CHECK(-1 <= rows[i] && rows[i] < bank_rows,
                      "positives must be rows of the bank or -1, got ", rows[i]);
      if (rows[i] >= 0) of_clip_[i / width % batch].push_back(rows[i]);
    }
  }

  std::vector<std::vector<int64_t>> of_clip_;
};

}  // namespace msclr::info_nce_cpu
