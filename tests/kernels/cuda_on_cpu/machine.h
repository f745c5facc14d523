#pragma once
// Launches, and memory whose bounds are watched.

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <type_traits>

namespace cuda_on_cpu {

enum class Order { kForward, kBackward, kShuffled };  // in which threads take their turns

// Runs every thread of a grid; the first misuse, or "".
std::string launch(const std::function<void()>& thread, unsigned x, unsigned y, int threads,
                   int shared_bytes, Order order);

// Memory between two pages that cannot be touched, filled with ones: NaN in any type of number.
// It ends at the second page but for at most 15 bytes, which are looked at when it is freed.
class Guarded {
 public:
  explicit Guarded(int64_t bytes);
  ~Guarded();
  Guarded(const Guarded&) = delete;

  char* data() const { return data_; }
  bool intact() const;  // nothing was written into the 15 bytes

 private:
  char *pages_, *data_;
  int64_t bytes_, mapped_;
};

// What GraphConv's kernels are launched on, see csrc/graph_conv/cuda/launches.h.
class Device {
 public:
  Device(Order order, int blocks) : order_(order), blocks_(blocks) {}

  template <class S>
  S* scratch(int64_t count) {
    scratch_.emplace_back(count * static_cast<int64_t>(sizeof(S)));
    return reinterpret_cast<S*>(scratch_.back().data());
  }

  template <class Arguments>
  int blocks_at_once(void (*)(Arguments), int, int) {
    return blocks_;
  }

  template <class Arguments>
  void run(void (*kernel)(Arguments), int x, int y, int threads, int shared_bytes,
           const std::type_identity_t<Arguments>& arguments) {
    if (!problem_.empty()) return;
    ++launches_;
    problem_ = launch([&] { kernel(arguments); }, x, y, threads, shared_bytes, order_);
    for (const Guarded& memory : scratch_)
      if (problem_.empty() && !memory.intact()) problem_ = "wrote past the end of scratch memory";
  }

  const std::string& problem() const { return problem_; }
  int launches() const { return launches_; }

 private:
  Order order_;
  int blocks_, launches_ = 0;
  std::deque<Guarded> scratch_;
  std::string problem_;
};

}  // namespace cuda_on_cpu
