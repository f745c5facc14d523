#pragma once

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <cstdint>

namespace msclr {

// The words of a Philox counter that follow the number of the block, and the key. They are named by
// what augmented batches make of them.
struct Counter {
  uint32_t clip, epoch, purpose, key[2];
};

}  // namespace msclr
