// Joint lines of the usual form with AVX-512, twice as fast as field by field. Only a line that
// parse.cpp would take is taken, with the same result; all others are left to it, errors too.
#pragma once

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define SKELETON_IO_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2,lzcnt,popcnt")))
#endif

namespace skeleton_io {

#ifdef SKELETON_IO_AVX512

inline bool has_usual_joints() {
  static const bool has = __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2");
  return has;
}

// Where in a line the three numbers and the tracking state are.
struct UsualJoint {
  unsigned end[3];       // of x, y and z
  unsigned size[3];      // bytes of each without its sign
  unsigned decimals[3];  // digits behind the point
  unsigned negative;     // a bit each
  unsigned tracking;
  int length;  // of the line, line feed included
};

SKELETON_IO_AVX512 inline __m512i everywhere(char c) {
  __m512i bytes = _mm512_set1_epi8(c);
  asm("" : "+v"(bytes));  // else GCC makes it again for every line, a sixth of the time
  return bytes;
}

// What stays in registers from line to line.
struct Constants {
  __m512i point, minus, zero, nine;
};

// Looks at 128 bytes from p. False where the line is not of the usual form: 12 fields within them,
// x y z at the very beginning and within 64 bytes, each [-] digits . digits with no more than 16
// bytes behind the sign, the tracking state one digit.
SKELETON_IO_AVX512 inline bool find_usual_joint(const char* p, const Constants& all,
                                                UsualJoint& line) {
  const __m512i low = _mm512_loadu_si512(p), high = _mm512_loadu_si512(p + 64);
  // Blank is what this table holds at the place of its own low four bits: space, \t to \r.
  const __m512i blanks = _mm512_broadcast_i32x4(
      _mm_setr_epi8(' ', 0, 0, 0, 0, 0, 0, 0, 0, '\t', '\n', '\v', '\f', '\r', 0, 0));
  const uint64_t blank = _mm512_cmpeq_epi8_mask(low, _mm512_shuffle_epi8(blanks, low));
  const uint64_t blank_high = _mm512_cmpeq_epi8_mask(high, _mm512_shuffle_epi8(blanks, high));
  const uint64_t feed = _mm512_cmpeq_epi8_mask(low, _mm512_set1_epi8('\n'));
  const uint64_t feed_high = feed ? 1 : _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8('\n'));
  if (!feed_high) return false;
  line.length = feed ? int(_tzcnt_u64(feed)) + 1 : int(_tzcnt_u64(feed_high)) + 65;

  // Where fields begin, up to the line feed.
  const uint64_t begins = ~blank & (blank << 1 | 1) & _blsmsk_u64(feed);
  const uint64_t begins_high =
      ~blank_high & (blank_high << 1 | blank >> 63) & (_blsmsk_u64(feed_high) >> 1);
  if (_mm_popcnt_u64(begins) + _mm_popcnt_u64(begins_high) != 12) return false;
  const int last = begins_high ? 127 - int(_lzcnt_u64(begins_high)) : 63 - int(_lzcnt_u64(begins));
  const char behind = p[last + 1];
  line.tracking = static_cast<unsigned char>(p[last]) - '0';
  if (line.tracking > 9 || (behind != '\n' && behind != '\r' && behind != ' ')) return false;

  // The first three: digits, a point each, minus signs in front.
  const uint64_t ends = blank & ~(blank << 1), ends_y = _blsr_u64(ends), ends_z = _blsr_u64(ends_y);
  const uint64_t numbers = _blsmsk_u64(ends_z);
  const uint64_t digit = _mm512_cmple_epu8_mask(_mm512_sub_epi8(low, all.zero), all.nine);
  const uint64_t minus = _mm512_cmpeq_epi8_mask(low, all.minus) & begins;
  const uint64_t points = _mm512_cmpeq_epi8_mask(low, all.point) & numbers;
  if (!(begins & 1) || !ends_z || _mm_popcnt_u64(points) != 3 ||
      (numbers & ~(digit | minus | points | blank))) {
    return false;
  }
  line.negative = _pext_u64(minus, begins) & 7;
  uint64_t begin = begins, end = ends, point = points;
  for (int i = 0; i < 3; ++i) {
    const unsigned first = unsigned(_tzcnt_u64(begin)) + (line.negative >> i & 1);
    line.end[i] = unsigned(_tzcnt_u64(end));
    line.size[i] = line.end[i] - first;
    line.decimals[i] = line.end[i] - unsigned(_tzcnt_u64(point)) - 1;
    // As these have no sign, what would be below 0 is far above.
    if (line.size[i] - 2 > 14 || line.decimals[i] >= line.size[i]) return false;
    begin = _blsr_u64(begin), end = _blsr_u64(end), point = _blsr_u64(point);
  }
  return true;
}

// By size and number of decimals: the shuffle that closes the gap of the point in 16 bytes of which
// the last is the last digit, and puts 0 before the number.
struct CloseGap {
  alignas(64) uint8_t order[17][16][16];
  constexpr CloseGap() : order() {
    for (int size = 2; size <= 16; ++size) {
      for (int decimals = 0; decimals < size; ++decimals) {
        for (int i = 0; i < 16; ++i) {
          const int from = i > 15 - decimals ? i : i - 1;
          order[size][decimals][i] = i > 16 - size ? from : 0x80;
        }
      }
    }
  }
};

SKELETON_IO_AVX512 inline __m512i load_lanes(const void* x, const void* y, const void* z) {
  const auto* at = static_cast<const __m128i*>(x);
  const __m512i lanes = _mm512_castsi128_si512(_mm_loadu_si128(at));
  at = static_cast<const __m128i*>(y);
  const __m512i two = _mm512_inserti32x4(lanes, _mm_loadu_si128(at), 1);
  at = static_cast<const __m128i*>(z);
  return _mm512_inserti32x4(two, _mm_loadu_si128(at), 2);
}

// Three numbers at once, a 128-bit lane each. Reads 16 bytes up to where each ends.
SKELETON_IO_AVX512 inline void convert(const char* p, const UsualJoint& line, const Constants& all,
                                       float* xyz) {
  static constexpr CloseGap close_gap;
  static constexpr double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                      1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
  const auto& [end, size, decimals, negative, tracking, length] = line;
  const auto& order = close_gap.order;
  __m512i text = load_lanes(p + end[0] - 16, p + end[1] - 16, p + end[2] - 16);
  text =
      _mm512_shuffle_epi8(text, load_lanes(order[size[0]][decimals[0]], order[size[1]][decimals[1]],
                                           order[size[2]][decimals[2]]));
  text = _mm512_subs_epu8(text, all.zero);

  // From 16 digits to 8 numbers of two, to 4 of four, to 2 of eight, to one.
  const __m512i twos = _mm512_maddubs_epi16(text, _mm512_set1_epi16(1 << 8 | 10));
  const __m512i fours = _mm512_madd_epi16(twos, _mm512_set1_epi32(1 << 16 | 100));
  const __m512i eights =
      _mm512_madd_epi16(_mm512_packus_epi32(fours, fours), _mm512_set1_epi32(1 << 16 | 10000));
  const __m512i whole = _mm512_add_epi64(_mm512_mul_epu32(eights, _mm512_set1_epi64(100000000)),
                                         _mm512_srli_epi64(eights, 32));
  // At most 15 digits and a power of ten up to 10^15, both exact: one rounding, as float() does.
  const __m256d dividend = _mm256_cvtepi64_pd(_mm512_castsi512_si256(
      _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 0, 0, 0, 0, 0), whole)));
  const __m256d divisor =
      _mm256_setr_pd(powers[decimals[0]], powers[decimals[1]], powers[decimals[2]], 1);
  const __m256d value = _mm256_div_pd(dividend, divisor);
  const auto minus = static_cast<__mmask8>(negative);
  _mm_mask_storeu_ps(
      xyz, 7, _mm256_cvtpd_ps(_mm256_mask_xor_pd(value, minus, value, _mm256_set1_pd(-0.0))));
}

// As many joints as are of the usual form, up to `most`: how many, and p past their lines. The 16
// bytes before p must be of the same text.
SKELETON_IO_AVX512 inline int read_usual_joints(const char*& p, const char* end, int most,
                                                float* xyz, uint8_t* tracking) {
  int read = 0;
  const Constants all{everywhere('.'), everywhere('-'), everywhere('0'), everywhere(9)};
  for (UsualJoint line; read < most && end - p >= 128; ++read) {
    if (!find_usual_joint(p, all, line)) break;
    convert(p, line, all, xyz + 3 * read);
    tracking[read] = static_cast<uint8_t>(line.tracking);
    p += line.length;
  }
  return read;
}

#else

inline bool has_usual_joints() { return false; }
inline int read_usual_joints(const char*&, const char*, int, float*, uint8_t*) { return 0; }

#endif

}  // namespace skeleton_io
