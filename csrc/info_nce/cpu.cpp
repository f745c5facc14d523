// InfoNCE against a bank on the CPU, in one pass over it, as attention whose values are its keys.
// With s_j = q.k_j / T over the key and the bank's rows, each query keeps
//   lse = log sum_j exp(s_j)    and    mu = sum_j softmax(s)_j k_j
// from which all else follows:
//   loss = lse - q.pos / T,     d loss / dq = (mu - pos) / T,      pos = the positives' mean
//   D    = lse - q.mu_t / T,    d D / dq    = (mu - mu_t) / T,     mu_t = the teacher view's
// The similarities of a tile of the bank with a panel of queries never leave the first-level cache:
// they are made by one matrix product (bank rows times queries^T), become softmax weights there and
// go into mu by a second one. The nearest rows are picked from them on the way.
//
// A gradient of the bank takes a second pass, which computes the weights again.
//
// Sums are in float (in double for double tensors).

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/backward.h"
#include "cpu/forward.h"

namespace {

using namespace msclr;
using namespace msclr::info_nce_cpu;
using OptionalTensor = std::optional<Tensor>;

ScalarType number_type(const Tensor& queries) {
  return queries.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Python has checked most of it; this keeps calls past it, and values that a traced program does
// not look at, within their memory.
void check(bool holds, const char* what) { STD_TORCH_CHECK(holds, what); }

// -1 means any size.
bool has_sizes(const Tensor& tensor, std::initializer_list<int64_t> sizes) {
  if (tensor.dim() != std::ssize(sizes)) return false;
  int64_t i = 0;
  for (const int64_t size : sizes)
    if (tensor.size(i++) != size && size != -1) return false;
  return true;
}

Inputs inputs(const Tensor& queries, const Tensor& keys, const OptionalTensor& bank,
              const Tensor& temperature, std::optional<int64_t> teacher) {
  check(queries.dim() == 3, "queries must be (P, B, D)");
  check(has_sizes(keys, {queries.size(1), queries.size(2)}), "keys must be (B, D) as in queries");
  check(!bank || has_sizes(*bank, {-1, queries.size(2)}),
        "bank must be (Q, D), with D as in queries");
  check(!teacher || (0 <= *teacher && *teacher < queries.size(0)), "teacher must be a view");
  check(temperature.numel() == 1, "temperature must be a scalar");
  const double value = values<double>(temperature, "temperature")[0];
  STD_TORCH_CHECK(value > 0, "temperature must be positive, got ", value);
  return {queries, keys, bank ? *bank : torch::stable::new_empty(keys, {0, keys.size(1)}), value};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> info_nce(
    const Tensor& queries, const Tensor& keys, const OptionalTensor& bank,
    const Tensor& temperature, std::optional<int64_t> teacher, int64_t top_k,
    const OptionalTensor& positives, bool mined) {
  const Inputs in = inputs(queries, keys, bank, temperature, teacher);
  STD_TORCH_CHECK(0 <= top_k && top_k <= in.bank_rows, "top_k must lie in 0..", in.bank_rows,
                  ", got ", top_k);
  const ScalarType type = number_type(queries);
  auto empty = [&](std::initializer_list<int64_t> sizes, ScalarType dtype) {
    return torch::stable::new_empty(queries, sizes, dtype);
  };
  const Outputs out{empty({in.views, in.batch}, type),
                    teacher ? empty({in.views, in.batch}, type) : empty({0}, type),
                    empty({in.views, in.batch}, type),
                    empty({in.views, in.batch, top_k}, ScalarType::Long),
                    empty({in.views, in.batch, in.dim}, type),
                    empty({in.batch, in.dim}, type),
                    empty({in.views, in.batch}, type),
                    empty({in.views, in.batch}, type)};
  auto run = [&]<class S>(S) {
    Forward<S> forward(in, top_k, out);
    forward.run();
    forward.average(
        {in.batch, in.bank_rows, positives, mined ? OptionalTensor(out.top_k) : std::nullopt});
    forward.compare(teacher);
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return {out.loss, out.distribution, out.log_sum_exp, out.top_k,
          out.mean, out.positive,     out.largest,     out.log_sum};
}

Upstream upstream_of(const Inputs& in, const Tensor& loss, const Tensor& distribution,
                     const Tensor& log_sum_exp, std::optional<int64_t> teacher) {
  auto of = [&](const Tensor& gradient) {
    check(has_sizes(gradient, {in.views, in.batch}), "gradients must be (P, B)");
    return values<double>(gradient, "gradient");
  };
  Upstream out{of(loss), std::vector<double>(in.query_count()), of(log_sum_exp)};
  if (!teacher) return out;
  out.distribution = of(distribution);
  std::fill_n(out.distribution.begin() + *teacher * in.batch, in.batch, 0.0);  // a constant there
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> info_nce_backward(
    const Tensor& grad_loss, const Tensor& grad_distribution, const Tensor& grad_log_sum_exp,
    const Tensor& queries, const Tensor& keys, const OptionalTensor& bank,
    const Tensor& temperature, std::optional<int64_t> teacher, int64_t top_k,
    const OptionalTensor& positives, bool mined, const Tensor& nearest, const Tensor& mean,
    const Tensor& positive, const Tensor& largest, const Tensor& log_sum, bool want_queries,
    bool want_keys, bool want_bank, bool want_temperature) {
  want_bank = want_bank && bank;
  const Inputs in = inputs(queries, keys, bank, temperature, teacher);
  auto like = [](const Tensor& of, bool wanted) {
    return wanted ? torch::stable::new_empty(of, of.sizes()) : torch::stable::new_empty(of, {0});
  };
  const Gradients out{like(queries, want_queries),
                      like(keys, want_keys),
                      like(bank ? *bank : keys, want_bank),
                      like(temperature, want_temperature),
                      want_queries,
                      want_keys,
                      want_bank,
                      want_temperature};
  const Upstream upstream =
      upstream_of(in, grad_loss, grad_distribution, grad_log_sum_exp, teacher);
  check(has_sizes(nearest, {in.views, in.batch, top_k}) &&
            has_sizes(mean, {in.views, in.batch, in.dim}) &&
            has_sizes(positive, {in.batch, in.dim}) && has_sizes(largest, {in.views, in.batch}) &&
            has_sizes(log_sum, {in.views, in.batch}),
        "nearest, mean, positive, largest and log_sum must be the forward's");
  const Kept kept{mean, positive, largest, log_sum};
  auto run = [&]<class S>(S) {
    Backward<S> backward(in, upstream, teacher);
    if (want_queries || want_temperature) backward.queries_and_temperature(kept, out);
    if (want_keys || want_bank)
      backward.keys_and_bank(
          {in.batch, in.bank_rows, positives, mined ? OptionalTensor(nearest) : std::nullopt}, kept,
          out);
  };
  number_type(queries) == ScalarType::Double ? run(double()) : run(float());
  return {out.queries, out.keys, out.bank, out.temperature};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("info_nce", TORCH_BOX(&info_nce));
  m.impl("info_nce_backward", TORCH_BOX(&info_nce_backward));
}
