#pragma once
// What both algorithms are given: the tensors of a call in the form of the inner loops.

#include <vector>

#include "matrix.h"

namespace msclr::temporal_conv_cpu {

// Batch norm and relu in front of the convolution, one pair of numbers per channel.
template <class S>
struct Norm {
  std::vector<S> scale, shift;

  Norm(const Tensor& by, const Tensor& plus)
      : scale(padded<S>(by, "scale")), shift(padded<S>(plus, "shift")) {}

  // a = relu(x * scale + shift) of some rows, one after the other.
  void read(const Matrix<S>& x, const Part& part, S* a) const {
    kernels<S>().normalize(part.count, part.columns, x.read(part, a), scale.data(), shift.data(),
                           {a, part.columns});
  }
};

// The gradient of the convolution's output, g = alpha d + beta y + gamma.
template <class S>
struct OutputGradient {
  Matrix<S> d, y;
  std::vector<S> coefficients;  // (3, width)
  int64_t width;

  OutputGradient(const Tensor& d, const Tensor& y, const Tensor& of)
      : d(d), y(y), width(round_up(d.size(1), kernels<S>().lanes)) {
    const std::vector<S> given = values<S>(of, "coefficients");
    coefficients.resize(3 * width, S(0));
    for (int64_t i = 0; i < 3; ++i)
      std::copy_n(given.data() + i * d.size(1), d.size(1), coefficients.data() + i * width);
  }

  // g of some rows, one after the other; `scratch` has room for as many. Adds them to `sums`.
  void read(const Part& part, S* g, S* scratch, S* sums) const {
    kernels<S>().combine(part.count, part.columns, d.read(part, g), y.read(part, scratch),
                         {coefficients.data(), width}, {g, part.columns}, sums);
  }
};

// Sums over all rows, of each tile or chunk on its own and in double: added up in their order,
// whatever thread each ran on.
class TileSums {
 public:
  TileSums(int64_t tiles, int64_t size) : size_(size), sums_(tiles * size, 0.0) {}

  // Moves a tile's sums here: they are 0 then.
  template <class S>
  void take(int64_t tile, S* from) {
    double* to = sums_.data() + tile * size_;
    for (int64_t i = 0; i < size_; ++i) to[i] += from[i], from[i] = 0;
  }

  void add_to(std::vector<double>& total) const {
    for (size_t i = 0; i < sums_.size(); ++i) total[i % size_] += sums_[i];
  }

 private:
  int64_t size_;
  std::vector<double> sums_;
};

}  // namespace msclr::temporal_conv_cpu
