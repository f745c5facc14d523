#pragma once
// Batch norms of a few channels: what becomes of a norm's sums, forward and backward. In double.

#include <cmath>
#include <vector>

#include "../../common/elements.h"

namespace msclr::block_cpu {

// A norm with its statistics known, each number a channel: y = h * scale + shift.
enum Folded { kMean, kReciprocal, kScale, kShift, kRows, kFolded };

// The rows of a matrix (R, C) of any floating point type.
class NumberRows {
 public:
  explicit NumberRows(const Tensor& tensor)
      : numbers_(values<double>(tensor, "norms")), columns_(tensor.size(1)) {}
  double operator()(int64_t row, int64_t c) const { return numbers_[row * columns_ + c]; }

 private:
  std::vector<double> numbers_;
  int64_t columns_;
};

// The norm number `place` of a block, from the sums of h and of h^2 over `rows` rows; with its
// running statistics where there are none or rows is 0. `moments` (2, C) gets the mean and the
// unbiased variance.
inline void fold(const NumberRows& sums, const NumberRows& norms, const NumberRows& running,
                 int64_t place, int64_t rows, double eps, int64_t channels, double* folded,
                 double* moments) {
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
}

// The gradients of a norm's weight and bias (2, C), from the sums of d and of d h.
inline void norm_gradient(const NumberRows& folded, const NumberRows& sums, int64_t channels,
                          double* out) {
  for (int64_t c = 0; c < channels; ++c) {
    out[c] = folded(kReciprocal, c) * (sums(1, c) - folded(kMean, c) * sums(0, c));
    out[channels + c] = sums(0, c);
  }
}

// alpha, beta and gamma (3, C) of the gradient alpha d + beta h + gamma, from what norm_gradient
// makes of all rows. Where statistics are constants, that is scale * d.
inline void norm_coefficients(const NumberRows& folded, const NumberRows& gradient,
                              int64_t channels, double* out) {
  for (int64_t c = 0; c < channels; ++c) {
    const double rows = folded(kRows, c), factor = rows > 0 ? folded(kScale, c) / rows : 0;
    const double beta = -factor * folded(kReciprocal, c) * gradient(0, c);
    out[c] = folded(kScale, c);
    out[channels + c] = beta;
    out[2 * channels + c] = -factor * gradient(1, c) - beta * folded(kMean, c);
  }
}

}  // namespace msclr::block_cpu
