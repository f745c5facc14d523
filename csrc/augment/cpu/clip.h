#pragma once
// One view of one clip, body by body: what a body needs stays in the second-level cache.

#include <cstring>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/elements.h"
#include "../../common/half.h"
#include "kernels.h"

namespace msclr::augment_cpu {

enum StreamKind { kJoint, kMotion, kBone };

// What all clips of a batch share.
struct Batch {
  const char* clips;  // (N, M, T, V, 3)
  char* out;          // (B, M, T, V, 3)
  ScalarType stored, wanted;
  int64_t bodies, frames, joints;
  const int64_t *index, *numbers, *epochs;
  uint64_t seed;
  uint32_t purpose;
  View view;
  StreamKind stream;
  std::vector<int64_t> flip, parents;
  bool planar;
  Amounts amounts;

  int64_t row() const { return 3 * joints; }       // numbers of a frame
  int64_t body() const { return frames * row(); }  // numbers of a body
};

inline int64_t bytes_of(ScalarType type) { return type == ScalarType::Float ? 4 : 2; }

// The frame of a clip that is at t where its ends are continued by their mirror image.
inline int64_t mirrored(int64_t t, int64_t frames) {
  return t < 0 ? -1 - t : t >= frames ? 2 * frames - 1 - t : t;
}

class ClipMaker {
 public:
  explicit ClipMaker(const Batch& batch)
      : batch_(batch), size_(batch.body() + 2 * kReach * batch.row() + 3 * 16), memory_(4 * size_) {
    std::fill_n(memory_.get(), 4 * size_, 0.f);
  }

  void make(int64_t b) {
    const Counter counter = {
        static_cast<uint32_t>(batch_.numbers[b]),
        static_cast<uint32_t>(batch_.epochs[b]),
        batch_.purpose,
        {static_cast<uint32_t>(batch_.seed), static_cast<uint32_t>(batch_.seed >> 32)}};
    const Draws draws(batch_.view, counter, batch_.amounts, batch_.planar);
    for (int64_t m = 0; m < batch_.bodies; ++m) {
      const int64_t from = (batch_.index[b] * batch_.bodies + m) * batch_.body();
      const int64_t to = (b * batch_.bodies + m) * batch_.body();
      body(batch_.clips + from * bytes_of(batch_.stored), m, draws, counter,
           batch_.out + to * bytes_of(batch_.wanted));
    }
  }

 private:
  const Batch& batch_;
  const Kernels& kernels_ = kernels();
  const int64_t size_;
  Buffer<float> memory_;

  float* buffer(int i) const { return memory_.get() + i * size_; }

  void body(const char* from, int64_t m, const Draws& draws, const Counter& counter, char* to) {
    if (!present(from)) {
      std::memset(to, 0, batch_.body() * bytes_of(batch_.wanted));
      return;
    }
    const uint32_t block = kFirstNoiseBlock + static_cast<uint32_t>(m * batch_.body() / 3);
    float *x = buffer(0), *other = buffer(1);
    // The last step that writes every number writes to where the result goes, if it can.
    const bool as_made = batch_.stream == kJoint && batch_.wanted == ScalarType::Float &&
                         (!draws.blurred || batch_.row() >= kernels_.lanes);
    if (as_made) x = reinterpret_cast<float*>(to);
    if (draws.blurred) {
      crop(widened(from), draws, block, counter, other + kReach * batch_.row());
      repeat_ends(other);
      kernels_.blur(other, batch_.frames, batch_.row(), draws.taps, x);
    } else {
      crop(widened(from), draws, block, counter, x);
    }
    if (!as_made) write(streamed(x, other), to);
  }

  bool present(const char* x) const {
    const int64_t size = batch_.body();
    return batch_.stored == ScalarType::Float
               ? kernels_.any_32(reinterpret_cast<const uint32_t*>(x), size)
               : kernels_.any_16(reinterpret_cast<const uint16_t*>(x), size);
  }

  const float* widened(const char* x) const {
    if (batch_.stored == ScalarType::Float) return reinterpret_cast<const float*>(x);
    auto widen = [&]<class T>(const T* from) {
      widen_rows(from, 1, batch_.body(), batch_.body(), buffer(2), batch_.body());
    };
    batch_.stored == ScalarType::Half ? widen(reinterpret_cast<const Half*>(x))
                                      : widen(reinterpret_cast<const BFloat16*>(x));
    return buffer(2);
  }

  // Crop, flip, matrix and noise. Frames that follow each other are done at once.
  void crop(const float* x, const Draws& draws, uint32_t block, const Counter& counter,
            float* y) const {
    const int64_t frames = batch_.frames, joints = batch_.joints, row = batch_.row();
    if (draws.flipped) {
      joints_of(x, batch_.flip, buffer(3));
      x = buffer(3);
    }
    for (int64_t t = 0, run; t < frames; t += run) {
      const int64_t source = draws.start + t;
      const bool inside = 0 <= source && source < frames;
      run = inside ? std::min(frames - source, frames - t) : 1;
      const float* from = x + mirrored(source, frames) * row;
      if (batch_.view == kNone)
        std::memcpy(y + t * row, from, run * row * sizeof(float));
      else
        kernels_.transform(from, run * joints, draws, draws.noisy,
                           block + static_cast<uint32_t>(t * joints), counter, y + t * row);
    }
  }

  // The joints of all frames by a table of joints. Four numbers are moved at once, the fourth to be
  // overwritten; not in the last frame, past which there may be nothing.
  void joints_of(const float* x, const std::vector<int64_t>& table, float* y) const {
    const int64_t row = batch_.row(), last = batch_.body() - row;
    for (int64_t t = 0; t < last; t += row)
      for (int64_t v = 0; v < batch_.joints; ++v)
        std::memcpy(y + t + 3 * v, x + t + 3 * table[v], 16);
    for (int64_t v = 0; v < batch_.joints; ++v)
      std::memcpy(y + last + 3 * v, x + last + 3 * table[v], 12);
  }

  // Fills the rows before the first frame and past the last one.
  void repeat_ends(float* x) const {
    const int64_t row = batch_.row(), last = kReach + batch_.frames - 1;
    for (int64_t r = 0; r < kReach; ++r) {
      std::memcpy(x + r * row, x + kReach * row, row * sizeof(float));
      std::memcpy(x + (last + 1 + r) * row, x + last * row, row * sizeof(float));
    }
  }

  // x itself, or what is made of it in y.
  const float* streamed(const float* x, float* y) const {
    const int64_t row = batch_.row(), size = batch_.body();
    if (batch_.stream == kJoint) return x;
    if (batch_.stream == kMotion) {
      kernels_.subtract(x + row, x, size - row, y);
      std::fill_n(y + size - row, row, 0.f);
    } else {
      joints_of(x, batch_.parents, y);
      kernels_.subtract(x, y, size, y);
    }
    for (int64_t i = 2; batch_.planar && i < size; i += 3) y[i] = x[i];  // the score
    return y;
  }

  void write(const float* x, char* to) const {
    const int64_t size = batch_.body();
    if (batch_.wanted == ScalarType::Float)
      std::memcpy(to, x, size * sizeof(float));
    else if (batch_.wanted == ScalarType::Half)
      narrow_rows(x, 1, size, size, reinterpret_cast<Half*>(to), size);
    else
      narrow_rows(x, 1, size, size, reinterpret_cast<BFloat16*>(to), size);
  }
};

}  // namespace msclr::augment_cpu
