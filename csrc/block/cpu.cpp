// What a fused block of ST-GCN is made of on the CPU, besides the temporal convolution
// (csrc/temporal_conv/): its graph convolution over packed rows, and its end. kernels/block/ puts
// them together.
//
// Sums over rows are in float (in double for double tensors) within a tile and in double from tile
// to tile, in an order that depends on the sizes alone: results have the same bits on any number of
// threads.

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/graph.h"
#include "cpu/norm.h"
#include "cpu/output.h"

namespace {

using namespace msclr;
using namespace msclr::block_cpu;
using temporal_conv_cpu::check_rows;

Tensor empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  return torch::stable::empty(sizes, type, std::nullopt, like.device());
}

// f with a null pointer of the type to compute in.
template <class F>
void with_number_type(const Tensor& x, const F& f) {
  x.scalar_type() == ScalarType::Double ? f((double*)nullptr) : f((float*)nullptr);
}

// The first columns of rows of sums that are `width` apart.
void assign_sums(const Tensor& to, const std::vector<double>& sums, int64_t width) {
  const int64_t columns = to.size(1);
  assign<double>(to, [&](int64_t i) { return sums[i / columns * width + i % columns]; });
}

// Rows of x and y, checked against the segments.
temporal_conv_cpu::Shape shape_of_rows(const PackedGraph& g, const std::vector<int64_t>& segments) {
  STD_TORCH_CHECK(g.weight.dim() == 2 && g.partitions > 0 && g.weight.size(0) % g.partitions == 0,
                  "weight must be (K*C_out, C_in)");
  temporal_conv_cpu::Shape shape(g.weight.size(1), g.weight.size(0) / g.partitions, segments,
                                 g.stride);
  int64_t entries = 0;
  for (const Segment& segment : shape.segments) entries += g.entries(segment);
  STD_TORCH_CHECK(g.adjacency.numel() == entries && g.support.numel() == entries,
                  "adjacency and support must have ", entries, " entries, got ",
                  g.adjacency.numel(), " and ", g.support.numel());
  return shape;
}

std::tuple<Tensor, Tensor> block_graph_conv(const Tensor& x, const Tensor& weight,
                                            const OptionalTensor& bias, const Tensor& adjacency,
                                            const Tensor& support, std::vector<int64_t> segments,
                                            int64_t partitions, int64_t stride) {
  const PackedGraph g{weight, bias, adjacency, support, partitions, stride};
  const auto shape = shape_of_rows(g, segments);
  check_rows("x", x, shape.rows, shape.c_in);
  const Tensor y = empty(x, {shape.out_rows, shape.c_out}, x.scalar_type());
  const Tensor statistics = empty(x, {2, shape.c_out}, ScalarType::Double);
  with_number_type(x, [&]<class S>(S*) {
    const auto sums = packed_forward<S>(g, shape.segments, torch::stable::contiguous(x), y);
    assign_sums(statistics, sums, std::ssize(sums) / 2);
  });
  return {y, statistics};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> block_graph_conv_backward(
    const Tensor& d, const Tensor& y, const Tensor& coefficients, const Tensor& x,
    const Tensor& weight, const OptionalTensor& bias, const Tensor& adjacency,
    const Tensor& support, std::vector<int64_t> segments, int64_t partitions, int64_t stride,
    const OptionalTensor& addend, const OptionalTensor& gate, bool want_x, bool want_weight,
    bool want_adjacency) {
  const PackedGraph g{weight, bias, adjacency, support, partitions, stride};
  const auto shape = shape_of_rows(g, segments);
  check_rows("d", d, shape.out_rows, shape.c_out);
  check_rows("y", y, shape.out_rows, shape.c_out);
  check_rows("coefficients", coefficients, 3, shape.c_out);
  check_rows("x", x, shape.rows, shape.c_in);
  if (addend) check_rows("addend", *addend, shape.rows, shape.c_in);
  if (gate) check_rows("gate", *gate, shape.rows, shape.c_in);
  const Wanted want{want_x, want_weight, want_weight && bias, want_adjacency};
  const Arguments like{x, weight, bias, adjacency, {}, {}, {}};
  Tensor dx = empty(x, {want_x ? shape.rows : 0, shape.c_in}, x.scalar_type());
  if (stride > 1 && want_x) torch::stable::zero_(dx);  // frames that were left out
  const Gradients out(want, like, dx);
  with_number_type(x, [&]<class S>(S*) {
    packed_backward<S>(g, shape.segments, torch::stable::contiguous(d),
                       torch::stable::contiguous(y), coefficients, torch::stable::contiguous(x),
                       {addend, gate}, want, out);
  });
  return {out.x, out.weight, out.bias, out.adjacency};
}

double* doubles(const Tensor& tensor) { return static_cast<double*>(tensor.mutable_data_ptr()); }

void check_place(const Tensor& folded, const Tensor& norms, int64_t place) {
  check_rows("norms", norms, 2 * folded.size(0), folded.size(2));
  STD_TORCH_CHECK(folded.size(1) == kFolded && folded.scalar_type() == ScalarType::Double,
                  "folded must be (P, 5, C) in float64");
  STD_TORCH_CHECK(0 <= place && place < folded.size(0), "place must be a norm, got ", place);
}

void block_fold(const Tensor& sums, const Tensor& norms, const Tensor& running, int64_t place,
                int64_t rows, double eps, const Tensor& folded, const Tensor& moments) {
  const int64_t channels = folded.size(2);
  check_place(folded, norms, place);
  check_rows("sums", sums, 2, channels);
  check_rows("running", running, norms.size(0), channels);
  check_rows("moments", moments, norms.size(0), channels);
  const auto found = fold(NumberRows(sums), NumberRows(norms), NumberRows(running), place, rows,
                          eps, channels, doubles(folded) + place * kFolded * channels);
  write_rows(moments, 2 * place, found);
}

Tensor block_norm_backward(const Tensor& folded, const Tensor& sums, const Tensor& total,
                           int64_t place, const Tensor& of_norms) {
  const int64_t channels = folded.size(2), first = place * kFolded;
  check_place(folded, of_norms, place);
  check_rows("sums", sums, 2, channels);
  check_rows("total", total, 2, channels);
  const NumberRows of_folded(folded), of_sums(sums);
  std::vector<double> gradients(2 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    const NormGradient gradient(of_folded, first, of_sums, c);
    gradients[c] = gradient.weight;
    gradients[channels + c] = gradient.bias;
  }
  write_rows(of_norms, 2 * place, gradients);
  const Tensor out = empty(sums, {3, channels}, ScalarType::Double);
  norm_coefficients(of_folded, first, NumberRows(total), channels, doubles(out));
  return out;
}

Tensor block_output(const Tensor& h, const Tensor& scale, const Tensor& shift,
                    const OptionalTensor& residual, const OptionalTensor& r_scale,
                    const OptionalTensor& r_shift, double dropout, const OptionalTensor& seed,
                    int64_t block) {
  if (residual) check_rows("residual", *residual, h.size(0), h.size(1));
  const Tensor y = empty(h, {h.size(0), h.size(1)}, h.scalar_type());
  with_number_type(h, [&]<class S>(S*) {
    const NormRows<S> r_norm = r_scale && r_shift ? NormRows<S>(*r_scale, *r_shift) : NormRows<S>();
    output(Output<S>(h, residual, dropout, seed, block), NormRows<S>(scale, shift), r_norm,
           Matrix<S>(y));
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> block_output_backward(const Tensor& dy, const Tensor& y,
                                                         const Tensor& h,
                                                         const OptionalTensor& residual,
                                                         double dropout, const OptionalTensor& seed,
                                                         int64_t block) {
  check_rows("dy", dy, h.size(0), h.size(1));
  check_rows("y", y, h.size(0), h.size(1));
  if (residual) check_rows("residual", *residual, h.size(0), h.size(1));
  const Tensor d = empty(h, {h.size(0), h.size(1)}, h.scalar_type());
  const Tensor z = empty(h, {residual ? h.size(0) : 0, h.size(1)}, h.scalar_type());
  const Tensor statistics = empty(h, {4, h.size(1)}, ScalarType::Double);
  with_number_type(h, [&]<class S>(S*) {
    const Output<S> from(h, residual, dropout, seed, block);
    const auto sums =
        output_gradient(from, Matrix<S>(dy), Matrix<S>(y), Matrix<S>(d), Matrix<S>(z));
    assign_sums(statistics, sums, from.width);
  });
  return {d, z, statistics};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("block_graph_conv", TORCH_BOX(&block_graph_conv));
  m.impl("block_graph_conv_backward", TORCH_BOX(&block_graph_conv_backward));
  m.impl("block_fold", TORCH_BOX(&block_fold));
  m.impl("block_norm_backward", TORCH_BOX(&block_norm_backward));
  m.impl("block_output", TORCH_BOX(&block_output));
  m.impl("block_output_backward", TORCH_BOX(&block_output_backward));
}
