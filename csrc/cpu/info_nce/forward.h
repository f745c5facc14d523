#pragma once

#include "positives.h"
#include "running_softmax.h"
#include "work.h"

namespace msclr::info_nce_cpu {

// What the operator returns, of the shapes that csrc/library.cpp gives.
struct Outputs {
  Tensor loss, distribution, log_sum_exp, top_k, mean, positive;
};

template <class S>
class Forward {
 public:
  Forward(const Sizes& s, const Tensor& queries, const Tensor& keys, const Tensor& bank,
          double temperature, int64_t top_k, const Outputs& out)
      : s_(s),
        queries_(queries),
        keys_(keys),
        bank_(bank),
        temperature_(temperature),
        top_k_(top_k),
        out_(out),
        largest_(s.queries()),
        log_sum_(s.queries()) {}

  // log_sum_exp, top_k and mean of every query, in one pass over the bank a block of them.
  void run() {
    const Cut cut(s_, sizeof(S), kernels<S>().lanes);
    if (cut.bank_parts == 1)
      return in_parallel(cut.blocks, [&](int64_t i) {
        const Range block(s_.queries(), i, cut.blocks);
        auto softmax = over_bank(block, Range(s_.bank, 0, 1));
        finish(block, softmax);
      });
    std::vector<std::unique_ptr<RunningSoftmax<S>>> parts(cut.blocks * cut.bank_parts);
    in_parallel(std::ssize(parts), [&](int64_t i) {
      const Range block(s_.queries(), i / cut.bank_parts, cut.blocks);
      const Range rows(s_.bank, i % cut.bank_parts, cut.bank_parts);
      parts[i] = std::make_unique<RunningSoftmax<S>>(over_bank(block, rows));
    });
    in_parallel(cut.blocks, [&](int64_t i) {
      auto& whole = *parts[i * cut.bank_parts];
      for (int64_t j = 1; j < cut.bank_parts; ++j) whole.merge(*parts[i * cut.bank_parts + j]);
      finish(Range(s_.queries(), i, cut.blocks), whole);
    });
  }

  // The mean of the rows that are positives of each clip.
  void average(const Positives& positives) {
    S* mean = data(out_.positive);
    in_parallel(s_.batch, [&](int64_t b) {
      S* to = mean + b * s_.dim;
      std::vector<S> row(s_.dim);
      keys_.read(b, 1, to, s_.dim);
      for (const int64_t j : positives[b]) {
        bank_.read(j, 1, row.data(), s_.dim);
        for (int64_t c = 0; c < s_.dim; ++c) to[c] += row[c];
      }
      for (int64_t c = 0; c < s_.dim; ++c) to[c] /= 1 + std::ssize(positives[b]);
    });
  }

  // loss = lse - q.positive / T and distribution = lse - q.mean_t / T, without the cancellation.
  void compare(std::optional<int64_t> teacher) {
    in_parallel(s_.queries(), [&](int64_t i) {
      std::vector<S> query(s_.dim);
      queries_.read(i, 1, query.data(), s_.dim);
      auto below_lse = [&](const S* columns_mean) {
        const double similarity = kernels<S>().dot(query.data(), columns_mean, s_.dim);
        return static_cast<S>(log_sum_[i] + (largest_[i] - similarity) / temperature_);
      };
      const int64_t view = i / s_.batch, clip = i % s_.batch;
      data(out_.loss)[i] = below_lse(data(out_.positive) + clip * s_.dim);
      if (!teacher) return;
      data(out_.distribution)[i] =
          view == *teacher ? S(0)
                           : below_lse(data(out_.mean) + (*teacher * s_.batch + clip) * s_.dim);
    });
  }

 private:
  static S* data(const Tensor& tensor) { return static_cast<S*>(tensor.data_ptr()); }

  RunningSoftmax<S> over_bank(const Range& block, const Range& rows) const {
    const Panels<S> panels(queries_, block.first, block.count());
    RunningSoftmax<S> softmax(block.count(), s_.dim, top_k_, std::numbers::log2e / temperature_);
    std::vector<S> query(s_.dim), key(s_.dim);
    for (int64_t i = 0; i < block.count(); ++i) {
      queries_.read(block.first + i, 1, query.data(), s_.dim);
      keys_.read((block.first + i) % s_.batch, 1, key.data(), s_.dim);
      const S similarity = kernels<S>().dot(query.data(), key.data(), s_.dim);
      softmax.start(i, similarity, key.data(), s_.dim, rows.first == 0);
    }
    BankTile<S> tile(s_.dim);
    for (int64_t j = rows.first; j < rows.last; j += kTile) {
      tile.read(bank_, j, std::min(kTile, rows.last - j));
      panels.each([&](const Panel<S>& panel) { softmax.add(panel, tile, j); });
    }
    return softmax;
  }

  void finish(const Range& block, RunningSoftmax<S>& softmax) {
    for (int64_t i = block.first; i < block.last; ++i) {
      const int64_t query = i - block.first;
      largest_[i] = softmax.largest(query);
      log_sum_[i] = softmax.log_sum(query);
      data(out_.log_sum_exp)[i] = largest_[i] / temperature_ + log_sum_[i];
      softmax.mean(query, s_.dim, data(out_.mean) + i * s_.dim);
      softmax.take_nearest(query, static_cast<int64_t*>(out_.top_k.data_ptr()) + i * top_k_);
    }
  }

  const Sizes s_;
  const Rows queries_, keys_, bank_;
  const double temperature_;
  const int64_t top_k_;
  const Outputs out_;
  std::vector<S> largest_;       // similarity of each query
  std::vector<double> log_sum_;  // log_sum_exp less largest / T
};

}  // namespace msclr::info_nce_cpu
