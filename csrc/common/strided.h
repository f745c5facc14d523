#pragma once

#include <cstdint>

namespace msclr {

// A matrix whose element (i, j) is at data[i * rows + j * columns].
template <class S>
struct Strided {
  const S* data;
  int64_t rows, columns;
};

}  // namespace msclr
