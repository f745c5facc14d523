#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace msclr {

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Scratch memory, aligned to a cache line and not initialised. Large ones come in large pages where
// the system has them: their first touch costs less, and so does reading them with long strides.
template <class S>
class Buffer {
 public:
  explicit Buffer(int64_t size) : data_(static_cast<S*>(allocate(size * sizeof(S) + 64))) {
    if (!data_) throw std::bad_alloc();
  }
  S* get() const { return data_.get(); }

 private:
  static void* allocate(int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr int64_t kLargePage = 2 << 20, kWorthIt = 4 * kLargePage;
    if (bytes >= kWorthIt) {
      bytes = round_up(bytes, kLargePage);
      void* data = std::aligned_alloc(kLargePage, bytes);
      if (data) madvise(data, bytes, MADV_HUGEPAGE);
      return data;
    }
#endif
    return std::aligned_alloc(64, round_up(bytes, 64));
  }

  struct Free {
    void operator()(S* p) const { std::free(p); }
  };
  std::unique_ptr<S, Free> data_;
};

}  // namespace msclr
