// ST-GCN's temporal convolution on the CPU, with what comes before and after it: batch norm and
// relu as rows are read, bias and the next norm's sums as they are written.
//
//   a = relu(x scale + shift)        y[t', o] = bias[o] + sum_k,c weight[o,c,k] a[s t' + k - 4, c]
//
// Backward, with g = alpha d + beta y + gamma, which is what the next norm's gradient comes to:
//   e[f, c] = sum_k,o weight[o,c,k] g[(f + 4 - k) / s, o] where x scale + shift > 0
//   dweight[o,c,k] = sum_t' a[s t' + k - 4, c] g[t', o]        dbias = sum g
// Neither a nor g is ever held: they exist for one tile at a time.
//
// Sums are in float (in double for double tensors), those over all rows in double from tile to
// tile. They are added in an order that depends on the sizes alone: results have the same bits on
// any number of threads.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "cpu/backward.h"
#include "cpu/choice.h"
#include "cpu/forward.h"

namespace {

using namespace msclr;
using namespace msclr::temporal_conv_cpu;

// Tests set it, which so run both algorithms on any shape.
Algorithm algorithm = Algorithm::kFastest;

// The first `columns` of each row of `width`.
void assign_sums(const Tensor& to, const std::vector<double>& sums, int64_t width) {
  const int64_t columns = to.size(to.dim() - 1);
  assign<double>(to, [&](int64_t i) { return sums[i / columns * width + i % columns]; });
}

template <class S>
void forward(const Shape& shape, const Matrix<S>& x, const Norm<S>& norm, const Tensor& weight,
             const Tensor& bias, const Matrix<S>& y, const Tensor& statistics) {
  const std::vector<S> weights = values<S>(weight, "weight"), biases = padded<S>(bias, "bias");
  const Forward<S> to{x,      norm,         {weights.data(), shape.c_in, shape.c_out, false},
                      biases, shape.stride, y};
  const Work work = work_of<S>(shape, norm.scale.size(), algorithm, kForwardCosts);
  Lazy<Packed<S>> taps;
  std::vector<double> total(2 * biases.size(), 0.0);
  forward_tiles(to, work.tiles, taps, total);
  if constexpr (std::is_same_v<S, float>) forward_chunks(to, work.chunks, taps, total);
  assign_sums(statistics, total, biases.size());
}

struct Gradients {
  Tensor e, statistics, weight, bias;
};

template <class S>
void backward(const Shape& shape, const OutputGradient<S>& g, const Matrix<S>& x,
              const Norm<S>& norm, const Tensor& weight, bool want_x, bool want_weight,
              const Gradients& out) {
  const std::vector<S> weights = values<S>(weight, "weight");
  const Matrix<S> e(out.e);
  const Backward<S> to{g,
                       x,
                       norm,
                       {weights.data(), shape.c_in, shape.c_out, true},
                       shape.stride,
                       shape.out_rows,
                       want_x ? &e : nullptr,
                       want_weight};
  const int64_t x_width = norm.scale.size();
  const Work work = work_of<S>(shape, x_width + g.width, algorithm, kBackwardCosts);
  Totals total{std::vector<double>(2 * x_width, 0.0), std::vector<double>(g.width, 0.0),
               std::vector<double>(weights.size(), 0.0)};
  Lazy<Packed<S>> taps;
  backward_tiles(to, work.tiles, taps, total);
  if constexpr (std::is_same_v<S, float>)
    if (!work.chunks.empty()) ChunksBackward<S>(to, work.chunks, taps, total).run(total);
  if (want_x) assign_sums(out.statistics, total.e, x_width);
  if (!want_weight) return;
  assign_sums(out.bias, total.g, g.width);
  assign<double>(out.weight, [&](int64_t i) { return total.weight[i]; });
}

Tensor empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  return torch::stable::empty(sizes, type, std::nullopt, like.device());
}

std::tuple<Tensor, Tensor> temporal_conv(const Tensor& x, const Tensor& scale, const Tensor& shift,
                                         const Tensor& weight, const Tensor& bias,
                                         std::vector<int64_t> segments, int64_t stride) {
  check_weight(weight);
  const Shape shape(weight.size(1), weight.size(0), segments, stride);
  check_rows("x", x, shape.rows, shape.c_in);
  check_vector("scale", scale, shape.c_in);
  check_vector("shift", shift, shape.c_in);
  check_vector("bias", bias, shape.c_out);
  const Tensor y = empty(x, {shape.out_rows, shape.c_out}, x.scalar_type());
  const Tensor statistics = empty(x, {2, shape.c_out}, ScalarType::Double);
  const auto run = [&]<class S>(S*) {
    forward<S>(shape, Matrix<S>(x), Norm<S>(scale, shift), weight, bias, Matrix<S>(y), statistics);
  };
  x.scalar_type() == ScalarType::Double ? run((double*)nullptr) : run((float*)nullptr);
  return {y, statistics};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> temporal_conv_backward(
    const Tensor& d, const Tensor& y, const Tensor& coefficients, const Tensor& x,
    const Tensor& scale, const Tensor& shift, const Tensor& weight, std::vector<int64_t> segments,
    int64_t stride, bool want_x, bool want_weight) {
  check_weight(weight);
  const Shape shape(weight.size(1), weight.size(0), segments, stride);
  check_rows("d", d, shape.out_rows, shape.c_out);
  check_rows("y", y, shape.out_rows, shape.c_out);
  check_rows("coefficients", coefficients, 3, shape.c_out);
  check_rows("x", x, shape.rows, shape.c_in);
  check_vector("scale", scale, shape.c_in);
  check_vector("shift", shift, shape.c_in);
  const auto sized = [&](std::vector<int64_t> sizes, bool wanted) {
    return wanted ? sizes : std::vector<int64_t>(sizes.size(), 0);
  };
  const Gradients out{
      empty(x, sized({shape.rows, shape.c_in}, want_x), x.scalar_type()),
      empty(x, sized({2, shape.c_in}, want_x), ScalarType::Double),
      empty(x, sized({shape.c_out, shape.c_in, kTaps}, want_weight), weight.scalar_type()),
      empty(x, sized({shape.c_out}, want_weight), weight.scalar_type())};
  const auto run = [&]<class S>(S*) {
    backward<S>(shape, OutputGradient<S>(d, y, coefficients), Matrix<S>(x), Norm<S>(scale, shift),
                weight, want_x, want_weight, out);
  };
  x.scalar_type() == ScalarType::Double ? run((double*)nullptr) : run((float*)nullptr);
  return {out.e, out.statistics, out.weight, out.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_backward", TORCH_BOX(&temporal_conv_backward));
}

// Has the named algorithm run where it can, "direct" or "spectral", or the faster one otherwise.
extern "C" __attribute__((visibility("default"))) void msclr_temporal_conv_algorithm(
    const char* name) {
  const std::string_view wanted = name;
  algorithm = wanted == "direct"     ? Algorithm::kDirect
              : wanted == "spectral" ? Algorithm::kSpectral
                                     : Algorithm::kFastest;
}
