// What a .skeleton file holds, and reading it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace skeleton_io {

constexpr int kJoints = 25;

// Dense arrays over P bodies and T frames, zero where a body is absent.
struct Clip {
  std::vector<std::string> ids;   // P, in order of appearance, digits without leading zeros
  int64_t frames = 0;             // T
  std::vector<uint8_t> present;   // (P, T)
  std::vector<float> xyz;         // (P, T, V, 3)
  std::vector<uint8_t> tracking;  // (P, T, V)
  std::vector<float> depth;       // (P, T, V, 2), with pixels only
  std::vector<float> color;       // the same
};

// Text that is no .skeleton file: "LINE: what came; what was wanted".
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// `simd`: with AVX-512 where the processor has it, which changes nothing in the result.
Clip parse(std::string_view text, bool pixels, bool simd = true);

}  // namespace skeleton_io
