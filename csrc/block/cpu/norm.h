#pragma once
// Batch norms of a few channels: what becomes of a norm's sums, forward and backward. In double.

#include <cmath>
#include <vector>

#include "../../common/elements.h"

namespace msclr::block_cpu {

// A norm with its statistics known, each number per channel: y = h * scale + shift.
enum Folded { kMean, kReciprocal, kScale, kShift, kRows, kFolded };

// A matrix (R, C), or several (N, R, C), of any floating point type, as rows of numbers.
class NumberRows {
 public:
  explicit NumberRows(const Tensor& tensor)
      : numbers_(values<double>(tensor, "norms")), columns_(tensor.size(tensor.dim() - 1)) {}
  double operator()(int64_t row, int64_t c) const { return numbers_[row * columns_ + c]; }

 private:
  std::vector<double> numbers_;
  int64_t columns_;
};

// Two rows of numbers from row `first` on of a contiguous matrix of any floating point type.
inline void write_rows(const Tensor& to, int64_t first, const std::vector<double>& numbers) {
  dispatch(to.scalar_type(), "norms", [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* at = static_cast<T*>(to.mutable_data_ptr()) + first * to.size(1);
    for (size_t i = 0; i < numbers.size(); ++i) at[i] = static_cast<T>(numbers[i]);
  });
}

// The norm number `place` of a block, from the sums of h and of h^2 over `rows` rows; with its
// running statistics where rows is 0. Returns the mean and the unbiased variance, two rows.
inline std::vector<double> fold(const NumberRows& sums, const NumberRows& norms,
                                const NumberRows& running, int64_t place, int64_t rows, double eps,
                                int64_t channels, double* folded) {
  std::vector<double> moments(2 * channels);
  const double n = static_cast<double>(rows);
  for (int64_t c = 0; c < channels; ++c) {
    double mean = running(2 * place, c), variance = running(2 * place + 1, c), unbiased = variance;
    if (rows > 0) {
      mean = sums(0, c) / n;
      const double centred = sums(1, c) / n - mean * mean;
      variance = centred < 0 ? 0 : centred;  // NaN stays NaN
      unbiased = variance * n / (rows > 1 ? n - 1 : 1);
    }
    const double reciprocal = 1 / std::sqrt(variance + eps),
                 scale = norms(2 * place, c) * reciprocal;
    const double made[kFolded] = {mean, reciprocal, scale, norms(2 * place + 1, c) - mean * scale,
                                  n};
    for (int i = 0; i < kFolded; ++i) folded[i * channels + c] = made[i];
    moments[c] = mean;
    moments[channels + c] = unbiased;
  }
  return moments;
}

// The gradients of a norm's weight and bias in channel c, from the sums of d and of d h.
struct NormGradient {
  double weight, bias;
  NormGradient(const NumberRows& folded, int64_t first, const NumberRows& sums, int64_t c)
      : weight(folded(first + kReciprocal, c) *
               (sums(1, c) - folded(first + kMean, c) * sums(0, c))),
        bias(sums(0, c)) {}
};

// Of the folded norm from row `first` on: alpha, beta and gamma (3, C) of the gradient alpha d +
// beta h + gamma, from the sums over all rows. Where statistics are constants, it is scale * d.
inline void norm_coefficients(const NumberRows& folded, int64_t first, const NumberRows& sums,
                              int64_t channels, double* out) {
  for (int64_t c = 0; c < channels; ++c) {
    const NormGradient gradient(folded, first, sums, c);
    const double rows = folded(first + kRows, c), scale = folded(first + kScale, c),
                 factor = rows > 0 ? scale / rows : 0;
    const double beta = -factor * folded(first + kReciprocal, c) * gradient.weight;
    out[c] = scale;
    out[channels + c] = beta;
    out[2 * channels + c] = -factor * gradient.bias - beta * folded(first + kMean, c);
  }
}

}  // namespace msclr::block_cpu
