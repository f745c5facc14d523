// Numbers of a text: exactly what Python's float() makes of them.
#pragma once

#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>

namespace skeleton_io {

// What bytes.split() takes for white space; a line feed ends a line besides.
inline bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

inline bool is_digit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

inline const char* skip_digits(const char* p, const char* end) {
  while (p < end && is_digit(*p)) ++p;
  return p;
}

// Whether [p, end) is just `word`, which is in lower case, in any case.
inline bool is_word(const char* p, const char* end, const char* word) {
  for (; p < end && *word; ++p, ++word) {
    if ((*p | 0x20) != *word) return false;
  }
  return p == end && !*word;
}

// An unsigned number of digits, a point and an exponent that double cannot hold: infinity or 0.
inline double out_of_range(const char* p, const char* end) {
  constexpr int64_t kFar = int64_t{1} << 40;
  while (p < end && *p == '0') ++p;
  const char* whole = p;
  p = skip_digits(p, end);
  int64_t magnitude = p - whole;  // powers of ten up to the first digit that counts
  if (p < end && *p == '.') {
    const char* fraction = ++p;
    while (magnitude == 0 && p < end && *p == '0') ++p;
    if (magnitude == 0) magnitude = fraction - p;
    p = skip_digits(p, end);
  }
  if (p < end) {
    const bool negative = *++p == '-';
    int64_t exponent = 0;
    for (p += *p == '-' || *p == '+'; p < end && exponent < kFar; ++p) {
      exponent = 10 * exponent + (*p - '0');
    }
    magnitude += negative ? -exponent : exponent;
  }
  return magnitude > 0 ? std::numeric_limits<double>::infinity() : 0.0;
}

// Any number of the grammar (msclr/data/skeleton/__init__.py) that fills [p, end); nothing where it
// is none.
inline std::optional<double> parse_any_number(const char* p, const char* end) {
  const bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) ++p;
  double value = 0;
  if (is_word(p, end, "nan")) {
    value = std::numeric_limits<double>::quiet_NaN();
  } else if (is_word(p, end, "inf") || is_word(p, end, "infinity")) {
    value = std::numeric_limits<double>::infinity();
  } else {
    const char* mantissa = p;
    const char* q = skip_digits(p, end);
    int64_t digits = q - p;
    if (q < end && *q == '.') {
      p = q + 1;
      q = skip_digits(p, end);
      digits += q - p;
    }
    if (digits == 0) return std::nullopt;
    if (q < end) {
      if ((*q | 0x20) != 'e') return std::nullopt;
      ++q;
      if (q < end && (*q == '-' || *q == '+')) ++q;
      if (q == end || skip_digits(q, end) != end) return std::nullopt;
    }
    const auto done = std::from_chars(mantissa, end, value);
    if (done.ec == std::errc::result_out_of_range) value = out_of_range(mantissa, end);
  }
  return negative ? -value : value;
}

// The eight digits in the bytes of `digits` (each 0 to 9, the first in the lowest byte) as a
// number.
inline uint64_t eight_digits(uint64_t digits) {
  digits = digits * 10 + (digits >> 8);  // pairs, in every other byte
  constexpr uint64_t kPairs = 0x000000FF000000FF;
  constexpr uint64_t kHundredAndMillion = 100 + (uint64_t{1000000} << 32);
  constexpr uint64_t kOneAndTenThousand = 1 + (uint64_t{10000} << 32);
  return ((digits & kPairs) * kHundredAndMillion + (digits >> 16 & kPairs) * kOneAndTenThousand) >>
         32;
}

// The form in which nearly all numbers come: [-] d.d, up to dddddd.dddddddd. Reads 16 bytes from p,
// and says where the number ends; nothing where it is of another form.
inline const char* parse_usual_number(const char* p, double& value) {
  static_assert(std::endian::native == std::endian::little);
  static constexpr double kPowers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8};
  const bool negative = *p == '-';
  p += negative;
  const char* digits = p;
  uint64_t whole = 0;
  while (is_digit(*p) && p < digits + 6) whole = 10 * whole + (*p++ - '0');
  if (p == digits || *p != '.') return nullptr;
  uint64_t bytes;
  std::memcpy(&bytes, ++p, 8);
  bytes ^= 0x3030303030303030;  // digits are 0 to 9 now
  const uint64_t others = ((bytes + 0x7676767676767676) | bytes) & 0x8080808080808080;
  const int count = std::countr_zero(others) / 8;  // of digits
  if (count == 0) return nullptr;
  const uint64_t fraction = eight_digits(bytes << (64 - 8 * count));  // zeros lead
  const double power = kPowers[count];
  // All are whole and below 2^53, so the quotient is rounded once, as float() does.
  const double magnitude = (whole * power + static_cast<double>(fraction)) / power;
  // Not `negative ? -magnitude : magnitude`, a branch that is wrong every other time.
  value = std::bit_cast<double>(std::bit_cast<uint64_t>(magnitude) | uint64_t{negative} << 63);
  return p + count;
}

}  // namespace skeleton_io
