#pragma once
// The end of a block, y = relu(dropout(h scale + shift) + residual), and its gradient: one pass
// each. Rows are taken 64 at a time, on as many threads as there are; sums are added up in order.

#include <optional>

#include "../../common/parallel.h"
#include "../../temporal_conv/cpu/operands.h"
#include "dropout.h"

namespace msclr::block_cpu {

using temporal_conv_cpu::Matrix;
using temporal_conv_cpu::padded;
using temporal_conv_cpu::Part;
using temporal_conv_cpu::TileSums;
using OptionalTensor = std::optional<Tensor>;

// A batch norm with its statistics known, as two rows of numbers.
template <class S>
class NormRows {
 public:
  NormRows() = default;
  NormRows(const Tensor& scale, const Tensor& shift) {
    numbers_ = padded<S>(scale, "scale");
    width_ = std::ssize(numbers_);
    const std::vector<S> more = padded<S>(shift, "shift");
    numbers_.insert(numbers_.end(), more.begin(), more.end());
  }
  RowsAt<const S> rows() const { return {width_ ? numbers_.data() : nullptr, width_}; }

 private:
  std::vector<S> numbers_;
  int64_t width_ = 0;
};

// Scratch rows of a tile, for matrices whose columns are no whole vectors or of another type.
template <class S>
class RowBuffer {
 public:
  explicit RowBuffer(int64_t width) : rows_(Dropout<S>::kRows * width) {}
  operator S*() const { return rows_.get(); }

 private:
  Buffer<S> rows_;
};

// body(first, last) over shares of the tiles of 64 rows.
template <class S, class F>
void in_tiles(int64_t rows, const F& body) {
  constexpr int64_t kGrain = 4;
  torch::stable::parallel_for(0, (rows + Dropout<S>::kRows - 1) / Dropout<S>::kRows, kGrain, body);
}

template <class S>
Part rows_of_tile(int64_t i, int64_t rows, int64_t width) {
  constexpr int64_t kRows = Dropout<S>::kRows;
  return {i * kRows, std::min(kRows, rows - i * kRows), 1, 0, width};
}

// What both passes are given. Without a residual r is not read.
template <class S>
struct Output {
  Matrix<S> h, r;
  bool has_residual;
  int64_t rows, columns, width;
  double dropout;
  uint64_t seed;
  int64_t block;

  Output(const Tensor& of_h, const OptionalTensor& residual, double p, const OptionalTensor& of,
         int64_t number)
      : h(of_h),
        r(residual ? *residual : of_h),
        has_residual(residual),
        rows(of_h.size(0)),
        columns(of_h.size(1)),
        width(round_up(columns, temporal_conv_cpu::kernels<S>().lanes)),
        dropout(p),
        seed(of ? integers(*of)[0] : 0),
        block(number) {}

  Dropout<S> make_dropout() const { return {dropout, seed, block, columns}; }
  RowsAt<const S> residual(const Part& part, S* buffer) const {
    return has_residual ? r.read(part, buffer) : RowsAt<const S>{nullptr, 0};
  }
};

template <class S>
void output(const Output<S>& from, const NormRows<S>& norm, const NormRows<S>& r_norm,
            const Matrix<S>& y) {
  in_tiles<S>(from.rows, [&](int64_t begin, int64_t end) {
    const Dropout<S> dropout = from.make_dropout();
    const RowBuffer<S> of_h(from.width), of_r(from.width), of_y(from.width);
    for (int64_t i = begin; i < end; ++i) {
      const Part part = rows_of_tile<S>(i, from.rows, from.width);
      kernels<S>().output(part.count, from.width, from.h.read(part, of_h), norm.rows(),
                          dropout.rows(part.row), from.residual(part, of_r), r_norm.rows(),
                          y.target(part, of_y));
      y.write(part, of_y);
    }
  });
}

// `z` is the gradient of the residual, written where there is one. Returns sums (4, width) of d,
// d h, z and z r.
template <class S>
std::vector<double> output_gradient(const Output<S>& from, const Matrix<S>& dy, const Matrix<S>& y,
                                    const Matrix<S>& d, const Matrix<S>& z) {
  constexpr int64_t kRows = Dropout<S>::kRows;
  TileSums sums((from.rows + kRows - 1) / kRows, 4 * from.width);
  in_tiles<S>(from.rows, [&](int64_t begin, int64_t end) {
    const Dropout<S> dropout = from.make_dropout();
    const RowBuffer<S> of_dy(from.width), of_y(from.width), of_h(from.width), of_r(from.width),
        of_d(from.width), of_z(from.width);
    std::vector<S> of_tile(4 * from.width, S(0));
    for (int64_t i = begin; i < end; ++i) {
      const Part part = rows_of_tile<S>(i, from.rows, from.width);
      const RowsAt<S> to_z = from.has_residual ? z.target(part, of_z) : RowsAt<S>{of_z, from.width};
      kernels<S>().output_gradient(part.count, from.width, dy.read(part, of_dy), y.read(part, of_y),
                                   from.h.read(part, of_h), dropout.rows(part.row),
                                   from.residual(part, of_r), d.target(part, of_d), to_z,
                                   {of_tile.data(), from.width});
      d.write(part, of_d);
      if (from.has_residual) z.write(part, of_z);
      sums.take(i, of_tile.data());
    }
  });
  std::vector<double> total(4 * from.width, 0.0);
  sums.add_to(total);
  return total;
}

}  // namespace msclr::block_cpu
