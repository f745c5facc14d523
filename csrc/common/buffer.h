#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace msclr {

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

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

}  // namespace msclr
