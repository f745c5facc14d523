#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace msclr::multi_view_cpu {

// sum_j c_j 2^x_j, held as 2^reference * sum.
struct PowerSum {
  double reference = std::numeric_limits<double>::lowest();
  double sum = 0;

  void add(double x, double count) {
    if (x > reference) {
      sum *= std::exp2(reference - x);
      reference = x;
    }
    sum += x == reference ? count : count * std::exp2(x - reference);
  }
  void add(const PowerSum& other) { add(other.reference, other.sum); }

  double log2() const { return reference + std::log2(sum); }
};

// The loss where the negatives' log-sum-exp exceeds the positive's logit by d: log(1 + e^d), exact
// also where that is tiny.
inline double softplus(double d) { return std::max(d, 0.0) + std::log1p(std::exp(-std::abs(d))); }

}  // namespace msclr::multi_view_cpu
