// The mean of each track's feature map and the mean after AimCLR's attention-guided drop, on the
// CPU: a track is read from memory once, what is done with it afterwards happens in cache. One
// thread computes a whole track, so results have the same bits on any number of threads.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../common/buffer.h"
#include "../common/parallel.h"
#include "../common/rows.h"
#include "cpu/kernels.h"

namespace {

using namespace msclr;
using drop_pool_cpu::kernels;

constexpr double kEpsilon = 1e-4, kThreshold = 0.7;
const double kLimit = std::log(kThreshold / (1 - kThreshold));  // sigmoid(kLimit) is kThreshold

// Where a sample's rows and joints begin, and how many frames and joints it has.
struct Track {
  int64_t row, joint, frames, joints;
  int64_t rows() const { return frames * joints; }
};

std::vector<Track> tracks_of(const std::vector<int64_t>& segments, int64_t rows) {
  STD_TORCH_CHECK(segments.size() % 3 == 0, "segments must be N, T and V of each layout");
  std::vector<Track> tracks;
  int64_t row = 0, joint = 0;
  for (size_t i = 0; i < segments.size(); i += 3)
    for (int64_t n = 0; n < segments[i]; ++n) {
      tracks.push_back({row, joint, segments[i + 1], segments[i + 2]});
      row += tracks.back().rows();
      joint += segments[i + 2];
    }
  STD_TORCH_CHECK(row == rows, "x must have the rows of its segments, ", row, ", got ", rows);
  return tracks;
}

Tensor empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  return torch::stable::empty(sizes, type, std::nullopt, like.device());
}

template <class S>
S* numbers(const Tensor& tensor) {
  return static_cast<S*>(tensor.mutable_data_ptr());
}

// Scratch of a thread: rows of a track where they are not read in place, and numbers of columns.
template <class S>
class Scratch {
 public:
  Scratch(const Rows& x, const std::vector<Track>& tracks, int64_t columns)
      : x_(x), columns_(columns), width(round_up(columns, kernels<S>().lanes)) {
    int64_t most = 0;
    for (const Track& track : tracks) most = std::max(most, track.rows());
    rows_ = Buffer<S>(most * width);
  }

  // A track's rows, `width` numbers apart.
  const S* read(const Track& track) {
    const S* there = track.rows() && width == columns_ ? x_.in_place<S>(track.row) : nullptr;
    if (there && x_.stride() == width) return there;
    x_.read(track.row, track.rows(), rows_.get(), width);
    return rows_.get();
  }

 private:
  const Rows& x_;
  int64_t columns_;

 public:
  const int64_t width;

 private:
  Buffer<S> rows_{0};
};

// What a track leaves; null pointers where the drop is not wanted.
template <class S>
struct Results {
  S *mean, *dropped, *statistics, *joints;
};

// Which joints stay: of mean and factor of each column, 1 or 0.
template <class S>
void keep_joints(const Track& track, int64_t columns, int64_t width, const S* x, const S* mean,
                 const S* factor, S* joints) {
  for (int64_t v = 0; v < track.joints; ++v) {
    double total = 0;
    for (int64_t t = 0; t < track.frames; ++t)
      total += kernels<S>().sum_sigmoids(columns, x + (t * track.joints + v) * width, mean, factor);
    joints[v] = total / static_cast<double>(columns * track.frames) < kThreshold;
  }
}

// Returns how many cells stay, whatever becomes of their joints.
template <class S>
double pool(const Track& track, int64_t columns, int64_t width, const S* x, const Results<S>& to) {
  const auto& k = kernels<S>();
  const S count = static_cast<S>(track.rows());
  std::vector<S> mean(width), factor(width), sum(width, S(0)), kept(width, S(0));
  k.add_rows(track.rows(), width, x, mean.data());
  for (S& number : mean) number /= count;
  std::copy_n(mean.data(), columns, to.mean);
  if (!to.dropped) return 0;
  k.add_squares(track.rows(), width, x, mean.data(), factor.data());
  for (S& number : factor) number = 1 / (4 * (number / (count - 1) + S(kEpsilon)));
  std::copy_n(mean.data(), columns, to.statistics);
  std::copy_n(factor.data(), columns, to.statistics + columns);
  keep_joints(track, columns, width, x, mean.data(), factor.data(), to.joints);
  for (int64_t r = 0; r < track.rows(); ++r)
    k.add_kept(width, x + r * width, mean.data(), factor.data(), static_cast<S>(kLimit),
               to.joints[r % track.joints], sum.data(), kept.data());
  for (int64_t c = 0; c < columns; ++c) to.dropped[c] = sum[c] / count;
  double cells = 0;
  for (int64_t c = 0; c < columns; ++c) cells += kept[c];
  return cells;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> drop_pool(const Tensor& x,
                                                             std::vector<int64_t> segments,
                                                             bool drop) {
  const auto tracks = tracks_of(segments, x.size(0));
  const int64_t columns = x.size(1), count = std::ssize(tracks), dropped = drop ? count : 0;
  const int64_t joints = count ? tracks.back().joint + tracks.back().joints : 0;
  const bool wide = x.scalar_type() == ScalarType::Double;
  const auto type = wide ? ScalarType::Double : ScalarType::Float;
  const Tensor mean = empty(x, {count, columns}, type), after = empty(x, {dropped, columns}, type),
               statistics = empty(x, {dropped, 2, columns}, type),
               stay = empty(x, {drop ? joints : 0}, type),
               counts = empty(x, {4}, ScalarType::Double);
  std::vector<double> cells(count, 0.0);
  const auto run = [&]<class S>(S*) {
    const Rows rows(x);
    in_ranges(count, [&](int64_t begin, int64_t end) {
      Scratch<S> scratch(rows, tracks, columns);
      for (int64_t i = begin; i < end; ++i) {
        Results<S> to{numbers<S>(mean) + i * columns, nullptr, nullptr, nullptr};
        if (drop)
          to = {to.mean, numbers<S>(after) + i * columns, numbers<S>(statistics) + 2 * i * columns,
                numbers<S>(stay) + tracks[i].joint};
        cells[i] = pool(tracks[i], columns, scratch.width, scratch.read(tracks[i]), to);
      }
    });
    double found[4] = {0, 0, 0, 0};
    for (int64_t j = 0; drop && j < joints; ++j) found[1] += numbers<S>(stay)[j];
    for (const double kept : cells) found[3] += kept;
    if (drop) found[0] = joints, found[2] = static_cast<double>(x.numel());
    std::copy_n(found, 4, numbers<double>(counts));
  };
  wide ? run(static_cast<double*>(nullptr)) : run(static_cast<float*>(nullptr));
  return {mean, after, counts, statistics, stay};
}

// Of one track; plain and dropped are the gradients of its means, each divided by its rows.
template <class S>
void spread(const Track& track, int64_t width, const S* x, const S* statistics, const S* joints,
            const std::vector<S>& plain, const std::vector<S>& dropped, const Rows& dx) {
  const std::vector<S> none(width, S(0));
  std::vector<S> row(width);
  for (int64_t r = 0; r < track.rows(); ++r) {
    const bool stays = statistics && joints[r % track.joints] != S(0);
    const S* from = stays ? dropped.data() : none.data();
    if (statistics)
      kernels<S>().spread(width, x + r * width, statistics, statistics + width,
                          static_cast<S>(kLimit), plain.data(), from, row.data());
    dx.write(track.row + r, statistics ? row.data() : plain.data());
  }
}

Tensor drop_pool_backward(const Tensor& dmean, const Tensor& ddropped, const Tensor& x,
                          std::vector<int64_t> segments, bool drop, const Tensor& statistics,
                          const Tensor& joints, bool want_x) {
  const auto tracks = tracks_of(segments, x.size(0));
  const int64_t columns = x.size(1), count = std::ssize(tracks);
  const Tensor dx = empty(x, {want_x ? x.size(0) : 0, columns}, x.scalar_type());
  if (!want_x) return dx;
  const auto run = [&]<class S>(S*) {
    const Rows rows(x), to(dx), of_mean(dmean), of_dropped(ddropped);
    const Tensor kept = torch::stable::contiguous(statistics),
                 stay = torch::stable::contiguous(joints);
    in_ranges(count, [&](int64_t begin, int64_t end) {
      Scratch<S> scratch(rows, tracks, columns);
      const int64_t width = scratch.width;
      std::vector<S> plain(width, S(0)), dropped(width, S(0)), of_track(2 * width, S(0));
      for (int64_t i = begin; i < end; ++i) {
        const Track& track = tracks[i];
        of_mean.read(i, 1, plain.data(), width);
        for (S& number : plain) number /= static_cast<S>(track.rows());
        if (drop) {
          of_dropped.read(i, 1, dropped.data(), width);
          for (S& number : dropped) number /= static_cast<S>(track.rows());
          for (int64_t j = 0; j < 2; ++j)
            std::copy_n(numbers<S>(kept) + (2 * i + j) * columns, columns,
                        of_track.data() + j * width);
        }
        spread(track, width, drop ? scratch.read(track) : nullptr, drop ? of_track.data() : nullptr,
               numbers<S>(stay) + (drop ? track.joint : 0), plain, dropped, to);
      }
    });
  };
  x.scalar_type() == ScalarType::Double ? run(static_cast<double*>(nullptr))
                                        : run(static_cast<float*>(nullptr));
  return dx;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("drop_pool", TORCH_BOX(&drop_pool));
  m.impl("drop_pool_backward", TORCH_BOX(&drop_pool_backward));
}
