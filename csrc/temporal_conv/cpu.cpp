// ST-GCN's temporal convolution on the CPU, with what stands before and after it: batch norm and
// relu as rows are read, bias and the next norm's sums as they are written.
//
//   a = relu(x scale + shift)        y[t', o] = bias[o] + sum_k,c weight[o,c,k] a[s t' + k - 4, c]
//
// Backward, with g = alpha d + beta y + gamma, which is what the next norm's gradient comes to:
//   e[f, c] = sum_k,o weight[o,c,k] g[(f + 4 - k) / s, o] where x scale + shift > 0
//   dweight[o,c,k] = sum_t' a[s t' + k - 4, c] g[t', o]        dbias = sum g
// Neither a nor g is ever held: they exist for one tile at a time.
//
// Sums are in float (in double for double tensors), those over all rows in double from tile to
// tile. They are added in an order that depends on the sizes alone: results have the same bits on
// any number of threads.

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <vector>

#include "arguments.h"
#include "cpu/choice.h"
#include "cpu/direct.h"
#include "cpu/direct_backward.h"
#include "cpu/spectral.h"
#include "cpu/spectral_backward.h"

namespace {

using namespace msclr;
using namespace msclr::temporal_conv_cpu;

// body(first, last) over parts of 0 .. count-1, on as many threads as there are.
template <class F>
void in_ranges(int64_t count, const F& body) {
  torch::stable::parallel_for(0, count, 1, body);
}

// Tests set it, which so run both algorithms on any shape.
Algorithm algorithm = Algorithm::kFastest;

// The work of a call: tiles for the one algorithm, chunks for the other.
struct Work {
  std::vector<Tile> tiles;
  std::vector<Chunk> chunks;
};

template <class S>
Work work_of(const Shape& shape, int64_t width, const Costs& costs) {
  Work work;
  for (const Segment& segment : shape.segments) {
    const bool can = std::is_same_v<S, float> && shape.stride == 1;
    if (can && algorithm != Algorithm::kDirect &&
        (algorithm == Algorithm::kSpectral || spectral_pays(shape, segment, costs)))
      add_chunks(segment, chunk_windows<S>(), work.chunks);
    else
      add_tiles(segment, shape.stride, width * sizeof(S), work.tiles);
  }
  return work;
}

// The first `columns` of each row of `width`.
void assign_sums(const Tensor& to, const std::vector<double>& sums, int64_t width) {
  const int64_t columns = to.size(to.dim() - 1);
  assign<double>(to, [&](int64_t i) { return sums[i / columns * width + i % columns]; });
}

template <class S>
void forward_tiles(const Forward<S>& to, const std::vector<Tile>& tiles, Lazy<Packed<S>>& taps,
                   std::vector<double>& total) {
  if (tiles.empty()) return;
  const Panels<S>& packed = taps.get([&] { return pack_taps(to.weights); });
  TileSums sums(tiles.size(), total.size());
  in_ranges(tiles.size(), [&](int64_t first, int64_t last) {
    DirectForward<S> direct(to, packed, tiles);
    std::vector<S> of_tile(total.size(), S(0));
    for (int64_t i = first; i < last; ++i) {
      direct.run(tiles[i], of_tile.data());
      sums.take(i, of_tile.data());
    }
  });
  sums.add_to(total);
}

template <class S>
void forward_chunks(const Forward<S>& to, const std::vector<Chunk>& chunks, Lazy<Packed<S>>& taps,
                    std::vector<double>& total) {
  if (chunks.empty()) return;
  const Packed<S> slots = pack_slots(to.weights);
  TileSums sums(chunks.size(), total.size());
  in_ranges(chunks.size(), [&](int64_t first, int64_t last) {
    SpectralForward<S> spectral(to, slots, taps);
    std::vector<S> of_chunk(total.size(), S(0));
    for (int64_t i = first; i < last; ++i) {
      spectral.run(chunks[i], of_chunk.data());
      sums.take(i, of_chunk.data());
    }
  });
  sums.add_to(total);
}

template <class S>
void forward(const Shape& shape, const Matrix<S>& x, const Norm<S>& norm, const Tensor& weight,
             const Tensor& bias, const Matrix<S>& y, const Tensor& statistics) {
  const std::vector<S> weights = values<S>(weight, "weight"), biases = padded<S>(bias, "bias");
  const Forward<S> to{x, norm, {weights.data(), shape.c_in, shape.c_out, false},
                      biases, shape.stride, y};
  const Work work = work_of<S>(shape, norm.scale.size(), kForwardCosts);
  Lazy<Packed<S>> taps;
  std::vector<double> total(2 * biases.size(), 0.0);
  forward_tiles(to, work.tiles, taps, total);
  if constexpr (std::is_same_v<S, float>) forward_chunks(to, work.chunks, taps, total);
  assign_sums(statistics, total, biases.size());
}

// Each share has a copy of the weights' gradient, which takes time of its own. Their number must
// not depend on that of the threads.
int64_t share_count(const Shape& shape, int64_t tiles) {
  constexpr int64_t kRows = 2048, kMost = 16;
  return std::clamp<int64_t>(std::min(shape.out_rows / kRows, tiles), 1, kMost);
}

struct Gradients {
  Tensor e, statistics, weight, bias;
};

// What the tiles and chunks of a call add up to.
struct Totals {
  std::vector<double> e;       // (2, width of x)
  std::vector<double> g;       // (width of y)
  std::vector<double> weight;  // (C_out, C_in, 9)
};

template <class S>
void backward_tiles(const Backward<S>& to, const std::vector<Tile>& tiles, int64_t shares,
                    Lazy<Packed<S>>& taps, Totals& total) {
  if (tiles.empty()) return;
  const Panels<S>& transposed = taps.get([&] { return pack_taps(to.transposed); });
  TileSums e_sums(tiles.size(), total.e.size()), g_sums(tiles.size(), total.g.size());
  std::vector<WeightSums<S>> w_sums(to.want_weight ? shares : 0, {to.x.columns(), to.g.width});
  in_ranges(shares, [&](int64_t first_share, int64_t last_share) {
    DirectBackward<S> direct(to, &transposed, tiles);
    std::vector<S> of_e(total.e.size(), S(0)), of_g(total.g.size(), S(0));
    for (int64_t share = first_share; share < last_share; ++share) {
      const int64_t count = tiles.size(), last = count * (share + 1) / shares;
      for (int64_t i = count * share / shares; i < last; ++i) {
        direct.run(tiles[i], of_e.data(), of_g.data(), to.want_weight ? &w_sums[share] : nullptr);
        e_sums.take(i, of_e.data());
        g_sums.take(i, of_g.data());
      }
    }
  });
  e_sums.add_to(total.e);
  g_sums.add_to(total.g);
  for (const auto& share : w_sums) share.add_to(total.weight);
}

template <class S>
void backward_chunks(const Backward<S>& to, const std::vector<Chunk>& chunks,
                     Lazy<Packed<S>>& taps, Totals& total) {
  if (chunks.empty()) return;
  constexpr int64_t kGroup = 8;  // chunks
  std::optional<Packed<S>> transposed;
  std::optional<GroupSlots<S>> slots;
  std::optional<SlotSums<S>> w_sums;
  if (to.e) transposed.emplace(pack_slots(to.transposed));
  const int64_t count = chunks.size(), most = std::min(kGroup, count);
  if (to.want_weight) {
    slots.emplace(to, most * chunk_windows<S>());
    w_sums.emplace(to.x.columns(), to.g.width);
  }
  TileSums e_sums(count, total.e.size()), g_sums(count, total.g.size());
  WeightSums<S> w_left(to.x.columns(), to.g.width);
  bool any_left = false;
  for (int64_t start = 0; start < count; start += kGroup) {
    const int64_t size = std::min(kGroup, count - start);
    std::vector<std::vector<int64_t>> left(size);
    std::vector<int64_t> first{0};
    for (int64_t i = 0; i < size; ++i) first.push_back(first.back() + chunks[start + i].count);
    in_ranges(size, [&](int64_t begin, int64_t end) {
      SpectralBackward<S> spectral(to, transposed ? &static_cast<const Panels<S>&>(*transposed) : nullptr);
      std::vector<S> of_e(total.e.size(), S(0)), of_g(total.g.size(), S(0));
      for (int64_t i = begin; i < end; ++i) {
        left[i] = spectral.run(chunks[start + i], slots ? &*slots : nullptr, first[i], of_e.data(),
                               of_g.data());
        e_sums.take(start + i, of_e.data());
        g_sums.take(start + i, of_g.data());
      }
    });
    if (w_sums) w_sums->add(slots->x, slots->g, first.back());
    for (int64_t i = 0; i < size; ++i)
      for (int64_t window : left[i]) {
        any_left = true;
        const std::vector<Tile> tiles{chunks[start + i].tile(window)};
        const Panels<S>& panels = taps.get([&] { return pack_taps(to.transposed); });
        std::vector<S> of_e(total.e.size(), S(0)), of_g(total.g.size(), S(0));
        DirectBackward<S>(to, &panels, tiles).run(tiles[0], of_e.data(), of_g.data(), &w_left);
        e_sums.take(start + i, of_e.data());
        g_sums.take(start + i, of_g.data());
      }
  }
  e_sums.add_to(total.e);
  g_sums.add_to(total.g);
  if (!w_sums) return;
  w_sums->add_to(total.weight);
  if (any_left) w_left.add_to(total.weight);
}

template <class S>
void backward(const Shape& shape, const OutputGradient<S>& g, const Matrix<S>& x,
              const Norm<S>& norm, const Tensor& weight, bool want_x, bool want_weight,
              const Gradients& out) {
  const std::vector<S> weights = values<S>(weight, "weight");
  const Matrix<S> e(out.e);
  const Backward<S> to{g,
                       x,
                       norm,
                       {weights.data(), shape.c_in, shape.c_out, true},
                       shape.stride,
                       want_x ? &e : nullptr,
                       want_weight};
  const int64_t x_width = norm.scale.size();
  const Work work = work_of<S>(shape, x_width + g.width, kBackwardCosts);
  Totals total{std::vector<double>(2 * x_width, 0.0), std::vector<double>(g.width, 0.0),
               std::vector<double>(weights.size(), 0.0)};
  Lazy<Packed<S>> taps;
  backward_tiles(to, work.tiles, share_count(shape, work.tiles.size()), taps, total);
  if constexpr (std::is_same_v<S, float>) backward_chunks(to, work.chunks, taps, total);
  if (want_x) assign_sums(out.statistics, total.e, x_width);
  if (!want_weight) return;
  assign_sums(out.bias, total.g, g.width);
  assign<double>(out.weight, [&](int64_t i) { return total.weight[i]; });
}

Tensor empty(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  return torch::stable::empty(sizes, type, std::nullopt, like.device());
}

std::tuple<Tensor, Tensor> temporal_conv(const Tensor& x, const Tensor& scale, const Tensor& shift,
                                         const Tensor& weight, const Tensor& bias,
                                         std::vector<int64_t> segments, int64_t stride) {
  check_weight(weight);
  const Shape shape(weight.size(1), weight.size(0), segments, stride);
  check_rows("x", x, shape.rows, shape.c_in);
  check_vector("scale", scale, shape.c_in);
  check_vector("shift", shift, shape.c_in);
  check_vector("bias", bias, shape.c_out);
  const Tensor y = empty(x, {shape.out_rows, shape.c_out}, x.scalar_type());
  const Tensor statistics = empty(x, {2, shape.c_out}, ScalarType::Double);
  const auto run = [&]<class S>(S*) {
    forward<S>(shape, Matrix<S>(x), Norm<S>(scale, shift), weight, bias, Matrix<S>(y), statistics);
  };
  x.scalar_type() == ScalarType::Double ? run((double*)nullptr) : run((float*)nullptr);
  return {y, statistics};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> temporal_conv_backward(
    const Tensor& d, const Tensor& y, const Tensor& coefficients, const Tensor& x,
    const Tensor& scale, const Tensor& shift, const Tensor& weight, std::vector<int64_t> segments,
    int64_t stride, bool want_x, bool want_weight) {
  check_weight(weight);
  const Shape shape(weight.size(1), weight.size(0), segments, stride);
  check_rows("d", d, shape.out_rows, shape.c_out);
  check_rows("y", y, shape.out_rows, shape.c_out);
  check_rows("coefficients", coefficients, 3, shape.c_out);
  check_rows("x", x, shape.rows, shape.c_in);
  check_vector("scale", scale, shape.c_in);
  check_vector("shift", shift, shape.c_in);
  const auto sized = [&](std::vector<int64_t> sizes, bool wanted) {
    return wanted ? sizes : std::vector<int64_t>(sizes.size(), 0);
  };
  const Gradients out{
      empty(x, sized({shape.rows, shape.c_in}, want_x), x.scalar_type()),
      empty(x, sized({2, shape.c_in}, want_x), ScalarType::Double),
      empty(x, sized({shape.c_out, shape.c_in, kTaps}, want_weight), weight.scalar_type()),
      empty(x, sized({shape.c_out}, want_weight), weight.scalar_type())};
  const auto run = [&]<class S>(S*) {
    backward<S>(shape, OutputGradient<S>(d, y, coefficients), Matrix<S>(x), Norm<S>(scale, shift),
                weight, want_x, want_weight, out);
  };
  x.scalar_type() == ScalarType::Double ? run((double*)nullptr) : run((float*)nullptr);
  return {out.e, out.statistics, out.weight, out.bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("temporal_conv", TORCH_BOX(&temporal_conv));
  m.impl("temporal_conv_backward", TORCH_BOX(&temporal_conv_backward));
}

// Has the named algorithm run where it can, "direct" or "spectral", or the faster one otherwise.
extern "C" __attribute__((visibility("default"))) void msclr_temporal_conv_algorithm(
    const char* name) {
  const std::string_view wanted = name;
  algorithm = wanted == "direct"     ? Algorithm::kDirect
              : wanted == "spectral" ? Algorithm::kSpectral
                                     : Algorithm::kFastest;
}
