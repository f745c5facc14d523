#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace msclr::multi_view_cpu {

// Pairs of things, each of which belongs to one thread at a time. Each meets the others in a fixed
// order, so what is added up at it depends neither on the number of threads nor on timing.
//
// The order is that of (a + b) mod n: pairs of one remainder have nothing in common, and can run at
// once.
class Turns {
 public:
  explicit Turns(int64_t count) : count_(count), listed_(count), done_(count) {}

  // body(a, b) for the pairs a <= b that are wanted. Every thread has a body of its own, made by
  // make_body(), which may throw; the body may not.
  template <class Wanted, class MakeBody>
  void run(const Wanted& wanted, const MakeBody& make_body) {
    const int64_t threads =
        std::clamp<int64_t>((count_ + 1) / 2, 1, torch::stable::get_num_threads());
    torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      auto body = make_body();
      for (Turn turn; take(wanted, turn); finish(turn)) body(turn.a, turn.b);
    });
  }

 private:
  struct Turn {
    int64_t a, b;
    int64_t before_a, before_b;  // turns of a and of b that come first
  };

  // Waits until the next pair may run. Turns before it have been taken, so none waits for ever.
  template <class Wanted>
  bool take(const Wanted& wanted, Turn& turn) {
    std::unique_lock lock(mutex_);
    if (!find(wanted, turn)) return false;
    turn.before_a = listed_[turn.a]++;
    turn.before_b = turn.a == turn.b ? turn.before_a : listed_[turn.b]++;
    changed_.wait(lock,
                  [&] { return done_[turn.a] == turn.before_a && done_[turn.b] == turn.before_b; });
    return true;
  }

  template <class Wanted>
  bool find(const Wanted& wanted, Turn& turn) {
    for (; sum_ < count_; ++sum_, a_ = 0)
      while (a_ < count_) {
        turn.a = a_++;
        turn.b = sum_ - turn.a + (sum_ < turn.a ? count_ : 0);
        if (turn.a <= turn.b && wanted(turn.a, turn.b)) return true;
      }
    return false;
  }

  void finish(const Turn& turn) {
    {
      const std::lock_guard lock(mutex_);
      ++done_[turn.a];
      if (turn.b != turn.a) ++done_[turn.b];
    }
    changed_.notify_all();
  }

  int64_t count_;
  std::vector<int64_t> listed_, done_;  // turns of each
  int64_t sum_ = 0, a_ = 0;             // the next pair's
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace msclr::multi_view_cpu
