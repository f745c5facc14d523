#include "machine.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda.h"

namespace cuda_on_cpu {

namespace {

constexpr int kStackBytes = 128 * 1024, kMostThreads = 1024;
constexpr int kMostShared = 99 * 1024;  // of a block, on the smallest GPUs that run sm_80's code

enum class State { kReady, kAtBarrier, kInWarp, kDone };

struct Copy {
  char* to;
  const char* from;  // null: zeros
};

struct Fiber {
  Index index;
  State state;
  bool started;
  ucontext_t entry;
  jmp_buf at;
  std::vector<Copy> copies;              // not yet committed
  std::deque<std::vector<Copy>> groups;  // not yet waited for
};

struct Warp {
  int arrived = 0;
  const char* name = nullptr;
  void* brought[32];
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Fiber* current = nullptr;
  jmp_buf scheduler;
  const std::function<void()>* thread = nullptr;
  std::unique_ptr<Guarded> shared;
  std::string problem;
};

Machine machine;

std::string where(const std::string& message) {
  return message + ", in thread " + std::to_string(threadIdx.x) + " of block (" +
         std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ")";
}

void back_to_scheduler() {
  if (_setjmp(machine.current->at) == 0) _longjmp(machine.scheduler, 1);
}

void run_thread() {
  (*machine.thread)();
  for (const auto& group : machine.current->groups)
    if (!group.empty()) fail("asynchronous copies were never waited for");
  if (!machine.current->copies.empty()) fail("asynchronous copies were never committed");
  machine.current->state = State::kDone;
  _longjmp(machine.scheduler, 1);
}

void resume(Fiber& fiber) {
  machine.current = &fiber;
  threadIdx = fiber.index;
  if (_setjmp(machine.scheduler) == 0) {
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    setcontext(&fiber.entry);
  }
  machine.current = nullptr;
}

void on_signal(int number, siginfo_t*, void*) {
  if (!machine.current) {  // not a kernel's: as without this handler
    signal(number, SIG_DFL);
    return;
  }
  fail(number == SIGSEGV || number == SIGBUS ? "a memory access out of range"
                                             : "undefined behaviour");
}

// Faults become the launch's problem, but only while it runs.
class Signals {
 public:
  Signals() {
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    for (size_t i = 0; i < 4; ++i) sigaction(kNumbers[i], &action, &before_[i]);
  }
  ~Signals() {
    for (size_t i = 0; i < 4; ++i) sigaction(kNumbers[i], &before_[i], nullptr);
  }

 private:
  static constexpr int kNumbers[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  struct sigaction before_[4];
};

void start_block(int threads) {
  static char* const stacks =
      static_cast<char*>(mmap(nullptr, size_t{kStackBytes} * kMostThreads, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  machine.fibers.resize(threads);
  machine.warps.assign(threads / 32, Warp());
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = machine.fibers[i];
    fiber.index.x = i;
    fiber.state = State::kReady;
    fiber.started = false;
    fiber.copies.clear();
    fiber.groups.clear();
    getcontext(&fiber.entry);
    fiber.entry.uc_stack = {stacks + size_t{kStackBytes} * i, 0, kStackBytes};
    fiber.entry.uc_link = nullptr;
    makecontext(&fiber.entry, run_thread, 0);
  }
}

int count(State state) {
  return static_cast<int>(std::count_if(machine.fibers.begin(), machine.fibers.end(),
                                        [&](const Fiber& f) { return f.state == state; }));
}

// Nobody can go on: lets all pass a barrier that all have reached, or says what is wrong.
void release_or_fail() {
  const int threads = static_cast<int>(machine.fibers.size());
  for (const Warp& warp : machine.warps)
    if (warp.arrived > 0) {
      machine.problem = where(std::string(warp.name) + " was reached by only " +
                              std::to_string(warp.arrived) + " lanes of a warp");
      return;
    }
  if (count(State::kAtBarrier) < threads) {
    machine.problem =
        where("a barrier was reached by only " + std::to_string(count(State::kAtBarrier)) + " of " +
              std::to_string(threads) + " threads");
    return;
  }
  for (Fiber& fiber : machine.fibers) fiber.state = State::kReady;
}

void run_block(const std::vector<int>& order) {
  while (machine.problem.empty()) {
    bool moved = false;
    for (int i : order)
      if (machine.fibers[i].state == State::kReady) {
        moved = true;
        resume(machine.fibers[i]);
        if (!machine.problem.empty()) return;
      }
    if (moved) continue;
    if (count(State::kDone) == static_cast<int>(machine.fibers.size())) return;
    release_or_fail();
  }
}

}  // namespace

void fail(const char* message) {
  machine.problem = where(message);
  _longjmp(machine.scheduler, 1);
}

void barrier() {
  machine.current->state = State::kAtBarrier;
  back_to_scheduler();
}

void warp_wide(const char* name, void* own, void (*run)(void* const (&)[32])) {
  const unsigned lane = threadIdx.x % 32, first = threadIdx.x - lane;
  Warp& warp = machine.warps[first / 32];
  if (warp.arrived > 0 && warp.name != name) fail("lanes of a warp are at different instructions");
  warp.name = name;
  warp.brought[lane] = own;
  if (++warp.arrived < 32) {
    machine.current->state = State::kInWarp;
    back_to_scheduler();
    return;
  }
  run(warp.brought);
  warp.arrived = 0;
  for (unsigned i = first; i < first + 32; ++i) machine.fibers[i].state = State::kReady;
}

void copy_later(void* shared, const void* global, bool copy) {
  check_alignment(shared, 16);
  check_alignment(global, 16);
  std::memset(shared, 0xff, 16);
  machine.current->copies.push_back(
      {static_cast<char*>(shared), copy ? static_cast<const char*>(global) : nullptr});
}

void commit_copies() {
  machine.current->groups.push_back(std::move(machine.current->copies));
  machine.current->copies.clear();
}

void wait_for_copies(int pending) {
  auto& groups = machine.current->groups;
  for (; static_cast<int>(groups.size()) > pending; groups.pop_front())
    for (const Copy& copy : groups.front()) {
      if (copy.from)
        std::memcpy(copy.to, copy.from, 16);
      else
        std::memset(copy.to, 0, 16);
    }
}

char* shared_memory() { return machine.shared->data(); }

void check_alignment(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes) fail("a misaligned access");
}

std::string launch(const std::function<void()>& thread, unsigned x, unsigned y, int threads,
                   int shared_bytes, Order order) {
  if (x == 0 || y == 0) return "an empty grid was launched";
  if (threads % 32 || threads > kMostThreads) return "a block has whole warps, 32 at most";
  if (shared_bytes > kMostShared) return "a block asked for too much shared memory";
  const Signals signals;
  std::mt19937 random(7);
  std::vector<int> turns(threads);
  std::iota(turns.begin(), turns.end(), 0);
  if (order == Order::kBackward) std::reverse(turns.begin(), turns.end());
  machine.thread = &thread;
  machine.problem.clear();
  gridDim = {x, y};
  for (blockIdx.y = 0; blockIdx.y < y && machine.problem.empty(); ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < x && machine.problem.empty(); ++blockIdx.x) {
      if (order == Order::kShuffled) std::shuffle(turns.begin(), turns.end(), random);
      machine.shared = std::make_unique<Guarded>(shared_bytes);
      start_block(threads);
      run_block(turns);
      if (machine.problem.empty() && !machine.shared->intact())
        machine.problem = "wrote past the end of shared memory";
    }
  machine.shared.reset();
  return machine.problem;
}

Guarded::Guarded(int64_t bytes) : bytes_(bytes) {
  const int64_t page = sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
  mapped_ = whole + 2 * page;
  pages_ =
      static_cast<char*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (whole) mprotect(pages_ + page, whole, PROT_READ | PROT_WRITE);
  if (whole) std::memset(pages_ + page, 0xff, whole);
  data_ = pages_ + page + whole - (bytes + 15) / 16 * 16;
}

Guarded::~Guarded() { munmap(pages_, mapped_); }

bool Guarded::intact() const {
  return std::all_of(data_ + bytes_, data_ + (bytes_ + 15) / 16 * 16,
                     [](char c) { return c == '\xff'; });
}

}  // namespace cuda_on_cpu
