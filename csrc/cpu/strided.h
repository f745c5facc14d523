#pragma once

#include <cstdint>

// A matrix whose element (i, j) stands at data[i * rows + j * columns].
template <class S>
struct Strided {
  const S* data;
  int64_t rows, columns;
};
