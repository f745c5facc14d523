// The lines of a text, and where the fields of each begin.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace skeleton_io {

struct Line {
  const char* begin;       // of the line, blanks included
  const char* last_field;  // where it begins; only if there are fields
  int64_t fields = 0;
};

// A bit for each of 64 bytes.
struct Classes {
  uint64_t blank = 0;  // line feeds among them
  uint64_t line_feed = 0;
};

#ifdef __SSE2__
inline Classes classify(const char* bytes) {
  Classes found;
  for (int i = 0; i < 4; ++i) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + i);
    const __m128i above = _mm_sub_epi8(part, _mm_set1_epi8('\t'));  // \t to \r are 0 to 4
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8(4)), above);
    const __m128i blank = _mm_or_si128(control, _mm_cmpeq_epi8(part, _mm_set1_epi8(' ')));
    const __m128i line_feed = _mm_cmpeq_epi8(part, _mm_set1_epi8('\n'));
    found.blank |= uint64_t(_mm_movemask_epi8(blank)) << (16 * i);
    found.line_feed |= uint64_t(_mm_movemask_epi8(line_feed)) << (16 * i);
  }
  return found;
}
#else
inline Classes classify(const char* bytes) {
  Classes found;
  for (int i = 0; i < 64; ++i) {
    const char c = bytes[i];
    found.blank |= uint64_t(c == ' ' || (c >= '\t' && c <= '\r')) << i;
    found.line_feed |= uint64_t(c == '\n') << i;
  }
  return found;
}
#endif

class Lines {
 public:
  explicit Lines(std::string_view text) : next_(text.data()), end_(next_ + text.size()) {}

  bool done() const { return next_ == end_; }
  const char* next() const { return next_; }
  const char* end() const { return end_; }
  void go_to(const char* next) { next_ = next; }  // the beginning of a line

  // The next line, of which there must be one.
  Line take() {
    Line line{.begin = next_, .last_field = next_};
    uint64_t after_blank = 1;  // so is the first byte
    for (const char* block = next_;; block += 64) {
      const Classes found = classes(block);
      // From the line's first byte to its line feed.
      const uint64_t inside = found.line_feed ^ (found.line_feed - 1);
      const uint64_t begins = ~found.blank & (found.blank << 1 | after_blank) & inside;
      line.fields += std::popcount(begins);
      if (begins) line.last_field = block + 63 - std::countl_zero(begins);
      if (found.line_feed) {
        next_ = std::min(block + std::countr_zero(found.line_feed) + 1, end_);
        return line;
      }
      after_blank = found.blank >> 63;
    }
  }

 private:
  // Past its end the text goes on in line feeds.
  Classes classes(const char* block) const {
    if (end_ - block >= 64) return classify(block);
    char padded[64];
    std::memset(padded, '\n', 64);
    std::memcpy(padded, block, end_ - block);
    return classify(padded);
  }

  const char* next_;
  const char* end_;
};

}  // namespace skeleton_io
