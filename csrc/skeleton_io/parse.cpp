// The format: frames, their bodies, their joints.
#include "bodies.h"
#include "clip.h"
#include "fields.h"

namespace skeleton_io {
namespace {

template <int kNumbers>
void read_joint(Fields& fields, float* numbers, uint8_t* tracking) {
  const Line line = fields.line(12, "the 12 fields of a joint");
  const char* p = line.begin;
  for (int i = 0; i < kNumbers; ++i) numbers[i] = fields.number(p, i);
  *tracking = fields.tracking(line.last_field);
}

void read_joints(Fields& fields, float* xyz, uint8_t* tracking) {
  for (int joint = 0; joint < kJoints; ++joint) {
    joint += fields.usual_joints(kJoints - joint, xyz + 3 * joint, tracking + joint);
    if (joint < kJoints) read_joint<3>(fields, xyz + 3 * joint, tracking + joint);
  }
}

void read_joints_with_pixels(Fields& fields, float* numbers, uint8_t* tracking) {
  for (int joint = 0; joint < kJoints; ++joint) {
    read_joint<7>(fields, numbers + 7 * joint, tracking + joint);
  }
}

// The UTF-8 byte-order mark that some editors write before a text.
std::string_view without_mark(std::string_view text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  return text.substr(text.starts_with(kMark) ? kMark.size() : 0);
}

void read_body(Fields& fields, Bodies& bodies, int64_t frame) {
  const std::string_view id = fields.body_id();
  if (!bodies.add(id, frame)) {
    fields.refuse("body " + shown(id) + " again", "each body once a frame");
  }
  const int64_t joints = fields.count("the number of joints");
  if (joints != kJoints) {
    fields.refuse(std::to_string(joints) + " joints", "the 25 of Kinect v2");
  }
  const auto read = bodies.with_pixels() ? read_joints_with_pixels : read_joints;
  read(fields, bodies.numbers(), bodies.tracking());
}

}  // namespace

Clip parse(std::string_view text, bool pixels, bool simd) {
  Fields fields(without_mark(text), simd);
  Bodies bodies(pixels);
  const int64_t frames = fields.count("the number of frames");
  for (int64_t frame = 0; frame < frames; ++frame) {
    fields.in_frame(frame, frames);
    const int64_t here = fields.count("the number of bodies");
    for (int64_t body = 0; body < here; ++body) read_body(fields, bodies, frame);
  }
  fields.end(frames);
  return bodies.clip(frames);
}

}  // namespace skeleton_io
