// The fields of a .skeleton file's lines, one line after the other; refuses what breaks the grammar
// in the words of msclr/data/skeleton/plain.py.
#pragma once

#include <algorithm>
#include <string>

#include "clip.h"
#include "lines.h"
#include "number.h"
#include "usual_joints.h"

namespace skeleton_io {

// A larger count is taken as this: no file has that many lines.
constexpr int64_t kMostCounted = 1'000'000'000'000'000'000;

// Text of a file as a message shows it: one line, printable and short.
inline std::string shown(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 40)) out += c > 32 && c < 127 ? c : '?';
  return out + (text.size() > 40 ? "...'" : "'");
}

class Fields {
 public:
  Fields(std::string_view text, bool simd) : lines_(text), simd_(simd && has_usual_joints()) {}

  // Messages name the frame from now on, the first being 0.
  void in_frame(int64_t frame, int64_t frames) { frame_ = frame + 1, frames_ = frames; }

  // The next line, which must have `count` fields.
  Line line(int count, const char* wanted) {
    ++number_;
    if (lines_.done()) refuse("the file ends", wanted);
    const Line line = lines_.take();
    if (line.fields != count) refuse_fields(line.fields, wanted);
    return line;
  }

  // The next line, a whole number.
  int64_t count(const char* wanted) {
    const std::string_view text = field(line(1, wanted).last_field);
    if (!is_whole(text)) refuse(shown(text), wanted);
    return whole(text);
  }

  // Of the next line: digits without leading zeros.
  std::string_view body_id() {
    const std::string_view text = field(skip_blanks(line(10, "the 10 fields of a body").begin));
    if (!is_whole(text)) refuse(shown(text), "a body id, a whole number");
    return text.substr(std::min(text.find_first_not_of('0'), text.size() - 1));
  }

  // The number of a field at or after `p`, which ends up at the field's end.
  float number(const char*& p, int which) const {
    p = skip_blanks(p);
    if (lines_.end() - p >= 16) {
      double value;
      const char* stop = parse_usual_number(p, value);
      if (stop && is_blank(*stop)) {
        p = stop;
        return static_cast<float>(value);
      }
    }
    const std::string_view text = field(p);
    p += text.size();
    return unusual_number(text, which);
  }

  // Takes joint lines while they are of the usual form, `most` at most: how many. Not before a
  // body's line, which is longer than the 16 bytes that are read before p.
  int usual_joints(int most, float* xyz, uint8_t* tracking) {
    if (!simd_) return 0;
    const char* p = lines_.next();
    const int read = read_usual_joints(p, lines_.end(), most, xyz, tracking);
    lines_.go_to(p);
    number_ += read;
    return read;
  }

  uint8_t tracking(const char* begin) const {
    const unsigned digit = static_cast<unsigned char>(*begin) - '0';
    if (digit < 10 && (begin + 1 == lines_.end() || is_blank(begin[1]))) return digit;
    const std::string_view text = field(begin);
    const int64_t state = is_whole(text) ? whole(text) : kMostCounted;
    if (state > 255) refuse(shown(text), "a whole number up to 255 for the tracking state");
    return static_cast<uint8_t>(state);
  }

  // Nothing but blank lines may follow.
  void end(int64_t frames) {
    frames_ = 0;
    while (!lines_.done()) {
      ++number_;
      const Line line = lines_.take();
      if (line.fields == 0) continue;
      const std::string wanted = "the end of the file after " + std::to_string(frames) + " frames";
      refuse(shown(field(skip_blanks(line.begin))), wanted);
    }
  }

  [[noreturn]] void refuse(const std::string& came, const std::string& wanted) const {
    std::string text = std::to_string(number_) + ": " + came + "; wanted " + wanted;
    if (frames_) {
      text += " (frame " + std::to_string(frame_) + " of " + std::to_string(frames_) + ")";
    }
    throw Refused(text);
  }

 private:
  [[noreturn]] void refuse_fields(int64_t count, const char* wanted) const {
    const char* plural = count > 1 ? " fields" : " field";
    refuse(count ? std::to_string(count) + plural : "a blank line", wanted);
  }

  [[gnu::noinline]] float unusual_number(std::string_view text, int which) const {
    static constexpr const char* kNames[] = {"x", "y", "z", "depthX", "depthY", "colorX", "colorY"};
    const auto value = parse_any_number(text.data(), text.data() + text.size());
    if (!value) refuse(shown(text), std::string("a number for ") + kNames[which]);
    return static_cast<float>(*value);
  }

  std::string_view field(const char* begin) const {
    return {begin, std::find_if(begin, lines_.end(), is_blank)};
  }

  // There must be another field.
  static const char* skip_blanks(const char* p) {
    while (is_blank(*p)) ++p;
    return p;
  }

  static bool is_whole(std::string_view text) {
    return std::all_of(text.begin(), text.end(), is_digit);
  }

  static int64_t whole(std::string_view digits) {
    uint64_t value = 0;  // ten times the most fits as well
    for (const char c : digits) value = std::min<uint64_t>(kMostCounted, 10 * value + (c - '0'));
    return static_cast<int64_t>(value);
  }

  Lines lines_;
  bool simd_;
  int64_t number_ = 0;  // of the line last taken, from 1
  int64_t frame_ = 0, frames_ = 0;
};

}  // namespace skeleton_io
