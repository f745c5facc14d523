// Masked graph convolution on the CPU, sparse first: a tile of frames is aggregated over the few
// neighbours of each joint, in cache, and multiplied at once by the (K C_in) x C_out weight.
//
//   z[(t,w), k*C_in + c] = sum_v A[k,v,w] x[t,v,c]        z[(t,w), K*C_in + k] = sum_v A[k,v,w]
//   y[(t,w), o] = z W,    W[k*C_in + c, o] = weight[k,o,c],    W[K*C_in + k, o] = bias[k,o]
//
// The bias is one more input channel, equal to 1, so it needs no case of its own. Backward, with
// the incoming gradient g and u = g W^T:
//   dx[t,v,c] = sum_k,w A[k,v,w] u[(t,w), k*C_in + c]          dW = z^T g
//   dA[k,v,w] = sum_t sum_c x[t,v,c] u[(t,w), k*C_in + c] + sum_t u[(t,w), K*C_in + k]
// Nothing of the size of K activations is ever held: z and u exist for one tile at a time.
//
// Sums are in float (in double for double tensors). Every thread has a fixed share of the tiles and
// sums of its own, added in order: results do not depend on timing.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "../graph_conv.h"
#include "strided.h"

namespace {

using namespace msclr;
using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;

// Slot s writes at target[s] the sum of its terms first[s] .. first[s+1]-1.
template <class S>
struct Terms {
  std::vector<int32_t> first{0};
  std::vector<int32_t> source;
  std::vector<S> value;
  std::vector<int64_t> target;

  void add(int64_t from, S factor) {
    source.push_back(static_cast<int32_t>(from));
    value.push_back(factor);
  }
  void close(int64_t to) {
    first.push_back(static_cast<int32_t>(source.size()));
    target.push_back(to);
  }
};

struct Link {
  int64_t a, b;
};

template <class S>
struct Kernels {
  using Product = void(int64_t, int64_t, int64_t, Strided<S>, const S*, int64_t, S*, int64_t);
  int64_t lanes;
  Product *product, *product_add;
  void (*gather)(const Terms<S>&, int64_t, int64_t, const S*, int64_t, S*, int64_t);
  void (*link_products)(const std::vector<Link>&, int64_t, int64_t, const S*, int64_t, const S*,
                        int64_t, S*);
  void (*widen)(const uint16_t*, int64_t, int64_t, int64_t, S*, int64_t);
  void (*narrow)(const S*, int64_t, int64_t, int64_t, uint16_t*, int64_t);
};

namespace portable {
#define SIMD_TARGET
#define SIMD_BYTES 16
#define SIMD_REGISTERS 16
#include "graph_conv_kernels.h"
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace portable

#ifdef __x86_64__
namespace avx2 {
#define SIMD_TARGET __attribute__((target("avx2,fma")))
#define SIMD_BYTES 32
#define SIMD_REGISTERS 16
#include "graph_conv_kernels.h"
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace avx2

namespace avx512 {
#define SIMD_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx2,fma")))
#define SIMD_BYTES 64
#define SIMD_REGISTERS 32
#include "graph_conv_kernels.h"
#undef SIMD_INLINE
#undef SIMD_REGISTERS
#undef SIMD_BYTES
#undef SIMD_TARGET
}  // namespace avx512
#endif

template <class S>
const Kernels<S>& kernels() {
#ifdef __x86_64__
  static const bool has_avx512 = __builtin_cpu_supports("avx512f") &&
                                 __builtin_cpu_supports("avx512vl") &&
                                 __builtin_cpu_supports("avx512dq");
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx512) return avx512::kKernels<S>;
  if (has_avx2) return avx2::kKernels<S>;
#endif
  return portable::kKernels<S>;
}

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Scratch memory, aligned to a cache line and not initialised.
template <class S>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<S*>(std::aligned_alloc(64, round_up(size * sizeof(S) + 64, 64)))) {
    if (!data_) throw std::bad_alloc();
  }
  S* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(S* p) const { std::free(p); }
  };
  std::unique_ptr<S, Free> data_;
};

// Calls f with a null pointer of the element type of a floating point tensor.
template <class F>
void dispatch(ScalarType type, const char* name, const F& f) {
  switch (type) {
    case ScalarType::Float:
      return f(static_cast<float*>(nullptr));
    case ScalarType::Double:
      return f(static_cast<double*>(nullptr));
    case ScalarType::BFloat16:
      return f(static_cast<BFloat16*>(nullptr));
    case ScalarType::Half:
      return f(static_cast<Half*>(nullptr));
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, bfloat16 or float16");
  }
}

// Any floating point tensor, contiguous or not, as numbers of type S in the order of its indices.
template <class S>
std::vector<S> values(const Tensor& tensor, const char* name) {
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<S> out(dense.numel());
  dispatch(dense.scalar_type(), name, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* from = static_cast<const T*>(dense.const_data_ptr());
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<S>(from[i]);
  });
  return out;
}

// Every element of a contiguous floating point tensor from its index.
template <class S, class F>
void assign(const Tensor& tensor, const F& value) {
  dispatch(tensor.scalar_type(), "gradient", [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* to = static_cast<T*>(tensor.mutable_data_ptr());
    const int64_t count = tensor.numel();
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<T>(value(i));
  });
}

std::vector<int64_t> integers(const Tensor& tensor) {
  const Tensor dense = torch::stable::contiguous(tensor);
  std::vector<int64_t> out(dense.numel());
  if (dense.scalar_type() == ScalarType::Int)
    std::copy_n(static_cast<const int32_t*>(dense.const_data_ptr()), out.size(), out.begin());
  else
    std::copy_n(static_cast<const int64_t*>(dense.const_data_ptr()), out.size(), out.begin());
  return out;
}

// The graphs of all layouts, as the inner loops want them.
template <class S>
struct Graphs {
  struct Layout {
    int64_t joints;                // real ones
    Terms<S> forward;              // rows of x -> rows of z
    Terms<S> backward;             // rows of u -> rows of dx
    std::vector<S> columns;        // (joints, K): sum_v A[k,v,w]
    std::vector<Link> links;       // whose gradient is wanted: rows of x and of u ...
    std::vector<Link> ones;        // ... the channel of ones ...
    std::vector<int64_t> entries;  // ... and where they stand in the adjacency
  };
  std::vector<Layout> layouts;
  std::vector<int64_t> of_sample;  // empty: all the first

  const Layout& of(int64_t sample) const {
    return layouts[of_sample.empty() ? 0 : of_sample[sample]];
  }
};

template <class S>
Graphs<S> make_graphs(const Shape& s, int64_t ldx, int64_t ldz, const Tensor& adjacency,
                      const OptionalTensor& layout_index, const OptionalTensor& joint_counts,
                      const OptionalTensor& support, bool want_links) {
  const std::vector<S> a = values<S>(adjacency, "adjacency");
  std::optional<Tensor> allowed_tensor;
  if (support) allowed_tensor = torch::stable::contiguous(*support);
  const bool* allowed =
      support ? static_cast<const bool*>(allowed_tensor->const_data_ptr()) : nullptr;
  const std::vector<int64_t> counts =
      joint_counts ? integers(*joint_counts) : std::vector<int64_t>{s.joints};
  Graphs<S> graphs;
  if (layout_index) graphs.of_sample = integers(*layout_index);
  for (int64_t i : graphs.of_sample)
    STD_TORCH_CHECK(0 <= i && i < s.layouts, "layout_index must lie in 0..", s.layouts - 1,
                    ", got ", i);
  const int64_t ones = s.partitions * s.c_in;
  for (int64_t l = 0; l < s.layouts; ++l) {
    auto entry = [&](int64_t k, int64_t v, int64_t w) {
      return ((l * s.partitions + k) * s.joints + v) * s.joints + w;
    };
    auto linked = [&](int64_t e) { return a[e] != S(0) && (!allowed || allowed[e]); };
    auto& layout = graphs.layouts.emplace_back();
    const int64_t joints = layout.joints = std::min(counts[l], s.joints);
    layout.columns.assign(joints * s.partitions, S(0));
    for (int64_t w = 0; w < joints; ++w)
      for (int64_t k = 0; k < s.partitions; ++k) {
        for (int64_t v = 0; v < joints; ++v) {
          const int64_t e = entry(k, v, w);
          if (linked(e)) {
            layout.forward.add(v * ldx, a[e]);
            layout.columns[w * s.partitions + k] += a[e];
          }
          if (want_links && (!allowed || allowed[e])) {
            layout.links.push_back({v * ldx, w * ldz + k * s.c_in});
            layout.ones.push_back({0, w * ldz + ones + k});
            layout.entries.push_back(e);
          }
        }
        layout.forward.close(w * ldz + k * s.c_in);
      }
    for (int64_t v = 0; v < joints; ++v) {
      for (int64_t k = 0; k < s.partitions; ++k)
        for (int64_t w = 0; w < joints; ++w)
          if (linked(entry(k, v, w))) layout.backward.add(w * ldz + k * s.c_in, a[entry(k, v, w)]);
      layout.backward.close(v * ldx);
    }
  }
  return graphs;
}

// A tensor (N, C, T, V) of any strides, read or written a tile of frames at a time.
class Activations {
 public:
  explicit Activations(const Tensor& tensor) : tensor_(tensor) {
    for (int i = 0; i < 4; ++i) stride_[i] = tensor.stride(i);
  }

  // Frames of one sample as rows (t, v) of `width` numbers, the channels and zeros after them;
  // the tensor's own memory where it has that form already.
  template <class S>
  const S* read(int64_t sample, int64_t start, int64_t frames, int64_t joints, int64_t width,
                S* buffer) const {
    if (const S* own = in_place<S>(sample, start, joints, width)) return own;
    const int64_t channels = tensor_.size(1);
    if (bfloat16_rows()) {
      const uint16_t* from = frame<uint16_t>(sample, start);
      for (int64_t t = 0; t < frames; ++t, from += stride_[2], buffer += joints * width)
        kernels<S>().widen(from, joints, channels, stride_[3], buffer, width);
      return buffer - frames * joints * width;
    }
    each_row(sample, start, frames, joints, [&](auto* from, int64_t row) {
      S* to = buffer + row * width;
      for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<S>(from[c * stride_[1]]);
      for (int64_t c = channels; c < width; ++c) to[c] = S(0);
    });
    return buffer;
  }

  // Where rows (t, v) of `width` numbers may be written directly, or null.
  template <class S>
  S* in_place(int64_t sample, int64_t start, int64_t joints, int64_t width) const {
    const bool same = tensor_.scalar_type() == scalar_type<S>() && joints == tensor_.size(3) &&
                      tensor_.size(1) == width && (stride_[1] == 1 || width == 1) &&
                      stride_[3] == width && stride_[2] == width * joints;
    if (!same) return nullptr;
    return frame<S>(sample, start);
  }

  // Rows (t, v) of `width` numbers into frames of a sample; joints at or past `joints` become 0.
  template <class S>
  void write(int64_t sample, int64_t start, int64_t frames, int64_t joints, int64_t width,
             const S* buffer) const {
    const int64_t channels = tensor_.size(1), all = tensor_.size(3);
    if (bfloat16_rows()) {
      uint16_t* to = frame<uint16_t>(sample, start);
      for (int64_t t = 0; t < frames; ++t, to += stride_[2], buffer += joints * width) {
        kernels<S>().narrow(buffer, joints, channels, width, to, stride_[3]);
        for (int64_t v = joints; v < all; ++v) std::fill_n(to + v * stride_[3], channels, 0);
      }
      return;
    }
    each_row(sample, start, frames, all, [&](auto* to, int64_t row) {
      using T = std::remove_pointer_t<decltype(to)>;
      const int64_t t = row / all, v = row % all;
      const S* from = buffer + (t * joints + v) * width;
      for (int64_t c = 0; c < channels; ++c)
        to[c * stride_[1]] = v < joints ? static_cast<T>(from[c]) : T(0);
    });
  }

 private:
  bool bfloat16_rows() const {
    return tensor_.scalar_type() == ScalarType::BFloat16 &&
           (stride_[1] == 1 || tensor_.size(1) == 1);
  }

  template <class T>
  T* frame(int64_t sample, int64_t start) const {
    return static_cast<T*>(tensor_.data_ptr()) + sample * stride_[0] + start * stride_[2];
  }

  template <class S>
  static constexpr ScalarType scalar_type() {
    return std::is_same_v<S, double> ? ScalarType::Double : ScalarType::Float;
  }

  template <class F>
  void each_row(int64_t sample, int64_t start, int64_t frames, int64_t joints, const F& f) const {
    dispatch(tensor_.scalar_type(), "x", [&](auto* tag) {
      auto* data = static_cast<decltype(tag)>(tensor_.data_ptr()) + sample * stride_[0];
      for (int64_t t = 0; t < frames; ++t)
        for (int64_t v = 0; v < joints; ++v)
          f(data + (start + t) * stride_[2] + v * stride_[3], t * joints + v);
    });
  }

  Tensor tensor_;
  std::array<int64_t, 4> stride_;
};

// How the work is cut: tiles of frames whose z fills part of a core's second-level cache.
struct Tiling {
  int64_t frames, per_sample, count;

  Tiling(const Shape& s, int64_t row_bytes) {
    constexpr int64_t kCacheBytes = 192 * 1024;
    frames = std::clamp<int64_t>(kCacheBytes / (s.joints * row_bytes), 1,
                                 std::max<int64_t>(s.frames, 1));
    per_sample = (s.frames + frames - 1) / frames;
    count = s.samples * per_sample;
  }
};

// Runs body(first, last) over equal shares of the tiles, one a thread; share i goes to slot i.
template <class F>
void for_shares(int64_t tiles, int64_t shares, const F& body) {
  torch::stable::parallel_for(0, shares, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i, tiles * i / shares, tiles * (i + 1) / shares);
  });
}

int64_t share_count(const Tiling& tiling, const Shape& s) {
  constexpr int64_t kWorthAThread = 1 << 15;  // multiplications
  const int64_t work = tiling.count * tiling.frames * s.joints * s.c_in * s.c_out * s.partitions;
  const int64_t wanted = std::min<int64_t>(tiling.count, work / kWorthAThread + 1);
  return std::clamp<int64_t>(wanted, 1, torch::stable::get_num_threads());
}

// z's rows for one tile: neighbours added up, then the column sums that carry the bias.
template <class S>
void aggregate(const Kernels<S>& run, const Shape& s, const typename Graphs<S>::Layout& graph,
               int64_t frames, const S* x, int64_t ldx, S* z, int64_t ldz) {
  run.gather(graph.forward, frames, s.c_in, x, graph.joints * ldx, z, graph.joints * ldz);
  for (int64_t t = 0; t < frames; ++t)
    for (int64_t w = 0; w < graph.joints; ++w)
      std::copy_n(&graph.columns[w * s.partitions], s.partitions,
                  z + (t * graph.joints + w) * ldz + s.partitions * s.c_in);
}

// W (K*C_in + K, C_out) with the bias as its last K rows, rows `ld` apart and zeros after them;
// or its transpose.
template <class S>
Buffer<S> pack(const Shape& s, const Tensor& weight, const OptionalTensor& bias, bool transpose,
               int64_t ld) {
  const std::vector<S> w = values<S>(weight, "weight");
  const std::vector<S> b = bias ? values<S>(*bias, "bias") : std::vector<S>();
  const int64_t depth = s.partitions * (s.c_in + 1);
  Buffer<S> packed((transpose ? s.c_out : depth) * ld);
  std::fill_n(packed.get(), (transpose ? s.c_out : depth) * ld, S(0));
  auto put = [&](int64_t row, int64_t o, S value) {
    packed.get()[transpose ? o * ld + row : row * ld + o] = value;
  };
  for (int64_t k = 0; k < s.partitions; ++k)
    for (int64_t o = 0; o < s.c_out; ++o) {
      for (int64_t c = 0; c < s.c_in; ++c)
        put(k * s.c_in + c, o, w[(k * s.c_out + o) * s.c_in + c]);
      if (bias) put(s.partitions * s.c_in + k, o, b[k * s.c_out + o]);
    }
  return packed;
}

template <class S>
void forward(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
             const Tensor& adjacency, const OptionalTensor& layout_index,
             const OptionalTensor& joint_counts, const OptionalTensor& support, const Tensor& y) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(x, weight, adjacency);
  const int64_t depth = s.partitions * (s.c_in + (bias ? 1 : 0));
  const int64_t ldz = round_up(s.partitions * (s.c_in + 1), run.lanes);
  const int64_t ldy = round_up(s.c_out, run.lanes);
  const Graphs<S> graphs =
      make_graphs<S>(s, s.c_in, ldz, adjacency, layout_index, joint_counts, support, false);
  const Buffer<S> packed = pack<S>(s, weight, bias, false, ldy);
  const Tiling tiling(s, ldz * sizeof(S));
  const Activations input(x), output(y);
  for_shares(tiling.count, share_count(tiling, s), [&](int64_t, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * s.c_in), z(rows * ldz), y_rows(rows * ldy);
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t n = tile / tiling.per_sample, start = tile % tiling.per_sample * tiling.frames;
      const int64_t frames = std::min(tiling.frames, s.frames - start);
      const auto& graph = graphs.of(n);
      const S* from = input.read(n, start, frames, graph.joints, s.c_in, x_rows.get());
      aggregate(run, s, graph, frames, from, s.c_in, z.get(), ldz);
      S* own = output.in_place<S>(n, start, graph.joints, ldy);
      S* to = own ? own : y_rows.get();
      run.product(frames * graph.joints, ldy, depth, {z.get(), ldz, 1}, packed.get(), ldy, to, ldy);
      if (!own) output.write(n, start, frames, graph.joints, ldy, to);
    }
  });
}

// What one share of the tiles adds to the gradients of weight and adjacency.
template <class S>
struct Sums {
  Buffer<S> weight;                         // (K*C_in + K, ld)
  std::vector<std::vector<S>> links, ones;  // a number for each link of each layout

  Sums(int64_t size, const Graphs<S>& graphs) : weight(size) {
    std::fill_n(weight.get(), size, S(0));
    for (const auto& layout : graphs.layouts) {
      links.emplace_back(layout.links.size(), S(0));
      ones.emplace_back(layout.links.size(), S(0));
    }
  }
};

template <class S>
void backward(const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
              const Tensor& adjacency, const OptionalTensor& layout_index,
              const OptionalTensor& joint_counts, const OptionalTensor& support, const Wanted& want,
              const Gradients& out) {
  const Kernels<S>& run = kernels<S>();
  const Shape s = shape_of(x, weight, adjacency);
  const int64_t depth = s.partitions * (s.c_in + 1);
  const int64_t ldz = round_up(depth, run.lanes), ldg = round_up(s.c_out, run.lanes);
  const Graphs<S> graphs = make_graphs<S>(s, s.c_in, ldz, adjacency, layout_index, joint_counts,
                                          support, want.adjacency);
  const bool want_u = want.x || want.adjacency, want_z = want.weight || want.bias;
  const Buffer<S> packed = pack<S>(s, weight, bias, true, ldz);
  const Tiling tiling(s, 2 * ldz * sizeof(S));
  const Activations input(x), gradient(grad), output(want.x ? out.x : x);
  std::vector<Sums<S>> sums;
  const int64_t shares = share_count(tiling, s);
  for (int64_t i = 0; i < shares; ++i) sums.emplace_back(want_z ? depth * ldg : 0, graphs);

  for_shares(tiling.count, shares, [&](int64_t share, int64_t first, int64_t last) {
    const int64_t rows = tiling.frames * s.joints;
    const Buffer<S> x_rows(rows * s.c_in), g_rows(rows * ldg), dx_rows(rows * s.c_in);
    const Buffer<S> z(want_z ? rows * ldz : 0), u(want_u ? rows * ldz : 0);
    Sums<S>& sum = sums[share];
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t n = tile / tiling.per_sample, start = tile % tiling.per_sample * tiling.frames;
      const int64_t frames = std::min(tiling.frames, s.frames - start);
      const auto& graph = graphs.of(n);
      const int64_t joints = graph.joints, l = &graph - graphs.layouts.data();
      const S* g = gradient.read(n, start, frames, joints, ldg, g_rows.get());
      const S* from = nullptr;
      if (want_z || want.adjacency)
        from = input.read(n, start, frames, joints, s.c_in, x_rows.get());
      if (want_z) {
        aggregate(run, s, graph, frames, from, s.c_in, z.get(), ldz);
        run.product_add(depth, ldg, frames * joints, {z.get(), 1, ldz}, g, ldg, sum.weight.get(),
                        ldg);
      }
      if (want_u)
        run.product(frames * joints, ldz, s.c_out, {g, ldg, 1}, packed.get(), ldz, u.get(), ldz);
      if (want.adjacency) {
        run.link_products(graph.links, frames, s.c_in, from, joints * s.c_in, u.get(), joints * ldz,
                          sum.links[l].data());
        const S one = 1;
        run.link_products(graph.ones, frames, 1, &one, 0, u.get(), joints * ldz,
                          sum.ones[l].data());
      }
      if (want.x) {
        S* own = output.in_place<S>(n, start, joints, s.c_in);
        S* to = own ? own : dx_rows.get();
        run.gather(graph.backward, frames, s.c_in, u.get(), joints * ldz, to, joints * s.c_in);
        if (!own) output.write(n, start, frames, joints, s.c_in, to);
      }
    }
  });

  // The shares' sums are added in order, into the first.
  S* total = sums[0].weight.get();
  for (size_t i = 1; want_z && i < sums.size(); ++i)
    for (int64_t j = 0; j < depth * ldg; ++j) total[j] += sums[i].weight.get()[j];
  if (want.weight)
    assign<S>(out.weight, [&](int64_t i) {
      const int64_t c = i % s.c_in, o = i / s.c_in % s.c_out, k = i / s.c_in / s.c_out;
      return total[(k * s.c_in + c) * ldg + o];
    });
  if (want.bias)
    assign<S>(out.bias, [&](int64_t i) {
      return total[(s.partitions * s.c_in + i / s.c_out) * ldg + i % s.c_out];
    });
  if (!want.adjacency) return;
  std::vector<S> entries(out.adjacency.numel(), S(0));
  for (const auto& sum : sums)
    for (size_t l = 0; l < graphs.layouts.size(); ++l)
      for (size_t p = 0; p < graphs.layouts[l].entries.size(); ++p)
        entries[graphs.layouts[l].entries[p]] += sum.links[l][p] + sum.ones[l][p];
  assign<S>(out.adjacency, [&](int64_t i) { return entries[i]; });
}

Tensor graph_conv(const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
                  const Tensor& adjacency, const OptionalTensor& layout_index,
                  const OptionalTensor& joint_counts, const OptionalTensor& support) {
  const Tensor y = empty_activations(x, weight.size(0) / adjacency.size(adjacency.dim() - 3));
  const auto run = x.scalar_type() == ScalarType::Double ? forward<double> : forward<float>;
  run(x, weight, bias, adjacency, layout_index, joint_counts, support, y);
  return y;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> graph_conv_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, const OptionalTensor& bias,
    const Tensor& adjacency, const OptionalTensor& layout_index, const OptionalTensor& joint_counts,
    const OptionalTensor& support, bool want_x, bool want_weight, bool want_bias,
    bool want_adjacency) {
  const Wanted want{want_x, want_weight, want_bias && bias.has_value(), want_adjacency};
  const Gradients out(want, x, weight, bias, adjacency);
  const auto run = x.scalar_type() == ScalarType::Double ? backward<double> : backward<float>;
  run(grad, x, weight, bias, adjacency, layout_index, joint_counts, support, want, out);
  return {out.x, out.weight, out.bias, out.adjacency};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m) {
  m.impl("graph_conv", TORCH_BOX(&graph_conv));
  m.impl("graph_conv_backward", TORCH_BOX(&graph_conv_backward));
}
