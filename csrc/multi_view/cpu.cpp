// Multi-view InfoNCE on the CPU. Every view is anchor and candidate: logits come a tile of 128 x
// 128 at a time, forward for their sums of exponentials, backward to be turned into gradients, so
// that memory is a few times the views', never (B, B).
//
// Between two views of one process, the tile of anchors i and candidates j is, transposed, that of
// anchors j and candidates i: one product and one exponential serve both. That makes one product
// forward and three backward. An implementation by matrices needs three in all, for it keeps the
// logits, but then its time goes into reading and writing (B, B) matrices.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/backward.h"
#include "cpu/forward.h"

namespace {

using namespace msclr;
using namespace msclr::multi_view_cpu;

// Calls f with a number of the type to compute in.
template <class F>
void with_number_type(const Tensor& views, const F& f) {
  views.scalar_type() == ScalarType::Double ? f(double()) : f(float());
}

double checked(const Tensor& temperature) {
  STD_TORCH_CHECK(temperature.numel() == 1, "temperature must be a scalar");
  const double value = values<double>(temperature, "temperature")[0];
  STD_TORCH_CHECK(value > 0, "temperature must be positive, got ", value);
  return value;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> multi_view_info_nce(
    const Tensor& views, const Tensor& temperature, const std::vector<int64_t>& pairs,
    const OptionalTensor& candidates, int64_t first, const OptionalTensor& bank, bool all_views) {
  const Problem problem(views, pairs, candidates, first, bank, all_views);
  const int64_t count = problem.pairs.views();
  const ScalarType type =
      views.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  auto of_pairs = [&] {
    return torch::stable::new_empty(views, {count, count, problem.batch}, type);
  };
  const Outputs out{.loss = torch::stable::new_empty(views, {}, type),
                    .kept = {.excesses = of_pairs(), .shifts = of_pairs(), .log_sums = of_pairs()}};
  with_number_type(views, [&]<class S>(S) {
    const Blocks<S> blocks(problem, checked(temperature));
    Forward<S>(problem, blocks, out).run();
  });
  return {out.loss, out.kept.excesses, out.kept.shifts, out.kept.log_sums};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> multi_view_info_nce_backward(
    const Tensor& grad, const Tensor& views, const Tensor& temperature,
    const std::vector<int64_t>& pairs, const OptionalTensor& candidates, int64_t first,
    const OptionalTensor& bank, bool all_views, const Tensor& excesses, const Tensor& shifts,
    const Tensor& log_sums, bool want_views, bool want_temperature, bool want_candidates,
    bool want_bank) {
  const Problem problem(views, pairs, candidates, first, bank, all_views);
  want_candidates = want_candidates && candidates;
  want_bank = want_bank && bank;
  auto like = [](const Tensor& of, bool wanted) {
    return wanted ? torch::stable::new_empty(of, of.sizes()) : torch::stable::new_empty(of, {0});
  };
  const Gradients out{
      .rows = {like(views, want_views), like(problem.tensors[kCandidates], want_candidates),
               like(problem.tensors[kBank], want_bank)},
      .want_rows = {want_views, want_candidates, want_bank},
      .temperature = like(temperature, want_temperature),
      .want_temperature = want_temperature};
  with_number_type(views, [&]<class S>(S) {
    const Blocks<S> blocks(problem, checked(temperature));
    Backward<S>(problem, blocks, {excesses, shifts, log_sums}, out)
        .run(values<double>(grad, "grad")[0] / problem.batch);
  });
  return {out.rows[kAnchors], out.temperature, out.rows[kCandidates], out.rows[kBank]};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("multi_view_info_nce", TORCH_BOX(&multi_view_info_nce));
  m.impl("multi_view_info_nce_backward", TORCH_BOX(&multi_view_info_nce_backward));
}
