// Collects the bodies of a clip as they come, and lays them out as dense arrays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "clip.h"

namespace skeleton_io {

class Bodies {
 public:
  explicit Bodies(bool pixels) : pixels_(pixels) {}

  bool with_pixels() const { return pixels_; }

  // A body of a frame; false where that frame has it already. The id must outlive this.
  bool add(std::string_view id, int64_t frame) {
    const size_t row = row_of(id);
    if (last_frame_[row] == frame) return false;
    last_frame_[row] = frame;
    listed_.push_back({int64_t(row), frame});
    return true;
  }

  // Room for the joints of the body added last.
  float* numbers() { return grown(numbers_, kJoints * numbers_of_a_joint()); }
  uint8_t* tracking() { return grown(tracking_, kJoints); }

  Clip clip(int64_t frames) const;

 private:
  struct Listed {
    int64_t row, frame;
  };

  // The row of an id, a new one for a new id.
  size_t row_of(std::string_view id) {
    // Frames mostly list the same bodies in the same order.
    size_t row = next_row_ < ids_.size() ? next_row_ : 0;
    if (row == ids_.size() || ids_[row] != id) {
      const auto [found, is_new] = rows_.try_emplace(id, ids_.size());
      row = found->second;
      if (is_new) {
        ids_.push_back(id);
        last_frame_.push_back(-1);
      }
    }
    next_row_ = row + 1;
    return row;
  }

  template <class T>
  static T* grown(std::vector<T>& values, size_t count) {
    values.resize(values.size() + count);
    return values.data() + values.size() - count;
  }

  int numbers_of_a_joint() const { return pixels_ ? 7 : 3; }
  void refuse_sparse(int64_t frames) const;
  void copy_pixels(int64_t cell, const float* joints, Clip& clip) const;

  bool pixels_;
  std::unordered_map<std::string_view, size_t> rows_;
  size_t next_row_ = 0;                // after that of the body added last
  std::vector<std::string_view> ids_;  // of each row
  std::vector<int64_t> last_frame_;    // of each row
  std::vector<Listed> listed_;
  std::vector<float> numbers_;     // (listed, V, 3 or 7)
  std::vector<uint8_t> tracking_;  // (listed, V)
};

// A few kilobytes of frames without bodies and of ids that appear once could ask for gigabytes:
// the limits of plain.py.
inline void Bodies::refuse_sparse(int64_t frames) const {
  constexpr uint64_t kFreeCells = 1 << 18, kCellsPerBody = 16;
  const uint64_t rows = ids_.size(), bodies = listed_.size();
  if (rows * frames <= std::max(kFreeCells, kCellsPerBody * bodies)) return;
  throw Refused("1: " + std::to_string(rows) + " body ids over " + std::to_string(frames) +
                " frames, " + std::to_string(bodies) +
                " bodies in all; wanted fewer ids, in more frames each");
}

inline Clip Bodies::clip(int64_t frames) const {
  refuse_sparse(frames);
  const size_t cells = ids_.size() * frames;
  Clip clip;
  clip.ids.assign(ids_.begin(), ids_.end());
  clip.frames = frames;
  clip.present.resize(cells);
  clip.xyz.resize(cells * kJoints * 3);
  clip.tracking.resize(cells * kJoints);
  if (pixels_) clip.depth.resize(cells * kJoints * 2), clip.color.resize(cells * kJoints * 2);
  for (size_t i = 0; i < listed_.size(); ++i) {
    const int64_t cell = listed_[i].row * frames + listed_[i].frame;
    clip.present[cell] = 1;
    std::copy_n(&tracking_[i * kJoints], kJoints, &clip.tracking[cell * kJoints]);
    const float* joints = &numbers_[i * kJoints * numbers_of_a_joint()];
    if (pixels_) {
      copy_pixels(cell, joints, clip);
    } else {
      std::copy_n(joints, kJoints * 3, &clip.xyz[cell * kJoints * 3]);
    }
  }
  return clip;
}

inline void Bodies::copy_pixels(int64_t cell, const float* joints, Clip& clip) const {
  for (int64_t to = cell * kJoints; to < (cell + 1) * kJoints; ++to, joints += 7) {
    std::copy_n(joints, 3, &clip.xyz[to * 3]);
    std::copy_n(joints + 3, 2, &clip.depth[to * 2]);
    std::copy_n(joints + 5, 2, &clip.color[to * 2]);
  }
}

}  // namespace skeleton_io
