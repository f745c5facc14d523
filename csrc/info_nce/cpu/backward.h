#pragma once

#include "bank_gradient.h"

namespace msclr::info_nce_cpu {

// The gradients to be filled in; an empty tensor where one is not wanted.
struct Gradients {
  Tensor queries, keys, bank, temperature;
  bool want_queries, want_keys, want_bank, want_temperature;
};

// Of each query: the gradients of loss, distribution (0 in the teacher's row) and log_sum_exp.
struct Upstream {
  std::vector<double> loss, distribution, log_sum_exp;

  double sum(int64_t query) const { return loss[query] + distribution[query] + log_sum_exp[query]; }
};

// What the forward kept.
struct Kept {
  Tensor mean, positive, largest, log_sum;
};

// With g the sum of a query's upstream gradients, mu its mean and mu_t the teacher's:
//   T dq   = g mu - g_loss pos - g_dist mu_t
//   T dk_j = sum over queries of p_j u - [j is a positive] g_loss q / count
//            p_j = exp((x_j - largest) / T) / sum, for exp(s_j - lse) would be off by the rounding
//                  of lse, which is large where T is small; 1 / sum goes into the pull
//            u = g q, in the teacher's row less the sum over views of g_dist q
//   dT     = - sum over queries of q.dq / T, as q and 1/T come as a product only
template <class S>
class Backward {
 public:
  Backward(const Inputs& in, const Upstream& upstream, std::optional<int64_t> teacher)
      : in_(in), upstream_(upstream), teacher_(teacher) {}

  void queries_and_temperature(const Kept& kept, const Gradients& out) {
    const Rows mean(kept.mean), positive(kept.positive);
    std::vector<double> products(in_.query_count());
    in_parallel(in_.query_count(), [&](int64_t i) {
      const int64_t clip = i % in_.batch;
      std::vector<S> gradient(in_.dim, S(0)), row(in_.dim);
      auto add = [&](double factor, const Rows& from, int64_t j) {
        from.read(j, 1, row.data(), in_.dim);
        add_row(factor, row, gradient.data());
      };
      add(upstream_.sum(i), mean, i);
      add(-upstream_.loss[i], positive, clip);
      if (teacher_) add(-upstream_.distribution[i], mean, *teacher_ * in_.batch + clip);
      if (out.want_queries) Rows(out.queries).write(i, gradient.data());
      in_.queries.read(i, 1, row.data(), in_.dim);
      products[i] = kernels<S>().dot(row.data(), gradient.data(), in_.dim);
    });
    if (!out.want_temperature) return;
    double sum = 0;
    for (const double product : products) sum += product;
    assign<S>(out.temperature, [&](int64_t) { return S(-sum / in_.temperature); });
  }

  void keys_and_bank(const Positives& positives, const Kept& kept, const Gradients& out) {
    const std::vector<S> largest = values<S>(kept.largest, "largest");
    const Pull<S> pull = make_pull(positives, values<S>(kept.log_sum, "log_sum"));
    if (out.want_keys) keys(pull, largest, Rows(out.keys));
    if (out.want_bank) BankGradient<S>(in_, pull, largest, positives).run(Rows(out.bank));
  }

 private:
  void add_row(double factor, const std::vector<S>& row, S* to) const {
    const S scaled = factor / in_.temperature;
    for (int64_t c = 0; c < in_.dim; ++c) to[c] += scaled * row[c];
  }

  Pull<S> make_pull(const Positives& positives, const std::vector<S>& log_sum) const {
    Pull<S> pull(in_.query_count(), in_.batch, in_.dim);
    in_parallel(in_.batch, [&](int64_t clip) {
      std::vector<S> query(in_.dim);
      for (int64_t view = 0; view < in_.views; ++view) {
        const int64_t i = view * in_.batch + clip;
        in_.queries.read(i, 1, query.data(), in_.dim);
        add_row(upstream_.sum(i), query, pull.of_query(i));
        if (teacher_)
          add_row(-upstream_.distribution[i], query, pull.of_query(*teacher_ * in_.batch + clip));
        add_row(-upstream_.loss[i] / (1 + std::ssize(positives[clip])), query, pull.of_clip(clip));
      }
      for (int64_t i = clip; i < in_.query_count(); i += in_.batch) {
        const S share = std::exp(-log_sum[i]);  // of the softmax that the largest logit has
        for (int64_t c = 0; c < in_.dim; ++c) pull.of_query(i)[c] *= share;
      }
    });
    return pull;
  }

  void keys(const Pull<S>& pull, const std::vector<S>& largest, const Rows& to) const {
    in_parallel(in_.batch, [&](int64_t clip) {
      std::vector<S> query(in_.dim), key(in_.dim);
      std::vector<S> sum(pull.of_clip(clip), pull.of_clip(clip) + in_.dim);
      in_.keys.read(clip, 1, key.data(), in_.dim);
      for (int64_t i = clip; i < in_.query_count(); i += in_.batch) {
        in_.queries.read(i, 1, query.data(), in_.dim);
        const double similarity = kernels<S>().dot(query.data(), key.data(), in_.dim);
        const S weight = std::exp((similarity - largest[i]) / in_.temperature);
        for (int64_t c = 0; c < in_.dim; ++c) sum[c] += weight * pull.of_query(i)[c];
      }
      to.write(clip, sum.data());
    });
  }

  const Inputs& in_;
  const Upstream& upstream_;
  const std::optional<int64_t> teacher_;
};

}  // namespace msclr::info_nce_cpu
