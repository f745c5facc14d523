#pragma once

#include <memory>

#include "positives.h"
#include "running_softmax.h"
#include "work.h"

namespace msclr::info_nce_cpu {

// What the operator returns.
struct Outputs {
  Tensor loss, distribution, log_sum_exp, top_k, mean, positive, largest, log_sum;
};

template <class S>
class Forward {
 public:
  Forward(const Inputs& in, int64_t top_k, const Outputs& out)
      : in_(in), top_k_(top_k), out_(out), log_sum_(in.query_count()) {}

  // log_sum_exp, top_k and mean of every query, each block of them in one pass over the bank.
  void run() {
    const Cut cut(in_, sizeof(S), kernels<S>().lanes);
    auto block = [&](int64_t i) { return Range(in_.query_count(), i, cut.blocks); };
    if (cut.bank_parts == 1)
      return in_parallel(cut.blocks, [&](int64_t i) {
        auto softmax = over_bank(block(i), Range(in_.bank_rows, 0, 1));
        finish(block(i), softmax);
      });
    std::vector<std::unique_ptr<RunningSoftmax<S>>> parts(cut.blocks * cut.bank_parts);
    in_parallel(std::ssize(parts), [&](int64_t i) {
      const Range rows(in_.bank_rows, i % cut.bank_parts, cut.bank_parts);
      parts[i] = std::make_unique<RunningSoftmax<S>>(over_bank(block(i / cut.bank_parts), rows));
    });
    in_parallel(cut.blocks, [&](int64_t i) {
      auto& whole = *parts[i * cut.bank_parts];
      for (int64_t j = 1; j < cut.bank_parts; ++j) whole.merge(*parts[i * cut.bank_parts + j]);
      finish(block(i), whole);
    });
  }

  // The mean of the rows that are positives of each clip.
  void average(const Positives& positives) {
    in_parallel(in_.batch, [&](int64_t clip) {
      S* mean = data(out_.positive) + clip * in_.dim;
      std::vector<S> row(in_.dim);
      in_.keys.read(clip, 1, mean, in_.dim);
      for (const int64_t j : positives[clip]) {
        in_.bank.read(j, 1, row.data(), in_.dim);
        for (int64_t c = 0; c < in_.dim; ++c) mean[c] += row[c];
      }
      for (int64_t c = 0; c < in_.dim; ++c) mean[c] /= 1 + std::ssize(positives[clip]);
    });
  }

  // loss = lse - q.positive / T and distribution = lse - q.mean_t / T, whose large parts cancel
  // before they are divided by T.
  void compare(std::optional<int64_t> teacher) {
    in_parallel(in_.query_count(), [&](int64_t i) {
      std::vector<S> query(in_.dim);
      in_.queries.read(i, 1, query.data(), in_.dim);
      auto below_lse = [&](const Tensor& rows, int64_t row) {
        const S similarity = kernels<S>().dot(query.data(), data(rows) + row * in_.dim, in_.dim);
        return static_cast<S>(log_sum_[i] + (data(out_.largest)[i] - similarity) / in_.temperature);
      };
      const int64_t view = i / in_.batch, clip = i % in_.batch;
      data(out_.loss)[i] = below_lse(out_.positive, clip);
      if (teacher)
        data(out_.distribution)[i] =
            view == *teacher ? S(0) : below_lse(out_.mean, *teacher * in_.batch + clip);
    });
  }

 private:
  static S* data(const Tensor& tensor) { return static_cast<S*>(tensor.data_ptr()); }

  RunningSoftmax<S> over_bank(const Range& block, const Range& rows) const {
    const Panels<S> panels(in_.queries, block.first, block.count());
    RunningSoftmax<S> softmax(block.count(), in_.dim, top_k_, in_.log2_factor());
    std::vector<S> query(in_.dim), key(in_.dim);
    for (int64_t i = 0; i < block.count(); ++i) {
      in_.queries.read(block.first + i, 1, query.data(), in_.dim);
      in_.keys.read((block.first + i) % in_.batch, 1, key.data(), in_.dim);
      const S similarity = kernels<S>().dot(query.data(), key.data(), in_.dim);
      softmax.start(i, similarity, key.data(), in_.dim, rows.first == 0);
    }
    BankTile<S> tile(in_.dim);
    for (int64_t j = rows.first; j < rows.last; j += kTile) {
      tile.read(in_.bank, j, std::min(kTile, rows.last - j));
      panels.each([&](const Panel<S>& panel) { softmax.add(panel, tile, j); });
    }
    return softmax;
  }

  void finish(const Range& block, RunningSoftmax<S>& softmax) {
    for (int64_t i = block.first; i < block.last; ++i) {
      const int64_t query = i - block.first;
      log_sum_[i] = softmax.log_sum(query);
      data(out_.largest)[i] = softmax.largest(query);
      data(out_.log_sum)[i] = log_sum_[i];
      data(out_.log_sum_exp)[i] = softmax.largest(query) / in_.temperature + log_sum_[i];
      softmax.mean(query, in_.dim, data(out_.mean) + i * in_.dim);
      softmax.take_nearest(query, static_cast<int64_t*>(out_.top_k.data_ptr()) + i * top_k_);
    }
  }

  const Inputs& in_;
  const int64_t top_k_;
  const Outputs& out_;
  std::vector<double> log_sum_;  // log_sum_exp less largest / T
};

}  // namespace msclr::info_nce_cpu
