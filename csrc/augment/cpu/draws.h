#pragma once
// What is drawn for one view of a clip, the noise apart: the table is in
// kernels/augment/reference.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "../../common/philox.h"

namespace msclr::augment_cpu {

enum View { kNone, kNormal, kExtreme };
constexpr int64_t kTaps = 15, kReach = kTaps / 2;
constexpr uint32_t kFirstNoiseBlock = 16;
constexpr double kLeastBlur = 0.1;
constexpr size_t kAmounts = 7;

// kernels/augment/amounts.py says what they are; 0 switches an augmentation off.
struct Amounts {
  double pad, shear, rotation, noise, blur, flip, axis;
};

struct Block {
  uint32_t word[4];

  double uniform(int i) const { return (word[i] >> 8) * 0x1p-24; }
  bool chosen(int i, double often) const { return uniform(i) < often; }
  int64_t below(int i, uint64_t n) const { return (word[i] * n) >> 32; }
};

inline Block philox(uint32_t block, const Counter& of) {
  uint32_t c0 = block, c1 = of.clip, c2 = of.epoch, c3 = of.purpose;
  uint32_t k0 = of.key[0], k1 = of.key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

struct Matrix {
  double at[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};

  Matrix times(const Matrix& other) const {
    Matrix out;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        out.at[i][j] = 0;
        for (int k = 0; k < 3; ++k) out.at[i][j] += at[i][k] * other.at[k][j];
      }
    return out;
  }
};

// Of planar joints (x, y, score) the score is kept by every matrix.
inline Matrix keep_score(Matrix matrix, bool planar) {
  if (!planar) return matrix;
  for (int i = 0; i < 3; ++i) matrix.at[2][i] = matrix.at[i][2] = i == 2;
  return matrix;
}

inline Matrix rotation(int axis, double angle) {
  const int i = (axis + 1) % 3, j = (axis + 2) % 3;
  Matrix out;
  out.at[i][i] = out.at[j][j] = std::cos(angle);
  out.at[j][i] = std::sin(angle);
  out.at[i][j] = -out.at[j][i];
  return out;
}

struct Draws {
  int64_t start = 0;  // first frame of the crop
  bool flipped = false, noisy = false, blurred = false;
  float matrix[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  float noise_sd[3] = {};
  float taps[kTaps] = {};

  Draws(View view, const Counter& of, const Amounts& amounts, bool planar) {
    if (view == kNone) return;
    const Block a = philox(0, of), b = philox(1, of);
    const int64_t pad = static_cast<int64_t>(amounts.pad);
    start = a.below(0, 2 * pad + 1) - pad;
    Matrix whole = shear(a, b, amounts.shear, planar);
    if (view == kExtreme) {
      const Block turn = philox(2, of), c = philox(3, of);
      flipped = b.chosen(3, amounts.flip);
      whole = turned(turn, amounts.rotation, planar).times(whole);
      noisy = amounts.noise > 0 && c.chosen(0, 0.5);
      blurred = amounts.blur > 0 && c.chosen(1, 0.5);
      if (blurred) blur(c.uniform(2), amounts.blur);
      for (int i = 0; i < (planar ? 2 : 3); ++i) noise_sd[i] = amounts.noise;
      if (c.chosen(3, amounts.axis)) {  // blurring comes in between, but keeps coordinates apart
        const int64_t axis = philox(4, of).below(0, planar ? 2 : 3);
        for (int j = 0; j < 3; ++j) whole.at[axis][j] = 0;
        noise_sd[axis] = 0;
      }
    }
    for (int i = 0; i < 9; ++i) matrix[i] = static_cast<float>(whole.at[i / 3][i % 3]);
  }

 private:
  static Matrix shear(const Block& a, const Block& b, double most, bool planar) {
    auto off = [most](const Block& block, int i) { return 2 * most * block.uniform(i) - most; };
    return keep_score(
        {{{1, off(a, 1), off(a, 2)}, {off(a, 3), 1, off(b, 0)}, {off(b, 1), off(b, 2), 1}}},
        planar);
  }

  static Matrix turned(const Block& block, double most, bool planar) {
    const double others = std::min(most, 1.0);
    const int64_t main = block.below(0, 3);
    auto about = [&](int axis) {
      return rotation(
          axis, block.uniform(axis + 1) * (axis == main ? most : others) * std::numbers::pi / 180);
    };
    return keep_score(about(0).times(about(1)).times(about(2)), planar);
  }

  void blur(double u, double most) {
    const double sd = kLeastBlur + (most - kLeastBlur) * u;
    double weight[kTaps], sum = 0;
    for (int64_t i = 0; i < kTaps; ++i) {
      const double offset = i - kReach;
      sum += weight[i] = std::exp(-offset * offset / (2 * sd * sd));
    }
    for (int64_t i = 0; i < kTaps; ++i) taps[i] = static_cast<float>(weight[i] / sum);
  }
};

}  // namespace msclr::augment_cpu
