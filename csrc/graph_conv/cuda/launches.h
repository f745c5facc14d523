#pragma once
// What launching the kernels has in common. `Device` runs them: CUDA's is in ../graph_conv.cu,
// one that runs them as C++ in tests/kernels/cuda_on_cpu. It has
//   S* scratch<S>(count)                          memory that lasts until the kernels have run
//   run(kernel, blocks_x, blocks_y, threads, shared_bytes, arguments)
//   int blocks_at_once(kernel, threads, shared_bytes)  that the device has room for

#include <algorithm>
#include <climits>

#include "neighbours.cuh"
#include "shares.cuh"

namespace msclr::gpu {

struct Problem {
  StridedTensor x, weight, bias, adjacency, layout_index, joint_counts, support;

  int64_t partitions() const { return adjacency.size[1]; }
  int64_t layouts() const { return adjacency.size[0]; }
  int64_t c_in() const { return x.size[1]; }
  int64_t c_out() const { return weight.size[2] / partitions(); }
};

struct GradientTensors {  // without data where one is not wanted
  StridedTensor x, weight, bias, adjacency;
};

inline int ceil_div(int64_t n, int64_t by) { return static_cast<int>((n + by - 1) / by); }

inline int64_t tiles_of_sample(const Problem& p) {
  const int64_t frames = kTileRows / p.x.size[3];
  return (p.x.size[2] + frames - 1) / frames;
}

// Empty where the tensor cores take x, and 32-bit counts of tiles, of channels and of a grid's rows
// can hold the problem.
inline const char* misfit(const Problem& p) {
  if (p.x.type != Type::kHalf && p.x.type != Type::kBFloat16)
    return "x must be float16 or bfloat16 in CUDA C++";
  const int64_t k = p.partitions(), widest = std::max(p.c_in(), p.c_out());
  if (p.x.size[3] > kTileRows) return "x has more than 128 joints";
  if (p.x.size[2] > INT_MAX / 2 || p.x.size[0] > INT_MAX / std::max<int64_t>(tiles_of_sample(p), 1))
    return "x has too many samples and frames";
  if (widest > INT_MAX / 2 / k || (widest / 64 + 1) * (widest / 64 + 1) * k > 65535)
    return "weight has too many channels";
  if (p.layouts() * k > 32767) return "adjacency has too many layouts and partitions";
  return "";
}

inline Activations activations(const StridedTensor& tensor) {
  const int64_t width = 16 / sizeof(Half);
  bool vector = tensor.stride[1] == 1 && tensor.size[1] % width == 0 &&
                reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0;
  for (int d : {0, 2, 3}) vector = vector && (tensor.size[d] == 1 || tensor.stride[d] % width == 0);
  return {tensor.data,
          tensor.stride[0],
          tensor.stride[1],
          tensor.stride[2],
          tensor.stride[3],
          static_cast<int>(tensor.size[1]),
          vector};
}

template <class Device>
class Launches {
 public:
  Launches(Device& device, const Problem& problem)
      : device_(device),
        p_(problem),
        batch_{static_cast<int>(problem.x.size[0]),
               static_cast<int>(problem.x.size[2]),
               static_cast<int>(problem.x.size[3]),
               static_cast<int>(problem.layouts()),
               static_cast<int>(tiles_of_sample(problem)),
               problem.layout_index,
               problem.joint_counts},
        partitions_(static_cast<int>(problem.partitions())),
        c_in_(static_cast<int>(problem.c_in())),
        c_out_(static_cast<int>(problem.c_out())) {}

 protected:
  int tiles() const { return batch_.samples * batch_.tiles; }
  int64_t weights() const { return static_cast<int64_t>(partitions_) * c_out_ * c_in_; }
  int64_t biases() const { return static_cast<int64_t>(partitions_) * c_out_; }
  int matrices() const { return batch_.layouts * partitions_; }
  int64_t links() const { return int64_t{1} * matrices() * batch_.joints * batch_.joints; }

  template <class S>
  S* scratch(int64_t count) {
    return device_.template scratch<S>(count);
  }

  // The blocks that share out the tiles, for each of `rows` rows of a grid: as many as run at once.
  template <class Arguments>
  int shares(void (*kernel)(Arguments), int rows, int threads, int shared_bytes) {
    if (tiles() == 0 || rows == 0) return 0;
    const int at_once = device_.blocks_at_once(kernel, threads, shared_bytes);
    return std::clamp(at_once / rows, 1, tiles());
  }

  // The same for blocks that take the tiles of one layout only: an odd number, or samples whose
  // layouts take turns would leave every other block without work.
  template <class Arguments>
  int odd_shares(void (*kernel)(Arguments), int rows, int threads, int shared_bytes) {
    const int most = shares(kernel, rows, threads, shared_bytes);
    return most - (most > 0 && most % 2 == 0);
  }

  Graph neighbours(bool outgoing) {
    const int64_t lists = int64_t{1} * matrices() * batch_.joints;
    const Graph graph{scratch<Link>(links()), scratch<int32_t>(lists), scratch<float>(lists)};
    device_.run(find_neighbours, ceil_div(lists * 32, kListThreads), 1, kListThreads, 0,
                {batch_, p_.adjacency, p_.support, partitions_, outgoing, graph});
    return graph;
  }

  void add_up(const float* sums, int shares, int64_t count, const StridedTensor& gradient,
              const StridedTensor& support = StridedTensor()) {
    if (count == 0) return;
    device_.run(add_shares, ceil_div(count, kShareElements), 1, kShareThreads,
                kShareThreads * static_cast<int>(sizeof(float)),
                {sums, shares, count, support, gradient});
  }

  Device& device_;
  const Problem& p_;
  const Batch batch_;
  const int partitions_, c_in_, c_out_;
};

}  // namespace msclr::gpu
