#pragma once

#include <utility>

#include "positives.h"
#include "work.h"

namespace msclr::info_nce_cpu {

// The gradients to be filled in; an empty tensor where one is not wanted.
struct Gradients {
  Tensor queries, keys, bank, temperature;
  bool want_queries, want_keys, want_bank, want_temperature;
};

// Of each query: the gradients of loss, distribution (0 in the teacher's row) and log_sum_exp.
struct Upstream {
  std::vector<double> loss, distribution, log_sum_exp;

  double sum(int64_t i) const { return loss[i] + distribution[i] + log_sum_exp[i]; }
};

// With g = the sum of a query's upstream gradients, mu its mean and mu_t the teacher's:
//   dq T = g mu - g_loss positive - g_dist mu_t
//   dk_j T = sum over queries p_j u - [j is a positive] sum g_loss q / count,
//     u = g q, in the teacher's row less sum over views g_dist q,   p_j = exp(s_j - lse)
//   dT = - q.dq / T,  for q and 1/T come as a product only
// so that only dk_j, j in the bank, needs a pass over it.
template <class S>
class Backward {
 public:
  Backward(const Sizes& s, const Upstream& upstream, const Tensor& queries, const Tensor& keys,
           const Tensor& bank, double temperature, const Tensor& log_sum_exp, const Tensor& mean,
           const Tensor& positive, std::optional<int64_t> teacher, const Gradients& out)
      : s_(s),
        upstream_(upstream),
        queries_(queries),
        keys_(keys),
        bank_(bank),
        mean_(mean),
        positive_(positive),
        temperature_(temperature),
        log_sum_exp_(values<S>(log_sum_exp, "log_sum_exp")),
        teacher_(teacher),
        out_(out) {}

  void queries_and_temperature() {
    const Rows to(out_.queries);
    std::vector<double> products(s_.queries());
    in_parallel(s_.queries(), [&](int64_t i) {
      const int64_t clip = i % s_.batch;
      std::vector<S> gradient(s_.dim, S(0)), row(s_.dim);
      auto add = [&](double factor, const Rows& from, int64_t j) {
        from.read(j, 1, row.data(), s_.dim);
        for (int64_t c = 0; c < s_.dim; ++c) gradient[c] += S(factor / temperature_) * row[c];
      };
      add(upstream_.sum(i), mean_, i);
      add(-upstream_.loss[i], positive_, clip);
      if (teacher_) add(-upstream_.distribution[i], mean_, *teacher_ * s_.batch + clip);
      queries_.read(i, 1, row.data(), s_.dim);
      products[i] = kernels<S>().dot(row.data(), gradient.data(), s_.dim);
      if (out_.want_queries) to.write(i, gradient.data());
    });
    if (!out_.want_temperature) return;
    double sum = 0;
    for (const double product : products) sum += product;
    assign<S>(out_.temperature, [&](int64_t) { return S(-sum / temperature_); });
  }

  void keys_and_bank(const Positives& positives) {
    pull(positives);
    if (out_.want_keys) keys();
    if (out_.want_bank) bank(positives);
  }

 private:
  // u / T of every query, and of every clip what each of its positives gets for being one.
  void pull(const Positives& positives) {
    u_.assign(s_.queries() * s_.dim, S(0));
    pull_.assign(s_.batch * s_.dim, S(0));
    in_parallel(s_.batch, [&](int64_t clip) {
      std::vector<S> query(s_.dim);
      for (int64_t view = 0; view < s_.views; ++view) {
        const int64_t i = view * s_.batch + clip;
        queries_.read(i, 1, query.data(), s_.dim);
        auto add = [&](double factor, S* to) {
          for (int64_t c = 0; c < s_.dim; ++c) to[c] += S(factor / temperature_) * query[c];
        };
        add(upstream_.sum(i), u(i));
        if (teacher_) add(-upstream_.distribution[i], u(*teacher_ * s_.batch + clip));
        add(-upstream_.loss[i] / (1 + std::ssize(positives[clip])), &pull_[clip * s_.dim]);
      }
    });
  }

  void keys() {
    const Rows to(out_.keys);
    in_parallel(s_.batch, [&](int64_t clip) {
      std::vector<S> query(s_.dim), key(s_.dim);
      keys_.read(clip, 1, key.data(), s_.dim);
      S* gradient = &pull_[clip * s_.dim];
      std::vector<S> sum(gradient, gradient + s_.dim);
      for (int64_t i = clip; i < s_.queries(); i += s_.batch) {
        queries_.read(i, 1, query.data(), s_.dim);
        const double similarity = kernels<S>().dot(query.data(), key.data(), s_.dim);
        const S p = std::exp(similarity / temperature_ - log_sum_exp_[i]);
        for (int64_t c = 0; c < s_.dim; ++c) sum[c] += p * u(i)[c];
      }
      to.write(clip, sum.data());
    });
  }

  void bank(const Positives& positives) {
    const Panels<S> panels(queries_, 0, s_.queries());
    const int64_t lanes = kernels<S>().lanes, width = round_up(s_.dim, lanes);
    const Buffer<S> shift(round_up(s_.queries(), lanes)), u_rows(s_.queries() * width);
    std::fill_n(shift.get(), round_up(s_.queries(), lanes), S(0));
    for (int64_t i = 0; i < s_.queries(); ++i) {
      shift.get()[i] = log_sum_exp_[i] * temperature_;
      std::fill(std::copy_n(u(i), s_.dim, u_rows.get() + i * width), u_rows.get() + (i + 1) * width,
                S(0));
    }
    const auto positives_by_row = by_row(positives);
    const int64_t tiles = (s_.bank + kTile - 1) / kTile, parts = thread_count(s_);
    const Rows to(out_.bank);
    in_parallel(parts, [&](int64_t part) {
      BankTile<S> tile(s_.dim);
      const Buffer<S> weights(kTile * kPanel<S>), sum(kTile * width);
      S unused[kPanel<S>];
      const Range own(tiles, part, parts);
      for (int64_t t = own.first; t < own.last; ++t) {
        const int64_t first = t * kTile, count = std::min(kTile, s_.bank - first);
        tile.read(bank_, first, count);
        std::fill_n(sum.get(), kTile * width, S(0));
        panels.each([&](const Panel<S>& panel) {
          tile.similarities(panel, weights.get());
          kernels<S>().weigh(weights.get(), count, panel.width, shift.get() + panel.first,
                             std::numbers::log2e / temperature_, unused);
          kernels<S>().product_add(count, width, panel.count, {weights.get(), panel.width, 1},
                                   u_rows.get() + panel.first * width, width, sum.get(), width);
        });
        auto each = std::lower_bound(positives_by_row.begin(), positives_by_row.end(),
                                     std::pair(first, int64_t(0)));
        for (; each != positives_by_row.end() && each->first < first + count; ++each)
          for (int64_t c = 0; c < s_.dim; ++c)
            sum.get()[(each->first - first) * width + c] += pull_[each->second * s_.dim + c];
        for (int64_t r = 0; r < count; ++r) to.write(first + r, sum.get() + r * width);
      }
    });
  }

  // (bank row, clip), sorted.
  std::vector<std::pair<int64_t, int64_t>> by_row(const Positives& positives) const {
    std::vector<std::pair<int64_t, int64_t>> out;
    for (int64_t clip = 0; clip < s_.batch; ++clip)
      for (const int64_t row : positives[clip]) out.emplace_back(row, clip);
    std::sort(out.begin(), out.end());
    return out;
  }

  S* u(int64_t query) { return &u_[query * s_.dim]; }

  const Sizes s_;
  const Upstream& upstream_;
  const Rows queries_, keys_, bank_, mean_, positive_;
  const double temperature_;
  const std::vector<S> log_sum_exp_;
  const std::optional<int64_t> teacher_;
  const Gradients out_;
  std::vector<S> u_, pull_;
};

}  // namespace msclr::info_nce_cpu
